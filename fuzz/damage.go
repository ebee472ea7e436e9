package fuzz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// Fixture is a small store on a file system in memory, with what it holds. Every
// class of file is in it: STATE, segments, tables, manifest, options, packs.
type Fixture struct {
	fs    *vfs.MemFS
	opts  engine.Options
	Model oracle.Model
	Files []string // sorted, with their folders
}

// NewFixture makes a store with cells in L3, in the log, and in packs.
func NewFixture(o engine.Options) (*Fixture, error) {
	f := &Fixture{fs: vfs.NewCrashableMem(), opts: o, Model: oracle.NewModel()}
	f.opts.FS = f.fs
	e, err := engine.Open(crashDir, &f.opts)
	if err != nil {
		return nil, err
	}
	put := func(k, v string) error {
		f.Model.Put(k, v)
		return e.Put([]byte(k), []byte(v))
	}
	for i := range 60 {
		v := strings.Repeat(fmt.Sprintf("state %d.", i), 1+i%7)
		if i%15 == 3 {
			v = strings.Repeat(v, 1+o.LargeValue/len(v))
		}
		if err := put(fmt.Sprintf("k%02d", i), v); err != nil {
			return nil, err
		}
		if i == 20 || i == 40 {
			if err := e.Flush(context.Background()); err != nil {
				return nil, err
			}
		}
	}
	f.Model.DeleteRange(oracle.Bounds{Lower: "k10", Upper: "k13"})
	if err := e.DeleteRange([]byte("k10"), []byte("k13")); err != nil {
		return nil, err
	}
	if err := e.Close(); err != nil {
		return nil, err
	}
	return f, f.list(crashDir)
}

func (f *Fixture) list(dir string) error {
	names, err := f.fs.List(dir)
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, n := range names {
		path := f.fs.PathJoin(dir, n)
		info, err := f.fs.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			if err := f.list(path); err != nil {
				return err
			}
		} else if info.Size() > 0 {
			f.Files = append(f.Files, path)
		}
	}
	return nil
}

// Size of a file of the fixture, in bytes.
func (f *Fixture) Size(file string) (int64, error) {
	info, err := f.fs.Stat(file)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Verdict of one damaged copy.
type Verdict uint8

const (
	Harmless Verdict = iota // every answer is right
	Reported                // some answers are errors, none is wrong
	Refused                 // the store does not open, with a typed error
)

// Damaged applies change to a copy of the fixture and reads everything. It returns an
// error if any answer is wrong, missing without an error, or of no known type (O6).
func (f *Fixture) Damaged(change func(fs vfs.FS) error) (Verdict, error) {
	fs := f.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	if err := change(fs); err != nil {
		return 0, err
	}
	o := f.opts
	o.FS = fs
	e, err := engine.Open(crashDir, &o)
	if err != nil {
		return Refused, typed(err)
	}
	verdict, err := f.readAll(e)
	if cerr := e.Close(); err == nil && cerr != nil {
		err = typed(cerr)
	}
	return verdict, err
}

func (f *Fixture) readAll(e *engine.Engine) (Verdict, error) {
	d := oracle.Damage{Known: known}
	if err := d.Read(Store{e}, f.Model); err != nil {
		return Harmless, err
	}
	for i := 10; i < 13; i++ {
		if err := d.Absent(Store{e}, fmt.Sprintf("k%02d", i)); err != nil {
			return Harmless, err
		}
	}
	if d.Reported > 0 {
		return Reported, nil
	}
	return Harmless, nil
}

// known are the errors that a damaged store may give.
var known = []error{engine.ErrCorrupt, engine.ErrForeign, engine.ErrVersion}

func typed(err error) error { return (&oracle.Damage{Known: known}).Typed("", err) }
