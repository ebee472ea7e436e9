package storage

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/record"
)

// readManifest follows the edits as far as they verify, and marks in tables which
// ones the last of them names. Only the file system's refusal is an error.
func (r *Remains) readManifest(tables map[uint64]*Remnant) error {
	f, err := r.fs.Open(r.Manifest.File)
	if err != nil {
		return fmt.Errorf("storage: open manifest: %w", err)
	}
	defer f.Close()
	v := newVersion()
	rr := record.NewReader(f, 0)
	for {
		next, err := rr.Next()
		if err == nil {
			err = v.apply(next)
		} else if err == io.EOF {
			break
		}
		if refused(err) {
			return fmt.Errorf("storage: read manifest: %w", err)
		}
		if err != nil {
			r.Manifest.Err = &CorruptError{File: r.Manifest.File, What: "manifest", Err: err}
			break
		}
		r.Manifest.Edits++
	}
	for no, named := range v.live {
		t := tables[no]
		if t == nil {
			t = &Remnant{Number: no, Size: -1, File: r.fs.PathJoin(r.dir, fmt.Sprintf("%06d.sst", no))}
			tables[no] = t
		}
		named.File, named.Number, named.Size, named.Named = t.File, no, t.Size, true
		*t = named
	}
	return nil
}
