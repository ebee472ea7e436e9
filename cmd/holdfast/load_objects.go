package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	pageBytes   = 4 << 10 // of an object; half of each compresses to nothing
	rangesAWalk = 1000    // at most
)

// object is content that is known at every offset.
type object struct {
	id   uint64
	size int64
}

// page fills p, which is whole but at the end, with page n.
func (o object) page(p []byte, n int64) {
	x := mixBits(mixBits(o.id) ^ uint64(n))
	for i := 0; i+8 <= len(p) && i < pageBytes/2; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], x)
		x = x*0x9e3779b97f4a7c15 + 1
	}
	for i := min(pageBytes/2, len(p)&^7); i < len(p); i++ {
		p[i] = byte(n)
	}
}

// objectReader reads an object from its start, until ctx ends.
type objectReader struct {
	object
	ctx context.Context
	off int64
	tmp [pageBytes]byte
}

func (r *objectReader) Read(p []byte) (n int, err error) {
	if r.off == r.size {
		return 0, io.EOF
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	for n < len(p) && r.off < r.size {
		page, at := r.off/pageBytes, r.off%pageBytes
		b := r.tmp[:min(pageBytes, r.size-page*pageBytes)]
		r.page(b, page)
		k := copy(p[n:], b[at:])
		n, r.off = n+k, r.off+int64(k)
	}
	return n, nil
}

// objects is the client of large: each round one object comes and an older one goes.
func (l *load) objects(ctx context.Context, id int) error {
	c := l.newClient(id)
	name := func(o object) []byte { return fmt.Appendf(nil, "object/%d/%d", id, o.id) }
	var last object
	for round := uint64(1); ctx.Err() == nil; round++ {
		o := object{uint64(id)<<20 + round, l.size}
		if stored, err := c.upload(ctx, name(o), o); err != nil {
			return err
		} else if !stored {
			continue
		}
		if err := c.download(ctx, name(o), o); err != nil {
			return err
		}
		if last.size > 0 {
			due := time.Now()
			if err := l.record(id, opDelete, due, 0, l.e.Delete(name(last))); err != nil {
				return err
			}
		}
		last = o
	}
	return nil
}

// steps tells of a stream while it is under way.
type steps struct {
	c *client
	k kind
}

func (s steps) Write(p []byte) (int, error) {
	s.c.l.tape.pass(s.c.id, s.k, len(p))
	return len(p), nil
}

// upload says whether the object is stored: the store may have been behind.
func (c *client) upload(ctx context.Context, key []byte, o object) (stored bool, err error) {
	due := time.Now()
	w, err := c.l.e.Create(ctx, key)
	if err != nil {
		return false, err
	}
	if _, err := io.Copy(w, io.TeeReader(&objectReader{object: o, ctx: ctx}, steps{c, opUpload})); err != nil {
		return false, errors.Join(err, w.Abort())
	}
	err = w.Close()
	return err == nil, c.l.record(c.id, opUpload, due, 0, err)
}

func (c *client) download(ctx context.Context, key []byte, o object) (err error) {
	v, err := c.l.e.OpenValue(key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	due := time.Now()
	want := &objectReader{object: o, ctx: ctx}
	if n, err := v.WriteTo(io.MultiWriter(&sameAs{want: want, key: key}, steps{c, opDownload})); err != nil || n != o.size {
		return errors.Join(err, c.l.short(n, o.size, key, err))
	}
	if err := c.l.record(c.id, opDownload, due, 0, nil); err != nil {
		return err
	}
	got, page := make([]byte, pageBytes), make([]byte, pageBytes)
	pages := (o.size + pageBytes - 1) / pageBytes
	for range min(rangesAWalk, pages) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n := c.rnd.Int64N(pages)
		size := int(min(pageBytes, o.size-n*pageBytes))
		due := time.Now()
		if _, err := v.ReadAt(got[:size], n*pageBytes); err != nil && err != io.EOF {
			return err
		}
		if err := c.l.record(c.id, opRange, due, size, nil); err != nil {
			return err
		}
		if o.page(page[:size], n); !bytes.Equal(got[:size], page[:size]) {
			return fmt.Errorf("%w: page %d of %s is another", errBroken, n, key)
		}
	}
	return nil
}

func (l *load) short(n, want int64, key []byte, err error) error {
	if err == nil {
		return fmt.Errorf("%w: %s has %d of %d bytes", errBroken, key, n, want)
	}
	return nil
}

// sameAs is a writer that compares.
type sameAs struct {
	want *objectReader
	key  []byte
	tmp  [64 << 10]byte
}

func (s *sameAs) Write(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := s.want.Read(s.tmp[:min(len(s.tmp), len(p)-n)])
		if err != nil && err != io.EOF {
			return n, err
		}
		if k == 0 || !bytes.Equal(p[n:n+k], s.tmp[:k]) {
			return n, fmt.Errorf("%w: %s is another from offset %d on", errBroken, s.key, s.want.off-int64(k))
		}
		n += k
	}
	return n, nil
}
