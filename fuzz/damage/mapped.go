package damage

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// Lengths to which [Fixture.Mapped] cuts a pack: nothing, a part of the header, and
// around the borders of pages and of the first blob.
var Lengths = []int64{0, 1, 64, page - 1, page, page + 1, page + blobHeader, page + blobHeader + 1, 2*page - 1, 2 * page, 2*page + 1}

// Mapped opens the store in the empty folder at root, on the operating system's file
// system, and cuts a pack to n bytes: before it was read, while it is mapped, or under
// a reader that looks at the mapping. The keys in it are right or an error of a known
// type, all others are right, the engine goes on, and the process lives.
func (f *Fixture) Mapped(root, pack string, n int64, when When) (Outcome, error) {
	at := filepath.Join(root, "store")
	if err := f.Image.Write(vfs.Default, at); err != nil {
		return 0, err
	}
	o := f.Options
	e, err := engine.Open(at, &o)
	if err != nil {
		return 0, err
	}
	c := Case{Class: "pack", File: pack, What: fmt.Sprintf("%s: cut to %d bytes %s", pack, n, when)}
	c.Make = func() Image { return f.Image }
	out, err := f.try(c, func(t *trial) (Outcome, error) { return t.mapped(e, filepath.Join(at, pack), n, when) })
	return out, errors.Join(err, e.Close())
}

// When says when a pack is cut.
type When uint8

const (
	Unread  When = iota // nothing of it was read
	Mapping             // it was read, and is mapped
	Looking             // a reader is looking at the mapping
)

func (w When) String() string {
	return [...]string{"before it was read", "when it was mapped", "under a reader"}[w]
}

func (t *trial) mapped(e *engine.Engine, path string, n int64, when When) (o Outcome, err error) {
	look := func(v []byte) error {
		crc32.ChecksumIEEE(v) // touches every byte
		return nil
	}
	key := []byte(t.inPack[t.c.File][0])
	cut := func() error { return os.Truncate(path, n) }
	switch when {
	case Unread:
		err = cut()
	case Mapping:
		err = errors.Join(e.View(key, look), cut())
	case Looking:
		var under error
		err = e.View(key, func(v []byte) error {
			if under = cut(); under != nil {
				return under
			}
			return look(v)
		})
		if err != nil {
			o = Reported
		}
		err = errors.Join(under, t.typed(err))
	}
	if err != nil {
		return o, err
	}
	reported, err := t.perKey(e)
	if err != nil {
		return o, err
	}
	if reported {
		o = Reported
	}
	if err := e.Put([]byte(afterKey), []byte(afterValue)); err != nil {
		return o, fmt.Errorf("one key more: %w", err)
	}
	m := oracle.NewModel()
	m.Put(afterKey, afterValue)
	return o, m.CheckGet(fuzz.Store{R: e}, afterKey)
}
