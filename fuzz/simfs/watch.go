package simfs

import "sync/atomic"

// Watcher sees every disk that is made while it is set, and its mutating calls. Any
// of its functions may be nil.
type Watcher struct {
	// Made is told of a new disk, the images of a cut included.
	Made func(*FS)
	// Before runs before a call takes effect, in the caller's goroutine and without a
	// lock.
	Before func(op Op, path string)
	// After is told of a call and the bytes it wrote, in the order of their effects.
	// It runs under the lock and must neither use the FS nor keep the bytes. Off of
	// a Write is where it went.
	After func(e Event, data []byte)
}

var watcher atomic.Pointer[Watcher]

// Watch makes w the watcher of all disks that are made from now on; nil ends that for
// disks yet to be made.
func Watch(w *Watcher) { watcher.Store(w) }

func (w *Watcher) made(fs *FS) {
	if w != nil && w.Made != nil {
		w.Made(fs)
	}
}

func (w *Watcher) before(op Op, path string) {
	if w != nil && w.Before != nil && op&OpMutations != 0 {
		w.Before(op, path)
	}
}

func (w *Watcher) after(c *call) {
	if w == nil || w.After == nil || c.op&OpMutations == 0 {
		return
	}
	e := *c.event
	if c.op == OpWrite {
		e.Off = c.off
	}
	w.After(e, c.data)
}
