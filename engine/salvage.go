package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// SalvageReport says what a salvage rescued, and as exactly as it can be known what
// it could not.
type SalvageReport struct {
	LSN        uint64 // highest commit number that was met; the new store goes on above it
	Keys       int64  // rescued
	Bytes      int64  // of their values
	Large      int64  // how many of them came from packs
	Tombstones int64  // keys that stay deleted because a tombstone for them was read

	// Exact says that a manifest that fits the rest of the store named the tables,
	// so that the order of deletes is known. Without it tables are ordered by the
	// revisions in them: a key that was deleted long ago may come back unnoticed if
	// an old table with it is still there and its tombstone is not.
	Exact bool

	// Lost lists what could not be read, at most MaxListed of LostCount. What a
	// damaged block of a table or a frame of the log held cannot be known exactly.
	Lost      []SalvageLoss
	LostCount int64

	// Doubtful lists keys that were rescued although something newer about them, a
	// delete or a value, may be among what was lost of a table; at most MaxListed of
	// DoubtfulCount. Commits that the log lost may have touched any key: each with a
	// revision below theirs may be out of date, and is not listed one by one.
	Doubtful      []DoubtfulKey
	DoubtfulCount int64

	Took time.Duration
}

// MaxListed bounds each list of a SalvageReport (I10).
const MaxListed = 1000

var maxListed = MaxListed // tests look at all

// SalvageLoss is one thing that could not be read.
type SalvageLoss struct {
	File   string // its path; empty if no one file is to blame
	Offset int64  // -1 if unknown
	Bytes  int64  // 0 if unknown
	What   string

	Key []byte // whose value is lost; nil if it is not one key

	// Ranged says that what is lost held keys from Lower to Upper, both perhaps
	// included. A nil Upper is the end of all keys.
	Ranged       bool
	Lower, Upper []byte

	// FirstLSN to LastLSN are the commits that are lost from the log; zero if it is
	// not of the log, or not known.
	FirstLSN, LastLSN uint64

	Err error // the room's own error; nil if What says it all
}

func (l SalvageLoss) String() string {
	var s strings.Builder
	if l.File != "" {
		fmt.Fprintf(&s, "%s: ", l.File)
	}
	if l.Offset >= 0 {
		fmt.Fprintf(&s, "offset %d: ", l.Offset)
	}
	s.WriteString(l.What)
	switch {
	case l.Key != nil:
		fmt.Fprintf(&s, "; the value of key %.80q is lost", l.Key)
	case l.Ranged && l.Upper == nil && len(l.Lower) == 0:
		s.WriteString("; it may have held any key")
	case l.Ranged && l.Upper == nil:
		fmt.Fprintf(&s, "; it held keys from %.80q up", l.Lower)
	case l.Ranged:
		fmt.Fprintf(&s, "; it held keys from %.80q to %.80q", l.Lower, l.Upper)
	case l.FirstLSN != 0 && l.LastLSN > l.FirstLSN:
		fmt.Fprintf(&s, "; commits %d to %d are lost", l.FirstLSN, l.LastLSN)
	case l.FirstLSN != 0 && l.LastLSN == l.FirstLSN:
		fmt.Fprintf(&s, "; commit %d is lost", l.FirstLSN)
	case l.FirstLSN != 0:
		fmt.Fprintf(&s, "; commits from %d on may be lost", l.FirstLSN)
	}
	return s.String()
}

// DoubtfulKey is a key that was rescued and may be out of date.
type DoubtfulKey struct {
	Key      []byte
	Revision uint64 // in the damaged store and in the new one
	Why      string
}

// SalvageProgress says how far a salvage is.
type SalvageProgress struct {
	Phase       string // "examining", "log", "ordering" or "copying"
	Done, Total int64  // bytes of this phase; the total is an estimate, zero if unknown
	Keys        int64  // rescued so far
}

// ErrNothingLeft reports a directory in which nothing can be trusted any more; it is
// an ErrCorrupt, too, unless the store is sound and empty.
var ErrNothingLeft = errors.New("holdfast: nothing is left to salvage")

