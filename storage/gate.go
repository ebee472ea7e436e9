package storage

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gate is the file system Pebble sees. It is open until the first operation on
// a MANIFEST or marker fails; from then on nothing on disk changes (S6).
//
// Why: after such a failure Pebble does not know what is on disk and means to
// end the process. If it is made to go on instead, it must not write: a later
// edit behind a lost one leaves a store that never opens again.
//
// And Pebble must not hear of the failure. It prepares the new version in
// place before it writes the edit, so an error there leaves its level 0
// bookkeeping half changed, and the next compaction that ends, or is looked
// for, indexes past the end of it: a panic on a goroutine of Pebble's, which
// nobody can catch. So operations on a MANIFEST or marker of L3 answer success
// always; Pebble goes on in memory, consistent with itself, and [Ingest.Commit]
// asks the gate before it believes anything. Every other change is refused with
// an error, which Pebble handles.
//
// The gate also mends three habits: Pebble makes its manifest marker durable
// before the MANIFEST's own name is; Marker.Move panics on a failed directory
// sync; and Pebble's lock truncates the file before it holds it (the engine has
// the real lock).
type gate struct {
	inner   vfs.FS
	dir     string // of L3; failures elsewhere (a checkpoint) close nothing
	onClose func()

	cause    atomic.Pointer[gateCause]
	readOnly bool        // opened read-only: closed from the start, not a fault
	abandon  atomic.Bool // closing: tables being compacted may fail fast

	mu    sync.Mutex // guards the fields up to the next blank line
	stray error      // first failed sync of a directory outside dir
	open  map[*gateFile]struct{}
	hold  hold
}

type gateCause struct{ err error }

var _ vfs.FS = (*gate)(nil)

func newGate(inner vfs.FS, dir string, readOnly bool) *gate {
	g := &gate{inner: inner, dir: dir, readOnly: readOnly, onClose: func() {}, open: map[*gateFile]struct{}{}}
	if readOnly {
		g.cause.Store(&gateCause{ErrReadOnly})
	}
	return g
}

// close closes the gate; the first cause stays.
func (g *gate) close(cause error) {
	if g.cause.CompareAndSwap(nil, &gateCause{cause}) {
		g.onClose()
	}
}

// refusal is nil while the gate is open.
func (g *gate) refusal() error {
	c := g.cause.Load()
	switch {
	case c == nil:
		return nil
	case g.readOnly:
		return ErrReadOnly
	}
	return fmt.Errorf("%w: %w", ErrDegraded, mapped(c.err))
}

// fault is refusal, but nil for a store that is read-only by wish.
func (g *gate) fault() error {
	if g.readOnly {
		return nil
	}
	return g.refusal()
}

