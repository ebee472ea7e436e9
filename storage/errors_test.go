package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal: what Pebble and the system say comes out as the room's own error, with its
// cause inside; what is the room's already comes out as it is.
func TestErrors_mapped(t *testing.T) {
	cases := []struct{ in, want error }{
		{pebble.ErrClosed, ErrClosed},
		{pebble.ErrReadOnly, ErrReadOnly},
		{&fs.PathError{Op: "write", Err: syscall.ENOSPC}, ErrDiskFull},
		{&fs.PathError{Op: "write", Err: syscall.EDQUOT}, ErrDiskFull},
		{pebble.ErrCorruption, ErrCorrupt},
	}
	for _, c := range cases {
		for _, in := range []error{c.in, fmt.Errorf("around: %w", c.in)} {
			got := mapped(in)
			require.ErrorIs(t, got, c.want)
			require.ErrorIs(t, got, in, "the cause survives")
			require.Equal(t, got, mapped(got), "once is enough")
		}
	}
	require.NoError(t, mapped(nil))
	require.NoError(t, mappedRead(nil))
	require.NoError(t, mappedOpen(nil))
	other := errors.New("other")
	require.Equal(t, other, mapped(other))

	gone := &fs.PathError{Op: "open", Path: "l3/000004.sst", Err: syscall.ENOENT}
	var ce *CorruptError
	require.ErrorAs(t, mappedRead(gone), &ce)
	require.Equal(t, gone.Path, ce.File)
	require.ErrorIs(t, ce, os.ErrNotExist)
	for _, short := range []error{io.EOF, io.ErrUnexpectedEOF} { // cut while it was open
		require.ErrorIs(t, mappedRead(short), ErrCorrupt)
	}
	require.Contains(t, ce.Error(), "storage: corrupt: l3/000004.sst: missing file: ")
	require.Equal(t, "storage: corrupt: what", (&CorruptError{What: "what"}).Error())
	require.Equal(t, "storage: corrupt", (&CorruptError{}).Error())
	require.ErrorIs(t, mappedOpen(other), ErrCorrupt, "no system call caused it")
	require.NotErrorIs(t, mappedOpen(&fs.PathError{Op: "open", Err: syscall.EIO}), ErrCorrupt)
	require.NotErrorIs(t, mappedOpen(errors.New("format major version 99 is too new")), ErrCorrupt)
	require.NotErrorIs(t, mappedOpen(fmt.Errorf("x: %w", ErrDegraded)), ErrCorrupt)
}

// Goal (I12): a panic of Pebble on our goroutine is an error with the cause in it.
func TestErrors_caught(t *testing.T) {
	run := func(what any) (err error) {
		defer caught(&err)
		panic(what)
	}
	require.ErrorContains(t, run("leaked iterators"), "storage: pebble panicked: leaked iterators")
	require.ErrorIs(t, run(pebble.ErrClosed), pebble.ErrClosed)
	var re runtime.Error
	err := func() (err error) {
		defer caught(&err)
		return []error{nil}[len(os.Args)+1]
	}()
	require.ErrorAs(t, err, &re)
}

// Goal: what contradicts itself is refused by name, and zero is production.
func TestOptions_withDefaults(t *testing.T) {
	for field, o := range map[string]Options{
		"Dir":          {},
		"Create":       {Dir: "d", ReadOnly: true, Create: true},
		"CacheBytes":   {Dir: "d", CacheBytes: -1},
		"MaxOpenFiles": {Dir: "d", MaxOpenFiles: -1},
	} {
		_, err := Open(o)
		require.ErrorContains(t, err, field)
	}
	_, err := Open(Options{Dir: "d", MaxOpenFiles: maxMaxOpenFiles + 1})
	require.ErrorContains(t, err, "MaxOpenFiles")
	o, err := Options{Dir: "d"}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, vfs.Default, o.FS)
	require.EqualValues(t, defaultCacheBytes, o.CacheBytes)
	require.Equal(t, defaultMaxOpenFiles, o.MaxOpenFiles)
	o.Logger.Error("heard by nobody")
}

// Goal: Pebble's words reach a logger that listens, at the level they deserve, and
// cost nothing where nobody does; what it calls fatal closes the gate with its reason.
func TestPebbleLog(t *testing.T) {
	var heard bytes.Buffer
	for level, want := range map[slog.Level]string{
		slog.LevelDebug: "[JOB 1] hello|bad things",
		slog.LevelWarn:  "bad things",
		slog.LevelError: "",
	} {
		heard.Reset()
		log := slog.New(slog.NewTextHandler(&heard, &slog.HandlerOptions{Level: level}))
		l := pebbleLog{log, newGate(vfs.NewMem(), "l3", false)}
		l.Infof("[JOB %d] hello", 1)
		l.Errorf("bad %s", "things")
		for _, w := range []string{"[JOB 1] hello", "bad things"} {
			require.Equal(t, bytes.Contains([]byte(want), []byte(w)), bytes.Contains(heard.Bytes(), []byte(w)), "%v: %s", level, heard.String())
		}
		l.Fatalf("gave up at %d", 7)
		require.ErrorContains(t, l.gate.refusal(), "gave up at 7")
	}
}
