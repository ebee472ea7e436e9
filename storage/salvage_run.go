package storage

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Run is a sorted table outside any store, for what does not fit into memory while
// it waits to be merged. It is not durable.
type Run struct {
	fs   vfs.FS
	path string
	w    *sstable.Writer
	buf  []byte
}

// NewRun begins a run in a new file.
func NewRun(fs vfs.FS, path string) (*Run, error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("storage: run: %w", mapped(err))
	}
	o := sstable.WriterOptions{TableFormat: sstable.TableFormatMax, Compression: sstable.NoCompression}
	return &Run{fs: fs, path: path, w: sstable.NewWriter(objstorageprovider.NewFileWritable(f), o)}, nil
}

// Set appends a key with its cell; keys ascend strictly.
func (r *Run) Set(key, cell []byte) (err error) {
	defer caught(&err)
	r.buf = appendUser(r.buf[:0], key)
	return mapped(r.w.Set(r.buf, cell))
}

// Done ends the writing. Open reads what was written.
func (r *Run) Done() (err error) {
	defer caught(&err)
	return mapped(r.w.Close())
}

// Open walks the run.
func (r *Run) Open() (*RemnantIter, error) {
	info, err := r.fs.Stat(r.path)
	if err != nil {
		return nil, fmt.Errorf("storage: run: %w", err)
	}
	return (&Remains{fs: r.fs}).Open(&Remnant{File: r.path, Size: info.Size()})
}

// Remove deletes the file.
func (r *Run) Remove() error { return r.fs.Remove(r.path) }
