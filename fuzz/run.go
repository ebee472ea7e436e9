package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// Source makes the choices of a run: a seeded generator, or a fuzzer's bytes.
type Source interface {
	// IntN returns a number in [0, n).
	IntN(n int) int
}

// Seeded is the source of one seed.
func Seeded(seed uint64) Source { return rand.New(rand.NewPCG(seed, 0x686f6c6466617374)) }

// Bytes is a source that reads its choices from b; at its end they are all zero,
// and Done is true.
type Bytes struct{ b []byte }

func NewBytes(b []byte) *Bytes { return &Bytes{b} }

func (s *Bytes) Done() bool { return len(s.b) == 0 }

func (s *Bytes) IntN(n int) int {
	v := 0
	for m := 1; m < n && len(s.b) > 0; m <<= 8 {
		v = v<<8 | int(s.b[0])
		s.b = s.b[1:]
	}
	return v % n
}

// Config of a run.
type Config struct {
	Dir     string         // of the store; it must not exist or be empty
	Options engine.Options // changed between reopens only where it changes no result
	Source  Source
	Steps   int
	Keys    int // how many different keys; fewer means more overwrites
}

// run is one store beside its model.
type run struct {
	cfg     Config
	src     Source
	e       *engine.Engine
	model   oracle.Model
	snaps   []snap
	batches []*batch
	step    int
	lsn     uint64
}

type snap struct {
	s     *engine.Snapshot
	model oracle.Model
}

// Run does cfg.Steps random operations and compares every answer with a model. It
// returns the first difference.
func Run(cfg Config) (err error) {
	r := &run{cfg: cfg, src: cfg.Source, model: oracle.NewModel()}
	if err := r.open(); err != nil {
		return err
	}
	defer func() {
		r.closeBatches()
		if cerr := r.e.Close(); err == nil {
			err = cerr
		}
	}()
	for r.step = 0; r.step < cfg.Steps; r.step++ {
		if d, ok := r.src.(interface{ Done() bool }); ok && d.Done() {
			break
		}
		if err := r.one(); err != nil {
			return fmt.Errorf("step %d, commit %d: %w", r.step, r.lsn, err)
		}
	}
	if err := r.whole(); err != nil {
		return fmt.Errorf("at the end, commit %d: %w", r.lsn, err)
	}
	return r.e.Check(context.Background())
}

func (r *run) open() (err error) {
	o := r.cfg.Options
	r.e, err = engine.Open(r.cfg.Dir, &o)
	return err
}

func (r *run) key() string { return fmt.Sprintf("key-%04d", r.src.IntN(r.cfg.Keys)) }

// value is mostly small; some are empty, some large enough for a pack.
func (r *run) value() string {
	large := r.cfg.Options.LargeValue
	if large == 0 {
		large = 64 << 10
	}
	unit := fmt.Sprintf("%d.%d ", r.step, r.src.IntN(1000))
	switch r.src.IntN(12) {
	case 0:
		return ""
	case 1:
		return strings.Repeat(unit, (large+r.src.IntN(large))/len(unit)+1)
	case 2:
		return strings.Repeat(unit, large/len(unit)/4)
	}
	return strings.Repeat(unit, 1+r.src.IntN(20))
}

func (r *run) bounds() oracle.Bounds {
	b := oracle.Bounds{Lower: r.key(), Upper: r.key()}
	if b.Upper < b.Lower {
		b.Lower, b.Upper = b.Upper, b.Lower
	}
	if r.src.IntN(10) == 0 {
		b.Upper = ""
	}
	if b.Lower == b.Upper {
		b.Upper += "\x00"
	}
	return b
}

func (r *run) one() error {
	ctx := context.Background()
	switch r.src.IntN(40) {
	default: // puts are the most frequent
		k, v := r.key(), r.value()
		r.model.Put(k, v)
		return r.e.Put([]byte(k), []byte(v))
	case 0, 1, 2:
		k := r.key()
		r.model.Delete(k)
		return r.e.Delete([]byte(k))
	case 3:
		b := r.bounds()
		r.model.DeleteRange(b)
		return r.e.DeleteRange([]byte(b.Lower), upper(b))
	case 4, 5, 6:
		return r.batch()
	case 22:
		return r.batchAgain()
	case 7, 8, 9, 10, 11, 12, 13:
		return r.get()
	case 14, 15:
		return r.model.Check(Store{r.e}, r.bounds(), r.src.IntN(2) == 0)
	case 16:
		return r.openSnapshot()
	case 17, 18:
		return r.useSnapshot()
	case 19:
		return r.e.Flush(ctx)
	case 20:
		if r.src.IntN(4) == 0 {
			return r.e.Compact(ctx)
		}
		return r.e.Sync(ctx)
	case 21:
		if r.src.IntN(4) == 0 {
			return r.reopen()
		}
		return r.get()
	}
}

func (r *run) get() error { return r.model.CheckGet(Store{r.e}, r.key()) }

const maxSnaps = 4

func (r *run) openSnapshot() error {
	if len(r.snaps) == maxSnaps {
		s := r.snaps[0]
		r.snaps = r.snaps[1:]
		return s.s.Close()
	}
	s, err := r.e.Snapshot()
	if err != nil {
		return err
	}
	r.snaps = append(r.snaps, snap{s, r.model.Copy()})
	return nil
}

// useSnapshot compares a snapshot with the model of its moment. One that gave way
// is let go.
func (r *run) useSnapshot() error {
	if len(r.snaps) == 0 {
		return nil
	}
	i := r.src.IntN(len(r.snaps))
	s := r.snaps[i]
	err := s.model.CheckGet(Store{s.s}, r.key())
	if err == nil {
		err = s.model.Check(Store{s.s}, r.bounds(), r.src.IntN(2) == 0)
	}
	if errors.Is(err, engine.ErrSnapshotTooOld) {
		r.snaps = append(r.snaps[:i:i], r.snaps[i+1:]...)
		return s.s.Close()
	}
	if err != nil {
		return fmt.Errorf("snapshot %d: %w", s.s.LSN(), err)
	}
	return nil
}

func (r *run) reopen() error {
	for _, s := range r.snaps {
		if err := s.s.Close(); err != nil {
			return err
		}
	}
	r.snaps = nil
	r.closeBatches()
	if err := r.e.Close(); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	return r.whole()
}

func (r *run) whole() error { return r.model.Check(Store{r.e}, oracle.Bounds{}, false) }
