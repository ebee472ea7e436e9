package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/yield"
)

const storeDir = "/store"

// settings of one seed: the least budget there is, and what changes no result
// changes with the seed.
func settings(rnd *rand.Rand, seed uint64) engine.Options {
	return engine.Options{
		MemoryBudget: 16 << 20,
		DiskReserve:  -1,
		Sync:         engine.SyncPolicy(seed % 3),
		SyncEvery:    time.Duration(1+rnd.IntN(5)) * time.Millisecond,
		LargeValue:   largeBytes,
		SegmentBytes: []int64{0, 16 << 10, 64 << 10}[rnd.IntN(3)],
		Compression:  engine.Compression(rnd.IntN(4)),
	}
}

// largeBytes is the least that goes to a pack.
const largeBytes = 4 << 10

// disk is what a store of one case stands on.
type disk struct {
	dir    string
	fs     vfs.FS
	sim    *simfs.FS // nil: another
	remove func()
}

// newDisk is a file system in memory, or a simulated one that is calm or slow by
// chance; rarely, if real is set, a directory of the operating system's, where large
// values are mapped.
func newDisk(rnd *rand.Rand, seed uint64, real bool) (disk, error) {
	d := disk{dir: storeDir, remove: func() {}}
	switch n := rnd.IntN(10); {
	case n == 0 && real && seed%3 != uint64(engine.SyncAlways): // a sync may take long there
		dir, err := os.MkdirTemp("", "holdfast-live-")
		d.dir, d.fs, d.remove = dir, vfs.Default, func() { _ = os.RemoveAll(dir) }
		return d, err
	case n < 5:
		d.fs = vfs.NewMem()
	default:
		d.sim = simfs.New(&simfs.Options{Seed: seed})
		d.fs = d.sim
		if n >= 7 {
			d.sim.Inject(simfs.Rule{
				Name: "slow", Ops: simfs.OpSyncs | simfs.OpSyncTo, Every: 1, Probability: 0.3,
				Delay: time.Duration(20+rnd.IntN(400)) * time.Microsecond,
			})
			d.sim.Inject(simfs.Rule{
				Name: "slow", Ops: simfs.OpWrites | simfs.OpNames | simfs.OpReadAt, Every: 1, Probability: 0.02,
				Delay: time.Duration(20+rnd.IntN(200)) * time.Microsecond,
			})
		}
	}
	return d, nil
}

func (d *disk) open(o engine.Options) (*engine.Engine, error) {
	o.FS = d.fs
	e, err := engine.Open(d.dir, &o)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return e, nil
}

// churn moves what was written down to L3 again and again. excuse forgives what the
// case expects to go wrong.
func churn(h *hands, e *engine.Engine, rnd *rand.Rand, excuse func(error) error) error {
	for h.going() {
		var err error
		switch n := rnd.IntN(16); n {
		case 0:
			err = e.Compact(h.ctx)
		case 1:
			err = e.Sync(h.ctx)
		case 2:
			e.Metrics()
		default:
			if err = e.Flush(h.ctx); err == nil {
				h.count("flushes", 1)
			}
		}
		if err != nil && h.going() && excuse(err) != nil {
			return fmt.Errorf("churn: %w", err)
		}
		if rnd.IntN(3) == 0 {
			yield.Sleep(time.Duration(rnd.IntN(1500)) * time.Microsecond)
		}
	}
	return nil
}

// crowd writes and reads keys that nobody checks, so that generations fill up by
// their size and entries are pushed out of the caches.
func crowd(h *hands, e *engine.Engine, rnd *rand.Rand, excuse func(error) error) error {
	junk := make([]byte, largeBytes-100)
	for h.going() {
		key := fmt.Appendf(nil, "~%04d", rnd.IntN(400))
		var err error
		if rnd.IntN(4) != 0 {
			err = e.Put(key, junk[:rnd.IntN(len(junk))])
		} else if _, err = e.Get(key); errors.Is(err, engine.ErrNotFound) {
			err = nil
		}
		if err != nil && h.going() && excuse(err) != nil {
			return fmt.Errorf("crowd: %w", err)
		}
	}
	return nil
}

func excuseNone(err error) error { return err }

// excuseClosed forgives what hands see of a store that was closed under them.
func excuseClosed(err error) error {
	if errors.Is(err, engine.ErrClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
