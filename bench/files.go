package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// files is a value in a plain file each: what large values are measured against. A durable
// one is written beside the old, synced, renamed, and its folder is synced.
type files struct {
	dir     string
	durable bool
}

func (s *files) path(key string) string { return filepath.Join(s.dir, key) }

func (s *files) stream(key string, r io.Reader) error {
	f, err := os.Create(s.path(key) + ".new")
	if err != nil {
		return err
	}
	if _, err = io.CopyBuffer(struct{ io.Writer }{f}, r, make([]byte, 1<<20)); err == nil && s.durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(s.path(key)+".new", s.path(key))
	}
	if err != nil || !s.durable {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *files) put(k, v []byte) error { return s.stream(string(k), bytes.NewReader(v)) }

func (s *files) putBatch(n int, pair func(int) (k, v []byte)) error {
	for i := range n {
		if err := s.put(pair(i)); err != nil {
			return err
		}
	}
	return nil
}

func (s *files) read(k []byte, f func([]byte)) error {
	b, err := os.ReadFile(s.path(string(k)))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		f(b)
	}
	return err
}

func (s *files) copyTo(dst, k []byte) ([]byte, error) {
	err := s.read(k, func(v []byte) { dst = append(dst, v...) })
	return dst, err
}

var errNoScan = errors.New("this store has no order")

func (s *files) scan([]byte, int, func(k, v []byte)) error { return errNoScan }
func (s *files) flush() error                              { return nil }
func (s *files) close() error                              { return nil }
