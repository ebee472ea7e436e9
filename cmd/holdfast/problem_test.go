package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/engine"
)

// rotten is a store with one large value that does not match its checksum, of which
// the keys around it can be read.
func rotten(t *testing.T) string {
	t.Helper()
	dir := newStore(t)
	ok(t, "put", "-d", dir, "zebra", "v")
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*"))
	require.NoError(t, err)
	require.Len(t, packs, 1)
	flip(t, packs[0], 100<<10)
	return dir
}

func flip(t *testing.T, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[at] ^= 0x40
	require.NoError(t, os.WriteFile(name, b, 0o600))
}

// Goal: only damage is corruption; what the system refuses is not, even where a room
// called it that, and damage beside it still counts.
func TestJudge(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "1.pack", Err: syscall.EACCES}
	damage := &engine.CorruptError{File: "2.sst", Offset: 7, What: "checksum"}
	for name, c := range map[string]struct {
		err             error
		corrupt, others int
		code            int
	}{
		"nothing":                {nil, 0, 0, exitOK},
		"damage":                 {damage, 1, 0, exitCorrupt},
		"permission":             {fmt.Errorf("key k: %w", denied), 0, 1, exitError},
		"too many files":         {errors.Join(&fs.PathError{Op: "open", Path: "f", Err: syscall.EMFILE}), 0, 1, exitError},
		"permission, misnamed":   {&engine.CorruptError{Offset: -1, What: "open", Err: denied}, 0, 1, exitError},
		"a bad disk, misnamed":   {fmt.Errorf("k: %w", &engine.CorruptError{File: "f", Offset: -1, What: "read", Err: syscall.EIO}), 0, 1, exitError},
		"both":                   {errors.Join(denied, damage), 1, 1, exitCorrupt},
		"both, named at once":    {&engine.CorruptError{Offset: -1, What: "list", Err: errors.Join(denied, errors.New("checksum"))}, 1, 1, exitCorrupt},
		"the same twice":         {errors.Join(damage, damage), 1, 0, exitCorrupt},
		"damage with a headline": {said(errors.Join(damage, denied), "the store is corrupt"), 1, 1, exitCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			corrupt, others := judge(c.err)
			require.Len(t, corrupt, c.corrupt)
			require.Len(t, others, c.others)
			require.Equal(t, c.code, exitCode(c.err))
		})
	}
}

// Goal: a pack that cannot be opened is an error of its own, not a corrupt store, and
// is told once.
func TestCheck_unreadable(t *testing.T) {
	dir := newStore(t)
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(packs[0]))
	require.NoError(t, os.Symlink(filepath.Base(packs[0]), packs[0])) // fails for root, too
	require.Empty(t, fails(t, exitError, []string{"check", "-d", dir}, "symbolic links"))
}

// Goal: corruption comes with advice, which changes once it was followed.
func TestCheck_advice(t *testing.T) {
	dir := rotten(t)
	out := fails(t, exitCorrupt, []string{"check", "-d", dir}, "the store is corrupt: 1 problem; restore a checkpoint, or 'holdfast salvage "+dir+" NEWDIR' rescues the rest: 502 keys\n")
	require.Equal(t, 1, strings.Count(out, "\n"))
	require.NotContains(t, out, "the store is corrupt")
	fails(t, exitCorrupt, []string{"get", "-d", dir, "large"}, "--recover salvage\n")
	fails(t, exitCorrupt, []string{"get", "-d", dir, "large", "--recover", "salvage"}, "--skip-bad\n")
	require.Equal(t, "v", ok(t, "get", "-d", dir, "zebra", "--recover", "salvage"))
}

