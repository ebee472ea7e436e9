package mmap

import (
	"context"
	"runtime"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// stream takes the frames of one value in order, encodes them side by side and
// puts them one behind the other: into memory, and from soloBytes on into a
// pack of its own. One goroutine does the putting; it ends with the value, and
// takes with it what is not finished.
type stream struct {
	s     *Store
	ctx   context.Context
	stop  context.CancelCauseFunc
	plan  plan
	enc   *zstd.Encoder
	jobs  chan *job
	ended chan struct{} // closed when the goroutine is gone
	// outcome is decided once: by the goroutine, which publishes, or by a
	// Finish whose context ended, which returns.
	outcome atomic.Uint32

	// Set before jobs is closed.
	size, hash uint64

	// The goroutine's until ended is closed.
	tail    tail
	value   uint64
	held    []frame
	heldLen int64 // its bytes; in Store.held, too
	solo    *solo
	ref     Ref
	dropErr error
}

const (
	undecided uint32 = iota
	published
	givenUp
)

// job is a frame on its way through an encoder.
type job struct {
	in    *[]byte
	frame frame
	done  chan struct{}
}

func (s *Store) newStream(ctx context.Context, stop context.CancelCauseFunc, p plan, codec Codec, enc *zstd.Encoder) (*stream, error) {
	t := &stream{
		s: s, ctx: ctx, stop: stop, plan: p, enc: enc,
		// Two more are under way: one is put, one waits for its place.
		jobs:  make(chan *job, 2*runtime.GOMAXPROCS(0)-2),
		ended: make(chan struct{}),
		tail:  tail{codec: codec},
	}
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.writableLocked(); err != nil {
		return nil, err
	}
	// Under the lock: Close sees it, or it sees that the store is closed.
	s.streams[t] = struct{}{}
	go t.run()
	return t, nil
}

// send encodes a frame and hands it on. It waits while too many are under way.
func (t *stream) send(buf *[]byte) error {
	j := &job{in: buf, done: make(chan struct{})}
	go func() {
		defer close(j.done)
		j.frame = encodeFrame(t.enc, *buf)
		if t.enc == nil {
			j.frame.buf = buf // it is what is stored
		} else {
			putFrame(buf)
		}
	}()
	select {
	case t.jobs <- j:
		return nil
	case <-t.ctx.Done():
		<-j.done // no goroutine stays behind
		j.frame.free()
		return ended(t.ctx)
	}
}

// finish waits for the frames and makes a blob of them.
func (t *stream) finish(size, hash uint64) ([]byte, error) {
	t.size, t.hash = size, hash
	close(t.jobs)
	select {
	case <-t.ended:
	case <-t.ctx.Done():
		if t.outcome.CompareAndSwap(undecided, givenUp) {
			return nil, ended(t.ctx)
		}
		<-t.ended
	}
	switch {
	case t.solo == nil && t.outcome.Load() == published:
		e := &encoded{tail: t.tail, size: size, hash: hash, frameBytes: uint64(t.plan.frameBytes), parts: t.held}
		defer t.letGo()
		e.finish()
		return t.s.appendBlob(e)
	case t.outcome.Load() == published:
		return t.ref.append(make([]byte, 0, RefLen)), nil
	}
	return nil, ended(t.ctx)
}

func (t *stream) run() {
	defer close(t.ended)
	defer func() {
		t.s.writeMu.Lock()
		delete(t.s.streams, t)
		t.s.writeMu.Unlock()
	}()
	err := t.take()
	if err == nil {
		err = t.end()
	}
	if err != nil {
		t.stop(&stopped{err})
		t.drop()
	}
}

// take puts frames until there are no more.
func (t *stream) take() error {
	for {
		select {
		case <-t.ctx.Done():
			return ended(t.ctx)
		case j, more := <-t.jobs:
			if !more {
				return nil
			}
			<-j.done
			if err := t.put(j.frame); err != nil {
				return err
			}
		}
	}
}

// put takes over a frame.
func (t *stream) put(f frame) error {
	t.tail.add(&f)
	t.value += uint64(f.size)
	if t.solo == nil {
		f.compact()
		t.held = append(t.held, f)
		t.heldLen += int64(len(f.stored))
		t.s.held.Add(int64(len(f.stored)))
	} else {
		err := t.solo.append(f.stored)
		f.free()
		if err != nil {
			return err
		}
	}
	if t.solo != nil || t.value < t.plan.soloValue && t.s.held.Load() <= t.s.o.HeldBytes {
		return nil
	}
	return t.spill()
}

// letGo frees what is held.
func (t *stream) letGo() {
	for i := range t.held {
		t.held[i].free()
	}
	t.s.held.Add(-t.heldLen)
	t.held, t.heldLen = nil, 0
}

// spill begins a pack with what was held.
func (t *stream) spill() (err error) {
	if t.solo, err = t.s.newSolo(); err != nil {
		return err
	}
	for i := range t.held {
		if err := t.solo.append(t.held[i].stored); err != nil {
			return err
		}
	}
	t.letGo()
	return nil
}

// end publishes, unless Finish has given up.
func (t *stream) end() (err error) {
	if t.solo == nil {
		if !t.outcome.CompareAndSwap(undecided, published) {
			return ended(t.ctx)
		}
		return nil // the shared pack is Finish's
	}
	t.ref, err = t.solo.finish(&t.tail, Ref{Size: t.size, Hash: t.hash, Codec: t.tail.codec}, uint64(t.plan.frameBytes))
	if err != nil {
		return err
	}
	if err := ended(t.ctx); err != nil {
		return err
	}
	if !t.outcome.CompareAndSwap(undecided, published) {
		return ended(t.ctx)
	}
	if err := t.solo.publish(t.ref); err != nil {
		t.outcome.Store(givenUp)
		return err
	}
	return nil
}

// drop frees and removes all there is of the value.
func (t *stream) drop() {
	if t.solo != nil {
		t.dropErr = t.solo.drop()
	}
	t.letGo()
	for {
		select {
		case j, more := <-t.jobs:
			if !more {
				return
			}
			<-j.done
			j.frame.free()
		default:
			return
		}
	}
}