// critical tells the files whose failed change closes the gate.
func (g *gate) critical(name string) bool {
	base := g.inner.PathBase(name)
	return (strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker.")) &&
		g.inner.PathDir(name) == g.dir && !g.readOnly
}

func (g *gate) table(name string) bool {
	return strings.HasSuffix(name, ".sst") && g.inner.PathDir(name) == g.dir
}

// change runs one mutating operation through the gate. For a critical file it
// answers nil whatever happened.
func (g *gate) change(op, name string, fn func() error) error {
	err := g.refusal()
	if err == nil {
		if err = fn(); err == nil || op == "remove" && os.IsNotExist(err) {
			return err
		}
		if g.critical(name) {
			g.close(fmt.Errorf("%s %s: %w", op, name, err))
		}
	}
	if g.critical(name) {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, name, err)
}

func (g *gate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if g.table(name) && g.abandon.Load() {
		return nil, fmt.Errorf("create %s: %w", name, ErrClosed)
	}
	var f vfs.File
	err := g.change("create", name, func() (err error) {
		if strings.HasPrefix(g.inner.PathBase(name), "marker.manifest") {
			// The marker names a MANIFEST; that name must be durable first. The
			// other order left 70 of 5,879 crash images that could not be opened.
			if err := g.syncDirOf(name); err != nil {
				return err
			}
		}
		f, err = g.inner.Create(name, c)
		return err
	})
	return g.wrap(f, name, err), err
}

func (g *gate) syncDirOf(name string) error {
	d, err := g.inner.OpenDir(g.inner.PathDir(name))
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

func (g *gate) wrap(f vfs.File, name string, err error) vfs.File {
	if err != nil {
		return nil
	}
	if f == nil {
		f = sink{} // a critical file that could not be made
	}
	w := &gateFile{File: f, g: g, name: name, isTable: g.table(name)}
	g.mu.Lock()
	g.open[w] = struct{}{}
	g.mu.Unlock()
	return w
}

// closeLeft closes what Pebble has left open: its files that sync on their way do not
// reach Close when that sync fails, and would keep a descriptor, and with it the
// mount of a dying disk, until the collector finds them.
func (g *gate) closeLeft() {
	g.mu.Lock()
	left := g.open
	g.open = map[*gateFile]struct{}{}
	g.mu.Unlock()
	for f := range left {
		_ = f.File.Close() // its failure has been reported
	}
}

func (g *gate) Link(oldname, newname string) error {
	return g.change("link", newname, func() error { return g.inner.Link(oldname, newname) })
}

func (g *gate) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return g.inner.Open(name, opts...)
}

func (g *gate) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	var f vfs.File
	err := g.change("open for writing", name, func() (err error) {
		f, err = g.inner.OpenReadWrite(name, c, opts...)
		return err
	})
	return g.wrap(f, name, err), err
}

func (g *gate) OpenDir(name string) (vfs.File, error) {
	f, err := g.inner.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &gateDir{File: f, g: g, name: name}, nil
}

func (g *gate) Remove(name string) error {
	if g.holds(name) {
		return nil
	}
	return g.change("remove", name, func() error {
		if strings.HasPrefix(g.inner.PathBase(name), "marker.") {
			// Pebble moves a marker by making the new one and removing the old one,
			// and syncs the folder once, afterwards. A file system that does not
			// keep the order of names may lose both: the new name goes first.
			if err := g.syncDirOf(name); err != nil {
				return err
			}
		}
		return g.inner.Remove(name)
	})
}

func (g *gate) RemoveAll(name string) error {
	return g.change("remove all", name, func() error { return g.inner.RemoveAll(name) })
}

func (g *gate) Rename(oldname, newname string) error {
	return g.change("rename", newname, func() error { return g.inner.Rename(oldname, newname) })
}

func (g *gate) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	var f vfs.File
	err := g.change("reuse", newname, func() (err error) {
		f, err = g.inner.ReuseForWrite(oldname, newname, c)
		return err
	})
	return g.wrap(f, newname, err), err
}

func (g *gate) MkdirAll(dir string, perm os.FileMode) error {
	return g.change("mkdir", dir, func() error { return g.inner.MkdirAll(dir, perm) })
}

// Lock locks nothing: the engine holds the store's lock before it comes here.
func (g *gate) Lock(string) (io.Closer, error) { return noLock{}, nil }

type noLock struct{}

func (noLock) Close() error { return nil }

func (g *gate) List(dir string) ([]string, error)            { return g.inner.List(dir) }
func (g *gate) Stat(name string) (vfs.FileInfo, error)       { return g.inner.Stat(name) }
func (g *gate) PathBase(path string) string                  { return g.inner.PathBase(path) }
func (g *gate) PathJoin(elem ...string) string               { return g.inner.PathJoin(elem...) }
func (g *gate) PathDir(path string) string                   { return g.inner.PathDir(path) }
func (g *gate) GetDiskUsage(p string) (vfs.DiskUsage, error) { return g.inner.GetDiskUsage(p) }
func (g *gate) Unwrap() vfs.FS                               { return g.inner }

// takeStray returns and forgets the first failed directory sync outside dir.
func (g *gate) takeStray() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.stray
	g.stray = nil
	return err
}
