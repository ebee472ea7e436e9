package storage

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

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

// checkManifest refuses a manifest whose end is gone, where nothing else would tell.
// Pebble takes the first record that does not verify for the end. An open writes the
// tables in one record and how far sequence numbers went in the next. Without that one
// Pebble has every table, and shows only keys whose number a compaction has made zero: the
// watermark perhaps, and not the cells that it vouches for.
func (s *Store) checkManifest(path string) error {
	f, err := s.fs.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // it wrote nothing
	v := newVersion()
	for r := record.NewReader(f, 0); err == nil; {
		var edit io.Reader
		if edit, err = r.Next(); err == nil {
			err = v.apply(edit)
		}
	}
	if err != io.EOF && !record.IsInvalidRecord(err) {
		return nil // a kind of edit that we do not know, or a disk of which Pebble will hear
	}
	for _, no := range slices.Sorted(maps.Keys(v.live)) { // the same words each time
		if t := v.live[no]; t.Last > v.last {
			return &CorruptError{File: path, What: fmt.Sprintf("manifest: table %d goes to %d, and its last edit to %d", no, t.Last, v.last)}
		}
	}
	return nil
}

// version is what the edits of a manifest add up to.
type version struct {
	live map[uint64]Remnant
	last uint64 // sequence number; what is newer is shown to nobody
}

func newVersion() *version { return &version{live: make(map[uint64]Remnant)} }

// apply decodes one edit whole before it changes v.
func (v *version) apply(from io.Reader) (err error) {
	d := &editDecoder{r: bufio.NewReader(from)}
	last := v.last
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
		case editLogNumber, editNextFile:
			d.number()
		case editLastSeq:
			last = d.number()
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
		delete(v.live, no)
	}
	for no, t := range added {
		v.live[no] = t
	}
	v.last = last
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
