package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
)

var (
	// ErrClosed reports a call after Close, or on a snapshot nobody holds.
	ErrClosed = errors.New("storage: closed")
	// ErrCorrupt reports bytes that contradict their own checksum, length or
	// order. The error itself is a *CorruptError.
	ErrCorrupt = errors.New("storage: corrupt")
	// ErrDegraded reports that the write gate is closed: a MANIFEST or marker
	// operation failed, nothing is written until reopen, reads go on.
	ErrDegraded = errors.New("storage: degraded to read-only")
	// ErrDiskFull reports that the device had no room.
	ErrDiskFull = errors.New("storage: disk full")
	// ErrReadOnly reports a change asked of a store opened with ReadOnly.
	ErrReadOnly = errors.New("storage: opened read-only")
	// ErrOrder reports an ingest whose operations break the rules of Ingest.
	ErrOrder = errors.New("storage: ingest out of order")
)

// CorruptError says which file is damaged and how it showed.
type CorruptError struct {
	File string // path, or empty where Pebble does not say
	What string
	Err  error
}

func (e *CorruptError) Error() string {
	s := ErrCorrupt.Error()
	if e.File != "" {
		s += ": " + e.File
	}
	if e.What != "" {
		s += ": " + e.What
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// blockPlace is how Pebble tells which block of a table is damaged: offset and length,
// in words alone.
var blockPlace = regexp.MustCompile(`\bblock ([0-9]+)/[0-9]+: \S+ checksum mismatch`)

// Offset is where the damaged block begins in File, or -1 where Pebble does not say.
func (e *CorruptError) Offset() int64 {
	if e.Err == nil {
		return -1
	}
	m := blockPlace.FindStringSubmatch(e.Err.Error())
	if m == nil {
		return -1
	}
	off, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return -1
	}
	return off
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap gives the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// mapped turns an error of Pebble or of the file system into one of ours. It
// is the one place that knows Pebble's errors: the standard errors.Is does not
// see pebble.ErrCorruption through Pebble's marks, IsCorruptionError does.
func mapped(err error) error {
	if err == nil {
		return nil
	}
	for _, ours := range []error{ErrClosed, ErrCorrupt, ErrDegraded, ErrDiskFull, ErrReadOnly, ErrOrder} {
		if errors.Is(err, ours) {
			return err
		}
	}
	switch {
	case pebble.IsCorruptionError(err):
		e := &CorruptError{What: "checksum or structure", Err: err}
		if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
			e.File = info.Path
		}
		return e
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	case errors.Is(err, pebble.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, pebble.ErrReadOnly):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

// mappedRead is mapped for a read of a table: Pebble opens only tables that
// its manifest names, and reads only what they have, so one that is not there or ends
// early is damage.
func mappedRead(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &CorruptError{What: "a table ends early", Err: err}
	}
	if err != nil && errors.Is(err, os.ErrNotExist) {
		var pe *os.PathError
		e := &CorruptError{What: "missing file", Err: err}
		if errors.As(err, &pe) {
			e.File = pe.Path
		}
		return e
	}
	return mapped(err)
}

// mappedOpen is mapped for what Pebble's Open says. The options are ours and
// right, so an error that no system call caused speaks of the bytes on disk
// (sizes that differ from the manifest, options that do not parse): Pebble does
// not mark these as corruption. A format newer than this release is no damage.
func mappedOpen(err error) error {
	err = mappedRead(err)
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) || strings.Contains(err.Error(), "format major version") {
		return err
	}
	for _, known := range []error{ErrClosed, ErrCorrupt, ErrDegraded, ErrDiskFull, ErrReadOnly, os.ErrPermission, os.ErrInvalid, io.ErrShortWrite} {
		if errors.Is(err, known) {
			return err
		}
	}
	return &CorruptError{What: "not a store Pebble accepts", Err: err}
}

// tableNamed is how Pebble's Open names a table that is not there, or not as long as its
// manifest says: level and number.
var tableNamed = regexp.MustCompile(`\bL[0-9]: ([0-9]{6,}): `)

// inFolder fills in the first table that an error of Open names, as a path.
func inFolder(err error, path func(name string) string) error {
	var e *CorruptError
	if errors.As(err, &e) && e.File == "" {
		if m := tableNamed.FindStringSubmatch(e.Error()); m != nil {
			e.File = path(m[1] + ".sst")
		}
	}
	return err
}

// caught turns a panic of Pebble on our goroutine into an error (I12). Use as
// defer caught(&err).
func caught(err *error) {
	if r := recover(); r != nil {
		if cause, ok := r.(error); ok {
			*err = fmt.Errorf("storage: pebble panicked: %w", cause)
			return
		}
		*err = fmt.Errorf("storage: pebble panicked: %v", r)
	}
}
