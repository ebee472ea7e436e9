package storage

import (
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gateFile is a file open for writing.
type gateFile struct {
	vfs.File
	g       *gate
	name    string
	isTable bool
}

func (f *gateFile) change(op string, fn func() error) error {
	if f.isTable && f.g.abandon.Load() {
		return fmt.Errorf("%s %s: %w", op, f.name, ErrClosed)
	}
	return f.g.change(op, f.name, fn)
}

func (f *gateFile) Write(p []byte) (n int, err error) {
	err = f.change("write", func() (err error) { n, err = f.File.Write(p); return err })
	if err == nil {
		n = len(p)
	}
	return n, err
}

func (f *gateFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.change("write", func() (err error) { n, err = f.File.WriteAt(p, off); return err })
	if err == nil {
		n = len(p)
	}
	return n, err
}

func (f *gateFile) Preallocate(off, n int64) error {
	// Only a hint: its failure is no failure of the file.
	if err := f.g.refusal(); err != nil {
		return err
	}
	return f.File.Preallocate(off, n)
}

func (f *gateFile) Sync() error     { return f.change("sync", f.File.Sync) }
func (f *gateFile) SyncData() error { return f.change("sync", f.File.SyncData) }

func (f *gateFile) SyncTo(n int64) (full bool, err error) {
	err = f.change("sync", func() (err error) { full, err = f.File.SyncTo(n); return err })
	return full, err
}

// Close always reaches the file; a failure of the device may show only here.
func (f *gateFile) Close() error {
	f.g.mu.Lock()
	delete(f.g.open, f)
	f.g.mu.Unlock()
	err := f.File.Close()
	if err != nil && f.g.critical(f.name) {
		f.g.close(fmt.Errorf("close %s: %w", f.name, err))
		return nil
	}
	return err
}

// sink stands in for a MANIFEST or marker that could not be made: it takes
// everything and keeps nothing.
type sink struct{ vfs.File }

func (sink) Write(p []byte) (int, error)            { return len(p), nil }
func (sink) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (sink) Preallocate(int64, int64) error         { return nil }
func (sink) Sync() error                            { return nil }
func (sink) SyncData() error                        { return nil }
func (sink) SyncTo(int64) (bool, error)             { return true, nil }
func (sink) Close() error                           { return nil }
func (sink) Fd() uintptr                            { return vfs.InvalidFd }
func (sink) Prefetch(int64, int64) error            { return nil }
func (sink) Read([]byte) (int, error)               { return 0, io.EOF }
func (sink) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (sink) Stat() (vfs.FileInfo, error)            { return nil, os.ErrNotExist }

// gateDir is a directory open for syncing. Its Sync never fails, because
// Marker.Move panics on that: a failure closes the gate, and nothing is
// acknowledged behind a closed gate (S3).
type gateDir struct {
	vfs.File
	g    *gate
	name string
}

func (d *gateDir) Sync() error {
	if d.g.refusal() != nil {
		return nil
	}
	err := d.File.Sync()
	switch {
	case err == nil:
	case d.name == d.g.dir:
		d.g.close(fmt.Errorf("sync %s: %w", d.name, err))
	default:
		// A folder that is not L3's own: the parent at open, or a checkpoint.
		// Whoever works there asks takeStray before saying it is done.
		d.g.mu.Lock()
		if d.g.stray == nil {
			d.g.stray = fmt.Errorf("sync %s: %w", d.name, err)
		}
		d.g.mu.Unlock()
	}
	return nil
}

func (d *gateDir) SyncData() error { return d.Sync() }
