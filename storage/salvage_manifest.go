package storage

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/record"
)

// The tags of a version edit that a store of ours may hold. Pebble decodes them in a
// package that nobody else may import, and its own Open wants every table to be there.
const (
	editComparer   = 1
	editLogNumber  = 2
	editNextFile   = 3
	editLastSeq    = 4
	editDeleted    = 6
	editNewFile4   = 103
	editNewFile2   = 100
	fieldEnd       = 1
	fieldUnsafe    = 64 // a field with this bit may not be skipped
	maxLevels      = 7
	internalSuffix = 8 // of a key in a manifest: its sequence number and kind
)

var errEdit = errors.New("storage: an edit of the manifest does not decode")

// readManifest follows the edits as far as they verify, and marks in tables which
// ones the last of them names. Only the file system's refusal is an error.
func (r *Remains) readManifest(tables map[uint64]*Remnant) error {
	f, err := r.fs.Open(r.Manifest.File)
	if err != nil {
		return fmt.Errorf("storage: open manifest: %w", err)
	}
	defer f.Close()
	live := make(map[uint64]Remnant)
	rr := record.NewReader(f, 0)
	for {
		next, err := rr.Next()
		if err == nil {
			err = applyEdit(next, live)
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
	for no, named := range live {
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

// applyEdit decodes one edit whole before it changes live.
func applyEdit(from io.Reader, live map[uint64]Remnant) (err error) {
	d := &editDecoder{r: bufio.NewReader(from)}
	var deleted []uint64
	added := make(map[uint64]Remnant)
	for {
		tag, err := binary.ReadUvarint(d.r)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch tag {
		case editComparer:
			d.bytes()
		case editLogNumber, editNextFile, editLastSeq:
			d.number()
		case editDeleted:
			d.number() // its level
			deleted = append(deleted, d.number())
		case editNewFile2, editNewFile4:
			no, t := d.table(tag == editNewFile4)
			added[no] = t
		default:
			return fmt.Errorf("%w: tag %d", errEdit, tag)
		}
		if d.err != nil {
			return d.err
		}
	}
	// Order: a table that moves to another level is deleted and added in one edit.
	for _, no := range deleted {
		delete(live, no)
	}
	for no, t := range added {
		live[no] = t
	}
	return nil
}

type editDecoder struct {
	r   *bufio.Reader
	err error
}

func (d *editDecoder) number() uint64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(d.r)
	d.err = err
	return n
}

func (d *editDecoder) bytes() []byte {
	n := d.number()
	if d.err != nil {
		return nil
	}
	var b bytes.Buffer // grows with what is there, not with what n claims
	if m, err := io.CopyN(&b, d.r, int64(min(n, 1<<30))); err != nil || uint64(m) != n {
		d.err = errors.Join(errEdit, err)
	}
	return b.Bytes()
}

// key reads an internal key and strips its suffix and prefix.
func (d *editDecoder) key() []byte {
	b := d.bytes()
	if len(b) < internalSuffix {
		d.err = errors.Join(d.err, errEdit)
		return nil
	}
	return userKey(b[:len(b)-internalSuffix])
}

func (d *editDecoder) table(fields bool) (no uint64, t Remnant) {
	level := d.number()
	no = d.number()
	t.NamedSize = int64(d.number())
	t.Lower, t.Upper = d.key(), d.key()
	t.First, t.Last = d.number(), d.number()
	if d.err == nil && level >= maxLevels {
		d.err = fmt.Errorf("%w: level %d", errEdit, level)
	}
	t.Level = int(level)
	for fields && d.err == nil {
		field := d.number()
		if field == fieldEnd {
			break
		}
		if field&fieldUnsafe != 0 {
			d.err = fmt.Errorf("%w: field %d", errEdit, field)
			break
		}
		d.bytes()
	}
	return no, t
}
