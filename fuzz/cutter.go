package fuzz

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Cutter ends a life at the nth call that changes something: by a power cut, which
// leaves a clone of the file system without some of what was not synced, or by a
// kill, which leaves the file system as it is, page cache and all.
type Cutter struct {
	calls atomic.Int64
	at    int64
	kill  bool
	over  atomic.Bool // the end has come
	dead  atomic.Bool // by a kill: nothing changes any more
	once  sync.Once
	note  func() // before the end: what was promised
	left  *simfs.FS
	rnd   *rand.Rand
}

// NewCutter returns a cutter and the file system to run on. rnd chooses the call,
// among the first within, and how the end comes. note is called once, before it.
func NewCutter(fs *simfs.FS, rnd *rand.Rand, within int, note func()) (*Cutter, vfs.FS) {
	c := &Cutter{at: 1 + int64(rnd.IntN(within)), kill: rnd.IntN(3) == 0, note: note, left: fs, rnd: rnd}
	return c, errorfs.Wrap(fs, c)
}

func (c *Cutter) String() string { return "cutter" }

// MaybeError implements errorfs.Injector.
func (c *Cutter) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	if c.calls.Add(1) == c.at {
		c.End()
	}
	if c.dead.Load() && op.Kind != errorfs.OpFileClose {
		return errKilled
	}
	return nil
}

var errKilled = errors.New("fuzz: the process was killed")

// End is the end; later calls do nothing.
func (c *Cutter) End() {
	c.once.Do(func() {
		c.note()
		// Order: over, then the image. Whoever sees that it is not over yet has what it
		// saw before that in the image.
		c.over.Store(true)
		if c.kill {
			c.dead.Store(true)
		} else {
			c.left = clone(c.left, c.rnd)
		}
	})
}

// Kills says that the end is a kill and no power cut.
func (c *Cutter) Kills() bool { return c.kill }

// Over says that the end has come.
func (c *Cutter) Over() bool { return c.over.Load() }

// Left is the file system that the end left.
func (c *Cutter) Left() *simfs.FS { return c.left }

// Excuse forgives what a killed process says.
func (c *Cutter) Excuse(err error) error {
	if c.dead.Load() {
		return nil
	}
	return err
}

// clone is the disk after a power cut: half of the time a random one, else a corner
// of what is legal.
func clone(fs *simfs.FS, rnd *rand.Rand) *simfs.FS {
	image := simfs.Random
	if rnd.IntN(2) == 0 {
		image = simfs.Corners()[rnd.IntN(len(simfs.Corners()))]
	}
	return fs.Crash(simfs.CrashConfig{Seed: rnd.Uint64(), Image: image})
}
