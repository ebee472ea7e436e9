package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/holdfastdb/holdfast/engine"
)

// tune lets the store tune the collector: an arm's process is its own.
var tune = true

func openHoldfast(dir string, budget int64, durable, noL2 bool) (store, error) {
	o := &engine.Options{MemoryBudget: budget, TuneGC: tune, NoL2: noL2, DiskReserve: -1, Logger: slog.New(slog.DiscardHandler)}
	if !durable {
		o.Sync = engine.SyncNever
	}
	e, err := engine.Open(dir, o)
	return &holdfast{e}, err
}

type holdfast struct{ e *engine.Engine }

// warm makes the store recycle its log, as a peer's warm does.
func (s *holdfast) warm() error {
	v := make([]byte, 32<<10)
	for i := 0; s.e.Metrics().Log.SegmentsRecycled < 3 && i < 1000; i++ {
		err := s.putBatch(30, func(j int) (_, _ []byte) { return fmt.Appendf(nil, "~warm%d", (i*30+j)%100), v })
		if err != nil {
			return err
		}
	}
	return s.flush()
}

func (s *holdfast) put(k, v []byte) error { return s.e.Put(k, v) }

func (s *holdfast) putBatch(n int, pair func(int) (k, v []byte)) error {
	b := s.e.NewBatch()
	defer b.Close()
	for i := range n {
		if err := b.Put(pair(i)); err != nil {
			return err
		}
	}
	_, err := s.e.Apply(b)
	return err
}
func (s *holdfast) read(k []byte, f func([]byte)) error {
	err := s.e.View(k, func(v []byte) error { f(v); return nil })
	if err == engine.ErrNotFound {
		return nil
	}
	return err
}
func (s *holdfast) copyTo(dst, k []byte) ([]byte, error) { return s.e.GetInto(dst, k) }
func (s *holdfast) scan(from []byte, n int, f func(k, v []byte)) error {
	for item, err := range s.e.Scan(engine.Range{Lower: from}) {
		if err != nil {
			return err
		}
		v, err := item.Value()
		if err != nil {
			return err
		}
		if f(item.Key(), v); n == 1 {
			break
		}
		n--
	}
	return nil
}
func (s *holdfast) flush() error { return s.e.Flush(ctx) }
func (s *holdfast) close() error { return s.e.Close() }

func (s *holdfast) stream(key string, r io.Reader) error {
	w, err := s.e.Create(ctx, []byte(key))
	if err != nil {
		return err
	}
	if _, err := w.ReadFrom(r); err != nil {
		return err
	}
	return w.Close()
}