// Goal: a log with a hole is refused, but its rest can be read, with a line for what
// was given up.
func TestRecover(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	e, err := engine.Open(dir, &engine.Options{MemoryBudget: 16 << 20})
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", i), noise(1000)))
	}
	image := filepath.Join(t.TempDir(), "image") // as a kill would leave it
	require.Eventually(t, func() bool {          // a file may get its name meanwhile
		return os.RemoveAll(image) == nil && os.CopyFS(image, os.DirFS(dir)) == nil
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, e.Close())
	segments, err := filepath.Glob(filepath.Join(image, "log", "*"))
	require.NoError(t, err)
	flip(t, segments[0], 50<<10)

	fails(t, exitCorrupt, []string{"scan", "-d", image}, "--recover salvage\n")
	before := tree(t, image)
	for mode, last := range map[string]bool{"point-in-time": false, "salvage": true} {
		r := run(t, "scan", "-d", image, "--keys-only", "--recover", mode)
		require.Equal(t, exitOK, r.code, "%s: %s", mode, r.err)
		require.Contains(t, r.err, "holdfast: lost: ", mode)
		require.Contains(t, r.out, "k10\n", mode)
		require.Equal(t, last, strings.Contains(r.out, "k99\n"), mode)
		r = run(t, "check", "-d", image, "--recover", mode, "--json")
		require.Equal(t, exitCorrupt, r.code, "a loss is not ok: %s", r.out)
		require.Contains(t, r.out, `"what":"lost: `)
		require.Equal(t, before, tree(t, image), mode)
	}
	fails(t, exitCorrupt, []string{"scan", "-d", image, "--recover", "absolute"})
}

// Goal: an export of a store with a rotten value keeps what it has, and with
// --skip-bad gives everything else.
func TestExport_rotten(t *testing.T) {
	dir, out := rotten(t), filepath.Join(t.TempDir(), "all.jsonl")
	fails(t, exitCorrupt, []string{"export", "jsonl", "-d", dir, out}, "key large", "501 keys before it: in "+out+".partial")
	require.NoFileExists(t, out)
	b, err := os.ReadFile(out + ".partial")
	require.NoError(t, err)
	require.Equal(t, 501, bytes.Count(b, []byte("\n")))

	r := run(t, "export", "jsonl", "-d", dir, out, "--skip-bad")
	require.Equal(t, exitOK, r.code, r.err)
	require.Contains(t, r.out, "exported 502 keys")
	require.Contains(t, r.out, "skipped 1 bad entry\n")
	require.Regexp(t, `^holdfast: skipped: key large: [^\n]+\n$`, r.err)

	r = run(t, "export", "jsonl", "-d", dir, "--skip-bad", "--json")
	require.Equal(t, exitOK, r.code, r.err)
	require.Equal(t, 502, strings.Count(r.out, "\n"))
	for line := range strings.Lines(r.err) {
		require.True(t, json.Valid([]byte(line)), line)
	}
	r = run(t, "export", "tree", "-d", dir, filepath.Join(t.TempDir(), "tree"), "--skip-bad")
	require.Equal(t, exitOK, r.code, r.err)
	require.Contains(t, r.out, "exported 502 keys")
}

// Goal: a full disk has its own exit code and one sentence, however often it was met.
func TestExecute_diskFull(t *testing.T) {
	dir := newStore(t)
	full := fmt.Errorf("%w: wal: disk full: write log: %w", engine.ErrDiskFull, syscall.ENOSPC)
	var errs bytes.Buffer
	a := &app{err: &errs}
	root := newRoot(a)
	a.dir = dir
	err := a.withStore(root, reads, func(*engine.Engine) error { return errors.Join(full, full) })
	require.Equal(t, exitDiskFull, exitCode(err))
	a.report(err, nil)
	require.Equal(t, "holdfast: the disk of the store in "+dir+" is full: free some space; reading still works\n", errs.String())
	require.Equal(t, exitDiskFull, exitCode(storeError(dir, full)))
}

// Goal: a message says each thing once.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"a: b: c\na: b: c":                              "a: b: c",
		"a: b: c\nb: c\nd":                              "a: b: c; d",
		"holdfast: x: holdfast: y":                      "x: y",
		"bad block; <corruption detail carrier>; in t":  "bad block; in t",
		"bad block\n<corruption detail carrier>":        "bad block",
		"holdfast: corrupt: a\nholdfast: corrupt: b: a": "corrupt: a; corrupt: b: a",
		"context canceled":                              "interrupted",
	} {
		require.Equal(t, want, plain(errors.New(in)), in)
	}
}
