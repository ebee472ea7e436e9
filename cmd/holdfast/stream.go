package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// putStream stores what r gives under key, in memory that does not depend on how much
// that is.
func (a *app) putStream(ctx context.Context, e *engine.Engine, key []byte, r io.Reader) (n int64, err error) {
	w, err := e.Create(ctx, key)
	if err != nil {
		return 0, err
	}
	defer w.Abort() // nothing after Close
	bar := a.newProgress("put", sizeOfFile(r))
	defer bar.done()
	in, stop := interruptible(ctx, r)
	defer stop()
	n, err = w.ReadFrom(&watched{ctx: ctx, r: in, bar: bar})
	if err != nil {
		return n, err
	}
	return n, w.Close()
}

// interruptible is r, whose reads end with ctx also while it has nothing to give: a pipe
// that nobody writes into must not hold the process. What waits in r then waits on.
func interruptible(ctx context.Context, r io.Reader) (_ io.Reader, stop func()) {
	if sizeOfFile(r) >= 0 {
		return r, func() {}
	}
	out, in := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{in}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		in.CloseWithError(err)
	}()
	end := context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })
	return out, func() { end(); out.Close() }
}

// watched shows the bar what goes by, and ends with the context.
type watched struct {
	ctx context.Context
	r   io.Reader
	w   io.Writer
	bar *progress
}

func (s *watched) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.bar.add(int64(n))
	if s.ctx.Err() != nil {
		return n, s.ctx.Err()
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("standard input: %w", err)
	}
	return n, err
}

func (s *watched) Write(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	s.bar.add(int64(n))
	return n, err
}

// getStream writes the part of a value to standard output.
func (a *app) getStream(cmd *cobra.Command, e *engine.Engine, key []byte, p part) error {
	v, err := e.OpenValue(key)
	if err != nil {
		return ofKey(key, err)
	}
	defer v.Close()
	if p.off > v.Size() {
		return usagef(cmd, "--range begins at %d, the value has %d bytes", p.off, v.Size())
	}
	from, to := p.of(v.Size())
	bar := &progress{}
	if !isTerminal(a.out) { // there the value itself shows how far it is
		bar = a.newProgress("get", to-from)
	}
	defer bar.done()
	out := &watched{ctx: cmd.Context(), w: a.out, bar: bar}
	if from == 0 && to == v.Size() {
		_, err = v.WriteTo(out)
	} else {
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, io.NewSectionReader(v, from, to-from), make([]byte, 1<<20))
	}
	if err != nil {
		return ofKey(key, err)
	}
	if isTerminal(a.out) {
		return a.printf("\n")
	}
	return nil
}

// part is OFFSET:LENGTH of a value; a length below zero has no end.
type part struct{ off, len int64 }

// of is where the part lies in a value of this size.
func (p part) of(size int64) (from, to int64) {
	if p.len < 0 || p.len > size-p.off {
		return p.off, size
	}
	return p.off, p.off + p.len
}

func parsePart(cmd *cobra.Command, s string) (part, error) {
	off, n, ok := strings.Cut(s, ":")
	out := part{len: -1}
	var err1, err2 error
	if off != "" {
		out.off, err1 = strconv.ParseInt(off, 10, 64)
	}
	if n != "" {
		out.len, err2 = strconv.ParseInt(n, 10, 64)
	}
	if !ok || err1 != nil || err2 != nil || out.off < 0 || n != "" && out.len < 0 {
		return part{}, usagef(cmd, "--range %q: want OFFSET:LENGTH in bytes, either may be left out", s)
	}
	return out, nil
}
