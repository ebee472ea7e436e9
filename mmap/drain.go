package mmap

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
)

// WriteTo writes the whole value to out, verified frame by frame and in order.
// Frames of a compressed value are decoded ahead on all cores, twice GOMAXPROCS
// of them at most. Those of a raw one come from the mapping or from the file: without
// a copy for a file, a socket and io.Discard, which look at them in this call or not at
// all; for any other writer through a copy, because it may hand them to a goroutine that
// no guard of ours covers (M6). If the file is cut meanwhile, WriteTo returns ErrCorrupt.
func (b *Blob) WriteTo(out io.Writer) (n int64, err error) {
	if err := b.enter(); err != nil {
		return 0, err
	}
	defer b.leave()
	l, w, err := b.begin(false)
	if err != nil {
		return 0, err
	}
	write := func(part []byte) error {
		m, err := out.Write(part)
		n += int64(max(m, 0))
		if err == nil && m != len(part) {
			err = io.ErrShortWrite
		}
		return err
	}
	if b.ref.Codec.compressed() {
		err = b.eachDecoded(l, write)
	} else {
		err = b.eachRaw(l, w, direct(out), write)
	}
	return n, b.s.seen(err)
}

// direct says whether a writer reads what it is given by itself, before it returns.
func direct(out io.Writer) bool {
	if u, ok := out.(interface{ Unwrap() io.Writer }); ok {
		out = u.Unwrap()
	}
	switch out.(type) {
	case *os.File, *net.TCPConn, *net.UnixConn:
		return true
	}
	return out == io.Discard
}

// eachRaw calls f with each frame of a raw value in order, with the mapping itself only
// if f may have it.
func (b *Blob) eachRaw(l *layout, w *window, direct bool, f func([]byte) error) error {
	for i := range uint64(len(l.sums)) {
		from, to := l.span(i, b.ref.Size)
		if !direct || w == nil || !b.s.windows.touch(w, i, int64(to-from)) {
			if err := b.eachRead(l, i, int(to-from), f); err != nil {
				return err
			}
			continue
		}
		from, to = blobHeaderLen+from, blobHeaderLen+to
		if err := populate(w.pagesOf(from, to)); err != nil {
			return b.faulted(w, from, &fault{err})
		}
		if err := b.verifyMapped(l, w, i); err != nil {
			return err
		}
		err := guard(w.region, func() error { return f(w.blob[from:to:to]) })
		// The kernel reads for a file or a socket, and meets the fault itself.
		if errors.Is(err, syscall.EFAULT) {
			if gone := populate(w.pagesOf(from, to)); gone != nil {
				err = &fault{gone}
			}
		}
		if err != nil {
			return b.faulted(w, from, err)
		}
	}
	return nil
}

// eachRead calls f with one frame that is read from the file or decoded.
func (b *Blob) eachRead(l *layout, i uint64, n int, f func([]byte) error) error {
	buf := getBuffer(n)
	defer putBuffer(buf)
	if err := b.frame(l, i, *buf); err != nil {
		return err
	}
	return f(*buf)
}

// decoding is a frame that is decoded ahead of its turn.
type decoding struct {
	buf  *[]byte
	err  error
	done chan struct{}
}

// eachDecoded calls f with each frame of a compressed value in order, from this
// goroutine, while others decode what comes next. None of them is left when it
// returns or panics.
func (b *Blob) eachDecoded(l *layout, f func([]byte) error) error {
	count := uint64(len(l.sums))
	if b.width() == 1 {
		for i := range count {
			from, to := l.span(i, b.ref.Size)
			if err := b.eachRead(l, i, int(to-from), f); err != nil {
				return err
			}
		}
		return nil
	}
	ahead := make(chan *decoding, 2*runtime.GOMAXPROCS(0))
	defer func() {
		close(ahead)
		for d := range ahead {
			<-d.done
			putFrame(d.buf)
		}
	}()
	next := uint64(0)
	for range count {
		for ; next < count && len(ahead) < cap(ahead); next++ {
			ahead <- b.decodeAhead(l, next)
		}
		d := <-ahead
		<-d.done
		err := d.err
		if err == nil {
			err = f(*d.buf)
		}
		putFrame(d.buf)
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Blob) decodeAhead(l *layout, i uint64) *decoding {
	from, to := l.span(i, b.ref.Size)
	d := &decoding{buf: getFrame(int(to - from)), done: make(chan struct{})}
	go func() {
		defer close(d.done)
		d.err = b.frame(l, i, *d.buf)
	}()
	return d
}
