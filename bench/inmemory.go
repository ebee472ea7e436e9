package main

import (
	"bytes"
	"sync"

	"github.com/puzpuzpuz/xsync/v4"
)

// goMap is Go's own map behind a lock: what many services have today. It keeps nothing.
type goMap struct {
	mu sync.RWMutex
	m  map[string][]byte
}

func (s *goMap) put(k, v []byte) error {
	v = bytes.Clone(v)
	s.mu.Lock()
	s.m[string(k)] = v
	s.mu.Unlock()
	return nil
}

func (s *goMap) putBatch(n int, pair func(int) (k, v []byte)) error { return putEach(s, n, pair) }

func (s *goMap) read(k []byte, f func([]byte)) error {
	s.mu.RLock()
	v, ok := s.m[string(k)]
	s.mu.RUnlock()
	if ok {
		f(v)
	}
	return nil
}

func (s *goMap) copyTo(dst, k []byte) ([]byte, error) { return copyRead(s, dst, k) }

func (s *goMap) scan([]byte, int, func(k, v []byte)) error { return errNoScan }
func (s *goMap) flush() error                              { return nil }
func (s *goMap) close() error                              { return nil }

// xsyncMap is the fastest concurrent map of Go that we know: a ceiling. It keeps nothing.
type xsyncMap struct{ m *xsync.Map[string, []byte] }

func (s xsyncMap) put(k, v []byte) error {
	s.m.Store(string(k), bytes.Clone(v))
	return nil
}

func (s xsyncMap) putBatch(n int, pair func(int) (k, v []byte)) error { return putEach(s, n, pair) }

func (s xsyncMap) read(k []byte, f func([]byte)) error {
	if v, ok := s.m.Load(string(k)); ok {
		f(v)
	}
	return nil
}

func (s xsyncMap) copyTo(dst, k []byte) ([]byte, error) { return copyRead(s, dst, k) }

func (s xsyncMap) scan([]byte, int, func(k, v []byte)) error { return errNoScan }
func (s xsyncMap) flush() error                              { return nil }
func (s xsyncMap) close() error                              { return nil }

func putEach(s store, n int, pair func(int) (k, v []byte)) error {
	for i := range n {
		if err := s.put(pair(i)); err != nil {
			return err
		}
	}
	return nil
}

func copyRead(s store, dst, k []byte) ([]byte, error) {
	err := s.read(k, func(v []byte) { dst = append(dst, v...) })
	return dst, err
}
