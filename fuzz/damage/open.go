package damage

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Opened is the fixture with the files of a store that has just opened it: what there
// is to damage under it. Its bytes are those of one open, and differ in the next where
// they are drawn by lot.
func (f *Fixture) Opened() (*Fixture, error) {
	fs := simfs.New(nil)
	if err := f.Image.Write(fs, dir); err != nil {
		return nil, err
	}
	e, err := f.reopen(fs, nil)
	if err != nil {
		return nil, err
	}
	l := &life{Fixture: f}
	l.fs = fs
	im, err := l.settled(spare)
	opened := *f
	opened.Image, opened.Loose = im, false
	return &opened, errors.Join(err, e.Close())
}

// KindsOpen are the kinds of damage that can happen under an open store.
func KindsOpen() []Kind {
	return []Kind{
		{"bit flip", 1, flips},
		{"zeroed sector", 8, wiped("sector", sector, zeros)},
		{"garbage page", 8, wiped("page of garbage", page, garbage)},
		{"truncated", 1, truncated},
		{"misdirected", 8, misdirected},
		{"missing", 64, missing},
	}
}

// WhileOpen opens the store, damages a file before anything of it was read, and reads:
// keys that the file has are right or an error of a known type, all others are right.
// The engine goes on answering, and what it says after a close and an open is right or
// refused.
func (f *Fixture) WhileOpen(c Case) (Outcome, error) {
	return f.try(c, func(t *trial) (Outcome, error) { return t.whileOpen() })
}

func (t *trial) whileOpen() (o Outcome, err error) {
	fs := simfs.New(nil)
	if err := t.Image.Write(fs, dir); err != nil {
		return 0, err
	}
	e, err := t.reopen(fs, nil)
	if err != nil {
		return 0, err
	}
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, e.Close())
		}
	}()
	if err := t.hurt(fs); err != nil {
		return 0, err
	}
	reported, err := t.perKey(e)
	if err != nil {
		return 0, err
	}
	if reported {
		o = Reported
	}
	wrote := e.Put([]byte(afterKey), []byte(afterValue))
	if err := t.answers(wrote); err != nil {
		return o, fmt.Errorf("one key more: %w", err)
	}
	if wrote == nil {
		if v, err := e.Get([]byte(afterKey)); err != nil || string(v) != afterValue {
			return o, fmt.Errorf("one key more: got %q, %w", v, err)
		}
	}
	closed = true
	if err := t.answers(e.Close()); err != nil {
		return o, fmt.Errorf("close: %w", err)
	}
	return o, t.openedAgain(fs, wrote == nil)
}

// answers is typed for calls that write: a log that cannot be written is read-only.
func (t *trial) answers(err error) error {
	if errors.Is(err, engine.ErrReadOnly) || errors.Is(err, engine.ErrInDoubt) {
		return nil
	}
	return t.typed(err)
}

// hurt does the case's damage to the file as it is now, under every open handle.
func (t *trial) hurt(fs *simfs.FS) error {
	path := fs.PathJoin(dir, t.c.File)
	if t.c.Change == nil {
		return fs.RemoveAll(path)
	}
	b, err := contents(fs, path)
	for end := time.Now().Add(time.Second); errors.Is(err, os.ErrNotExist) && time.Now().Before(end); b, err = contents(fs, path) {
		time.Sleep(100 * time.Microsecond) // the background is still making it
	}
	if err != nil {
		return err
	}
	return fs.Put(path, t.c.Change(b))
}

// perKey reads everything. Only keys that may lie in the damaged file may be unreadable.
func (t *trial) perKey(e *engine.Engine) (reported bool, err error) {
	s := fuzz.Store{R: e}
	d := oracle.Damage{Known: t.known}
	t.Model.Scan(func(k, _ string) bool {
		if err = t.Model.CheckGet(s, k); err != nil && t.mayHold(t.c.File, k) && errors.Is(err, oracle.ErrUnreadable) {
			err = d.Typed(k, err)
		}
		return err == nil
	})
	if err != nil {
		return false, err
	}
	for _, k := range t.Gone {
		if err := d.Absent(s, k); err != nil {
			return false, err
		}
	}
	if err := t.Model.Check(s, oracle.Bounds{}, false); err != nil {
		if !errors.Is(err, oracle.ErrUnreadable) {
			return false, err
		}
		if err := d.Typed("", err); err != nil {
			return false, err
		}
	}
	return d.Reported > 0, nil
}

// mayHold says that a key's value may be read from a file of an open store.
func (t *trial) mayHold(file, key string) bool {
	switch {
	case Class(file) == "table" || file == "l3/":
		return !t.inMap[key]
	case Class(file) == "pack":
		return slices.Contains(t.inPack[file], key)
	case file == "packs/":
		v, _ := t.Model.Get(key)
		return len(v) >= t.Options.LargeValue
	}
	return false
}

func (t *trial) openedAgain(fs *simfs.FS, wrote bool) error {
	m := t.Model.Copy()
	if wrote {
		m.Put(afterKey, afterValue)
	}
	e, err := t.reopen(fs, nil)
	if err != nil {
		return t.typed(err)
	}
	_, err = t.whole(e, m)
	if err := errors.Join(err, t.typed(e.Close())); err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	return nil
}