// Salvage reads from the damaged store in dir whatever still verifies and writes it
// into a new store in dst, which must not exist or be empty, and which is durable
// when Salvage returns. Nothing in dir is changed. A value that does not match its
// checksum is never copied: it is in the report, as is everything else that could
// not be read. A report without a loss and without a doubtful key means that the
// new store holds all that the old one did.
//
// It needs neither the log, nor L3, nor the packs, nor STATE to be whole. The
// revisions of the keys stay as they were. Memory stays within
// Options.MemoryBudget, but for the largest single value and the blocks of as many
// tables as overlap in one place. progress may be nil; it is called from this
// goroutine, some times a second.
//
// A store that is open for writing gives ErrLocked, one of a newer version
// ErrVersion, a directory in which nothing can be read ErrNothingLeft, and a dst
// that holds something os.ErrExist. After an error nothing of the salvage is in dst; what
// somebody else put there meanwhile stays.
func Salvage(ctx context.Context, dir, dst string, o *Options, progress func(SalvageProgress)) (SalvageReport, error) {
	if err := hasContext("Salvage", ctx); err != nil {
		return SalvageReport{}, err
	}
	w, err := newWreck(ctx, dir, o, progress)
	if err != nil {
		return SalvageReport{}, err
	}
	dst = filepath.Clean(dst)
	fs := w.opts.FS
	if err := emptyOrMissing(fs, dst); err != nil {
		return SalvageReport{}, door(err)
	}
	if within(dir, dst) {
		return SalvageReport{}, fmt.Errorf("%w: %s lies in the store that is not to be changed", ErrOptions, dst)
	}
	return w.run(func() (sink, error) { return newRescue(w, dst) })
}

// Survey does all that [Salvage] does but write: its report is what a salvage would
// rescue and lose. What the log holds above the memory budget costs memory.
func Survey(ctx context.Context, dir string, o *Options, progress func(SalvageProgress)) (SalvageReport, error) {
	if err := hasContext("Survey", ctx); err != nil {
		return SalvageReport{}, err
	}
	w, err := newWreck(ctx, dir, o, progress)
	if err != nil {
		return SalvageReport{}, err
	}
	return w.run(func() (sink, error) { return &tally{w: w, mem: vfs.NewMem()}, nil })
}

// run is the order of a salvage.
func (w *wreck) run(open func() (sink, error)) (_ SalvageReport, err error) {
	began := time.Now()
	defer func() {
		w.close()
		err = door(err)
	}()
	if err := w.examine(); err != nil {
		return SalvageReport{}, err
	}
	if w.entries == 0 && w.batches == 0 {
		return SalvageReport{}, w.nothing()
	}
	out, err := open()
	if err != nil {
		return SalvageReport{}, err
	}
	defer func() { err = errors.Join(err, out.end(err)) }()
	if err := w.replayLog(out); err != nil {
		return SalvageReport{}, err
	}
	if err := w.order(); err != nil {
		return SalvageReport{}, err
	}
	if err := w.copy(out); err != nil {
		return SalvageReport{}, err
	}
	w.report.LSN, w.report.Exact = w.last, w.exact
	if err := out.commit(); err != nil {
		return SalvageReport{}, err
	}
	w.report.Took = time.Since(began)
	return w.report, nil
}

// nothing says why a salvage found nothing.
func (w *wreck) nothing() error {
	if w.foreign != nil {
		return w.foreign
	}
	if len(w.report.Lost) == 0 {
		return fmt.Errorf("%w: %s holds no key", ErrNothingLeft, w.dir)
	}
	l := w.report.Lost[len(w.report.Lost)-1]
	return fmt.Errorf("%w: %w", ErrNothingLeft, &CorruptError{File: l.File, Offset: l.Offset, What: l.What, Err: l.Err})
}

// sink is where a salvage goes: a new store, or nowhere.
type sink interface {
	// scratch is a folder for what waits to be merged.
	scratch() (fs vfs.FS, dir string)
	// set takes a key with its cell, in key order; the cell's blob lies in the
	// wreck's packs.
	set(key []byte, cell []byte) error
	// blob takes a key whose value lies in a pack. An error that is damage is of
	// this value only.
	blob(key []byte, cell []byte) error
	// commit makes all of it durable.
	commit() error
	// end releases what is held and, after an error, takes everything back.
	end(error) error
}

func emptyOrMissing(fs vfs.FS, dst string) error {
	if info, err := fs.Stat(dst); err == nil && !info.IsDir() {
		return fmt.Errorf("salvage to %s: %w", dst, os.ErrExist)
	}
	names, err := fs.List(dst)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list %s: %w", dst, err)
	}
	if len(names) > 0 {
		return fmt.Errorf("salvage to %s, which holds %q: %w", dst, names[0], os.ErrExist)
	}
	return nil
}

func within(dir, dst string) bool {
	a, b := resolved(dir), resolved(dst)
	return a == b || strings.HasPrefix(b, strings.TrimSuffix(a, string(filepath.Separator))+string(filepath.Separator))
}

// resolved is path with the symbolic links in the part of it that is there taken out.
func resolved(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return filepath.Clean(path)
	}
	for rest := ""; ; abs, rest = filepath.Dir(abs), filepath.Join(filepath.Base(abs), rest) {
		if found, err := filepath.EvalSymlinks(abs); err == nil { // that of the root always is
			return filepath.Join(found, rest)
		}
	}
}
