package storage

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Remains is what is left of an L3 that Pebble may refuse: the tables in its
// folder, each read by itself, and what its MANIFEST still says of them. It
// writes nothing and needs no store. It is for one goroutine.
type Remains struct {
	Tables   []Remnant // of the folder and of the manifest, by number
	Manifest Manifest

	fs  vfs.FS
	dir string
}

// Manifest is how far the newest MANIFEST could be read.
type Manifest struct {
	File  string // its path; empty if there is none
	Edits int    // that verified
	Err   error  // why the reading stopped before its end; nil: it did not
}

// Remnant is one table.
type Remnant struct {
	File   string
	Number uint64 // in its name; tables of later ingests have higher ones
	Size   int64  // on disk; -1 if it is not there

	// What the manifest says of it. Without Named it says nothing, or that the
	// table was replaced.

	Named        bool
	NamedSize    int64
	Level        int
	Lower, Upper []byte // user keys, both inclusive; nil Upper: beyond all user keys
	First, Last  uint64 // Pebble's sequence numbers; equal if it was ingested and never rewritten
}

// ErrNoRemains reports a folder with neither a table nor a manifest.
var ErrNoRemains = errors.New("storage: nothing is left of L3")

// OpenRemains lists the folder and reads the manifest with the highest number. A
// missing folder, and one with neither tables nor a manifest, is ErrNoRemains.
// Only Options.FS and Options.Dir are used.
func OpenRemains(o Options) (*Remains, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Remains{fs: o.FS, dir: o.Dir}
	names, err := o.FS.List(o.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoRemains, err)
	}
	if err != nil {
		return nil, fmt.Errorf("storage: list %s: %w", o.Dir, err)
	}
	tables := make(map[uint64]*Remnant)
	var newest uint64
	for _, name := range names {
		if digits, ok := strings.CutPrefix(name, "MANIFEST-"); ok {
			if no, err := strconv.ParseUint(digits, 10, 64); err == nil && no >= newest {
				newest, r.Manifest.File = no, o.FS.PathJoin(o.Dir, name)
			}
			continue
		}
		digits, ok := strings.CutSuffix(name, ".sst")
		no, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil {
			continue
		}
		t := &Remnant{File: o.FS.PathJoin(o.Dir, name), Number: no}
		info, err := o.FS.Stat(t.File)
		if err != nil {
			return nil, fmt.Errorf("storage: stat %s: %w", t.File, err)
		}
		t.Size = info.Size()
		tables[no] = t
	}
	if r.Manifest.File != "" {
		if err := r.readManifest(tables); err != nil {
			return nil, err
		}
	}
	if len(tables) == 0 && r.Manifest.File == "" {
		return nil, fmt.Errorf("%w: %s", ErrNoRemains, o.Dir)
	}
	for _, t := range tables {
		r.Tables = append(r.Tables, *t)
	}
	slices.SortFunc(r.Tables, func(a, b Remnant) int {
		if a.Number < b.Number {
			return -1
		}
		return 1
	})
	return r, nil
}

// LostBlock is a part of a table that could not be read. Its keys lie above Lower
// and at or below Upper.
type LostBlock struct {
	File   string
	Offset int64
	Bytes  int64 // zero: not known
	What   string
	Err    error

	Lower, Upper []byte // user keys; nil Upper: no bound is known
	Own          bool   // holds only storage's own keys
	Ranges       bool   // held range tombstones, and perhaps nothing else
}

// userKey strips the prefix of an inner key. Keys below the user's become the lowest,
// keys above become nil.
func userKey(inner []byte) []byte {
	switch {
	case len(inner) == 0 || inner[0] < userPrefix:
		return []byte{}
	case inner[0] > userPrefix:
		return nil
	}
	return inner[1:]
}
