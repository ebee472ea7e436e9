package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
)

// The errors of the door. All work with errors.Is and carry their cause.
var (
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("holdfast: not found")
	// ErrClosed: the engine, snapshot or batch was closed.
	ErrClosed = errors.New("holdfast: closed")
	// ErrCorrupt: bytes on disk contradict their checksum, or each other. It
	// comes as a *CorruptError.
	ErrCorrupt = errors.New("holdfast: corrupt")
	// ErrReadOnly: the store was opened read-only, or a failure made it so; reads
	// go on. The cause is wrapped.
	ErrReadOnly = errors.New("holdfast: read-only")
	// ErrInDoubt: a write or sync of the log failed, or the caller stopped waiting
	// for it: the write may or may not survive. Reopen to know.
	ErrInDoubt = errors.New("holdfast: in doubt")
	// ErrDiskFull: there is no room; nothing was written.
	ErrDiskFull = errors.New("holdfast: disk full")
	// ErrBusy: the write waited for a flush longer than StallLimit; nothing was
	// written.
	ErrBusy = errors.New("holdfast: busy")
	// ErrLocked: another process, or this one, has the store open.
	ErrLocked = errors.New("holdfast: locked")
	// ErrTooLarge: a key, value or batch is over its limit; nothing was written.
	ErrTooLarge = errors.New("holdfast: too large")
	// ErrEmptyKey: a key must have at least one byte.
	ErrEmptyKey = errors.New("holdfast: empty key")
	// ErrBadRange: the lower bound of a range is above its upper bound.
	ErrBadRange = errors.New("holdfast: inverted range")
	// ErrArgument: an argument cannot be right, whatever is in the store; the error
	// names it. Nothing was done.
	ErrArgument = errors.New("holdfast: bad argument")
	// ErrForeign: the directory, or a file in it, belongs to something else.
	ErrForeign = errors.New("holdfast: not a store of ours")
	// ErrVersion: the store was written by a newer version.
	ErrVersion = errors.New("holdfast: unknown format version")
	// ErrSnapshotTooOld: the snapshot gave way to bound the memory that snapshots
	// pin.
	ErrSnapshotTooOld = errors.New("holdfast: snapshot too old")
)

// CorruptError says where bytes contradict their checksum, or each other.
type CorruptError struct {
	File   string // empty if no one file is to blame
	Offset int64  // -1 if unknown
	What   string
	Err    error // the room's own error
}

func (e *CorruptError) Error() string {
	s := ErrCorrupt.Error()
	if e.File != "" {
		s += ": " + e.File
	}
	if e.Offset >= 0 {
		s += fmt.Sprintf(": offset %d", e.Offset)
	}
	return s + ": " + e.What
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

func (e *CorruptError) Unwrap() error { return e.Err }

// corrupt reports a contradiction that no single room could see.
func corrupt(file, format string, args ...any) error {
	return &CorruptError{File: file, Offset: -1, What: fmt.Sprintf(format, args...)}
}

// doorErrors maps what the rooms say to what the door says, first match first.
var doorErrors = []struct{ room, door error }{
	{wal.ErrInDoubt, ErrInDoubt},
	{wal.ErrDiskFull, ErrDiskFull},
	{storage.ErrDiskFull, ErrDiskFull},
	{mmap.ErrDiskFull, ErrDiskFull},
	{wal.ErrPoisoned, ErrReadOnly},
	{mmap.ErrPoisoned, ErrReadOnly},
	{storage.ErrDegraded, ErrReadOnly},
	{wal.ErrNoCommit, ErrArgument},
	{wal.ErrTooLarge, ErrTooLarge},
	{mmap.ErrTooLarge, ErrTooLarge},
	{wal.ErrForeign, ErrForeign},
	{mmap.ErrForeign, ErrForeign},
	{wal.ErrVersion, ErrVersion},
	{mmap.ErrVersion, ErrVersion},
	{wal.ErrClosed, ErrClosed},
	{storage.ErrClosed, ErrClosed},
	{mmap.ErrClosed, ErrClosed},
}

// door turns a room's error into one of the door's. Errors that are already the
// door's, contexts' and the operating system's pass through.
func door(err error) error {
	if err == nil {
		return nil
	}
	var (
		w *wal.CorruptError
		s *storage.CorruptError
		m *mmap.CorruptError
		c *CorruptError
	)
	switch {
	case errors.As(err, &c):
		return err
	case errors.As(err, &w):
		return &CorruptError{File: w.File, Offset: w.Offset, What: w.What, Err: err}
	case errors.As(err, &s):
		return &CorruptError{File: s.File, Offset: s.Offset(), What: s.What, Err: err}
	case errors.As(err, &m):
		return &CorruptError{File: m.File, Offset: m.Offset, What: m.What, Err: err}
	case errors.Is(err, wal.ErrCorrupt), errors.Is(err, wal.ErrChecksum), errors.Is(err, storage.ErrCorrupt),
		errors.Is(err, mmap.ErrCorrupt), errors.Is(err, mmap.ErrMissing), errors.Is(err, cow.ErrCell), errors.Is(err, errOps):
		return &CorruptError{Offset: -1, What: err.Error(), Err: err}
	}
	for _, d := range doorErrors {
		if errors.Is(err, d.door) {
			return err
		}
		if errors.Is(err, d.room) {
			return fmt.Errorf("%w: %w", d.door, err)
		}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// transient says that trying again later may help: nothing is broken for good. What
// closed a room until the next open is not, even if the cause was a full disk.
func transient(err error) bool {
	for _, shut := range []error{storage.ErrDegraded, wal.ErrPoisoned, mmap.ErrPoisoned} {
		if errors.Is(err, shut) {
			return false
		}
	}
	return errors.Is(err, ErrDiskFull) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, os.ErrDeadlineExceeded)
}
