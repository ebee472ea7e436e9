package mmap

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	// ErrCorrupt reports bytes that contradict their own checksum, length or
	// place. It comes as a *CorruptError.
	ErrCorrupt = errors.New("mmap: corrupt")
	// ErrMissing reports a pack that is not there.
	ErrMissing = errors.New("mmap: pack is missing")
	// ErrForeign reports a pack of another store.
	ErrForeign = errors.New("mmap: pack of another store")
	// ErrVersion reports a format that this version does not know.
	ErrVersion = errors.New("mmap: unknown format")
	// ErrClosed reports use after Close.
	ErrClosed = errors.New("mmap: closed")
	// ErrDiskFull reports a write that found no space. Nothing refers to what
	// was written of it; the next Write may succeed.
	ErrDiskFull = errors.New("mmap: disk is full")
	// ErrPoisoned reports that an earlier write or sync failed, with its cause.
	ErrPoisoned = errors.New("mmap: an earlier write or sync failed")
	// ErrTooLarge reports a value beyond MaxValue.
	ErrTooLarge = errors.New("mmap: value is too large")
	// ErrReadOnly reports a write to a store that was opened for reading.
	ErrReadOnly = errors.New("mmap: read-only")
	// ErrNotSealed reports a pack that is still written to.
	ErrNotSealed = errors.New("mmap: pack is not sealed")
	// ErrPending reports a pack with blobs that were written and not settled.
	ErrPending = errors.New("mmap: pack has blobs that no commit names yet")
)

// CorruptError says where bytes are wrong. errors.Is finds ErrCorrupt in it.
type CorruptError struct {
	File   string // base name of the pack; empty for a reference
	Offset int64
	What   string
	Err    error // cause, if there is one
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("%v: %s: offset %d: %s", ErrCorrupt, e.File, e.Offset, e.What)
	if e.File == "" {
		s = fmt.Sprintf("%v: %s", ErrCorrupt, e.What)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

func (e *CorruptError) Unwrap() error { return e.Err }

// noSpace says whether the error is one that more space cures.
func noSpace(err error) bool { return vfs.IsNoSpaceError(err) || isQuota(err) }

func noDescriptor(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// seen counts what is corrupt on its way to the caller.
func (s *Store) seen(err error) error {
	if errors.Is(err, ErrCorrupt) {
		s.stats.corrupt.Add(1)
	}
	return err
}
