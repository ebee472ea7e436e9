package wal

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrCorrupt reports bytes that contradict a checksum, a chain or a promise.
	ErrCorrupt = errors.New("wal: corrupt")
	// ErrForeign reports a file that belongs to another store or another program.
	ErrForeign = errors.New("wal: file of another store")
	// ErrVersion reports a format newer than this code.
	ErrVersion = errors.New("wal: format is newer than this program")
	// ErrInDoubt reports a batch that may or may not survive.
	ErrInDoubt = errors.New("wal: in doubt")
	// ErrPoisoned reports a log that refuses to go on after a failed write or sync.
	ErrPoisoned = errors.New("wal: poisoned by an earlier failure")
	// ErrClosed reports a call after Close.
	ErrClosed = errors.New("wal: closed")
	// ErrDiskFull reports a batch that found no room; nothing of it was written.
	ErrDiskFull = errors.New("wal: disk full")
	// ErrNoCommit reports a wait for a number that no commit has yet.
	ErrNoCommit = errors.New("wal: no such commit")
	// ErrTooLarge reports a batch above the format's limit.
	ErrTooLarge = errors.New("wal: batch too large")
	// ErrChecksum reports a payload that changed between the API's entry and the write.
	ErrChecksum = errors.New("wal: payload does not match its checksum")
	// ErrCut is what a Check wraps to say that a record names something that is missing.
	ErrCut = errors.New("wal: record cannot be kept")

	errReadOnly = errors.New("wal: opened read-only")
)

// CorruptError says where the damage is. It is an ErrCorrupt for errors.Is.
type CorruptError struct {
	File   string
	Offset int64
	What   string
	Err    error // the cause, if there is one beneath
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("%v: %s: offset %d: %s", ErrCorrupt, e.File, e.Offset, e.What)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is makes every CorruptError an ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

func (e *CorruptError) Unwrap() error { return e.Err }

func corrupt(file string, off int64, format string, args ...any) error {
	return &CorruptError{File: file, Offset: off, What: fmt.Sprintf(format, args...)}
}

// isDiskFull tells the errors that go away when somebody makes room.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, ErrDiskFull)
}

// isTransient tells the errors of preparing a segment that a later try may not meet.
func isTransient(err error) bool {
	return isDiskFull(err) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
