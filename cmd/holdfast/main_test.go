package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/engine"
)

// childEnv makes the test binary be the command: the demo starts itself, and in a
// test that is this binary.
const childEnv = "HOLDFAST_TEST_IS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
		os.Exit(a.execute(context.Background(), os.Args[1:]))
	}
	if err := os.Unsetenv(dirEnv); err != nil { // somebody's store is not for tests
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// result of a command line that ran in this process.
type result struct {
	code     int
	out, err string
}

func run(t *testing.T, args ...string) result { return runWith(t, "", args...) }

func runWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{in: strings.NewReader(stdin), out: &out, err: &errs}
	code := a.execute(t.Context(), args)
	return result{code, out.String(), errs.String()}
}

// ok runs a command that must succeed and returns its output.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := run(t, args...)
	require.Equal(t, exitOK, r.code, "holdfast %v: %s", args, r.err)
	require.Empty(t, r.err, "holdfast %v", args)
	return r.out
}

// fails runs a command that must fail with code and one line that has every want.
func fails(t *testing.T, code int, args []string, wants ...string) string {
	t.Helper()
	r := run(t, args...)
	require.Equal(t, code, r.code, "holdfast %v: %s%s", args, r.out, r.err)
	require.Regexp(t, `\Aholdfast: [^\n]+\n\z`, r.err, "holdfast %v", args)
	require.NotContains(t, r.err[len("holdfast: "):], "holdfast: ", "the program's name once is enough")
	for _, w := range wants {
		require.Contains(t, r.err, w, "holdfast %v", args)
	}
	return r.out
}

// newStore makes a store with some keys, of which some are in L3 and one is large.
func newStore(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	e, err := engine.Open(dir, &engine.Options{MemoryBudget: 16 << 20})
	require.NoError(t, err)
	for i := range 500 {
		require.NoError(t, e.Put([]byte{'k', byte('0' + i/100), byte('0' + i/10%10), byte('0' + i%10)}, bytes.Repeat([]byte{byte(i)}, 300)))
	}
	require.NoError(t, e.Put([]byte("large"), noise(200<<10)))
	require.NoError(t, e.Flush(t.Context()))
	require.NoError(t, e.Put([]byte("greeting"), []byte("hello")))
	require.NoError(t, e.Close())
	return dir
}

// noise is bytes that no codec makes smaller.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// everyCommand is one use of each command that opens a store at dir. The first few
// create one where there is none.
func everyCommand(dir string) (creating, others [][]string) {
	creating = [][]string{
		{"put", "-d", dir, "k", "v"},
		{"import", "jsonl", "-d", dir, "testdata/users.jsonl", "--key", "id"},
		{"import", "csv", "-d", dir, "testdata/people.csv", "--key", "email"},
		{"import", "tree", "-d", dir, "testdata"},
	}
	others = [][]string{
		{"get", "-d", dir, "k"}, {"del", "-d", dir, "k"}, {"scan", "-d", dir}, {"compact", "-d", dir}, {"stat", "-d", dir},
		{"stat", "-d", dir, "k"}, {"inspect", "-d", dir, "k"}, {"check", "-d", dir}, {"export", "jsonl", "-d", dir},
		{"export", "tree", "-d", dir, filepath.Join(os.TempDir(), "holdfast-never-made")},
	}
	return creating, others
}

// Goal: a wrong command line is one line with a hint, and exit code 2.
func TestExecute_usage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "never")
	for _, c := range []struct {
		args string
		want string
	}{
		{"frobnicate", `unknown command "frobnicate"; see 'holdfast --help'`},
		{"scna", `did you mean "scan"?`},
		{"--frob", "unknown flag: --frob; see 'holdfast --help'"},
		{"get --frob k", "unknown flag: --frob; see 'holdfast get --help'"},
		{"scan --limit many", `--limit wants a whole number from 0 up, not "many"; see 'holdfast scan --help'`},
		{"scan --limit -1", `--limit wants a whole number from 0 up, not "-1"; see`},
		{"demo --read-for long", "--read-for wants a time like 3s"},
		{"get", "holdfast: get wants one KEY, got 0 arguments; see 'holdfast get --help'"},
		{"get a b", "get wants one KEY, got 2 arguments"},
		{"inspect", "inspect wants one KEY, got 0 arguments"},
		{"put", "holdfast: put wants KEY [VALUE]"},
		{"scan x", "takes no arguments"},
		{"import", "holdfast: import wants a format"},
		{"import xml f", `unknown command "xml"`},
		{"import jsonl f", "either --key FIELD or --native"},
		{"import jsonl f --key id --native", "either --key FIELD or --native"},
		{"import csv f", "--key COLUMN"},
		{"import csv f --key a --delimiter ab", "--delimiter"},
		{"get k", "--dir DIR"},
		{"get -d DIR --hex zz", "not hexadecimal"},
		{"put -d DIR k v --sync sometimes", "--sync is always, interval or never"},
		{"put -d DIR k v --memory much", "--memory wants a size"},
		{"put -d DIR k v --memory 1MiB", "at least 16 MiB"},
		{"put -d DIR k v --memory 16MB", `--memory wants at least 16 MiB, not "16MB"`},
		{"get -d DIR k --recover magic", "--recover is strict, absolute, point-in-time or salvage"},
		{"get -d DIR k --recover salvage --read-only=false", "--recover salvage reads only"},
		{"put -d DIR k v --recover salvage", "unknown flag"},
		{"scan -d DIR --from b --to a", `inverted range: --from "b" is above --to "a"`},
		{"export jsonl -d DIR --from b --to a", "inverted range"},
		{"del -d DIR --range b a", `inverted range: LOWER "b" is above UPPER "a"`},
		{"del -d DIR", "no key given"},
		{"del -d DIR --range a", "LOWER and UPPER"},
		{"del -d DIR --range --all", "--range and --all exclude each other"},
		{"del -d DIR --prefix p k", "take no keys"},
		{"demo --kills -1", "--kills is -1"},
		{"demo --limit much", "--limit wants a size"},
		{"help frobnicate", `unknown command "frobnicate"`},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))
			fails(t, exitUsage, args, c.want)
		})
	}
	fails(t, exitUsage, []string{"put", "-d", dir, "", "v"}, "at least one byte")
	fails(t, exitUsage, []string{"del", "-d", dir, "--prefix", ""}, "say --all")
	for _, verb := range []string{"get", "del", "stat", "inspect"} {
		fails(t, exitUsage, []string{verb, "-d", dir, strings.Repeat("k", engine.MaxKey+1)}, "at most 65,536 bytes")
	}
	require.NoDirExists(t, dir, "a wrong command line makes no store")
}

// Goal: with --json errors are JSON, even that of a command line that does not
// parse.
func TestExecute_jsonErrors(t *testing.T) {
	for code, args := range map[int][]string{
		exitUsage:   {"get", "--json", "--frob"},
		exitNoStore: {"get", "--json", "-d", filepath.Join(t.TempDir(), "none"), "k"},
	} {
		r := run(t, args...)
		require.Equal(t, code, r.code)
		var got struct {
			Error string
			Code  int
		}
		require.NoError(t, json.Unmarshal([]byte(r.err), &got), r.err)
		require.Equal(t, code, got.Code)
		require.NotEmpty(t, got.Error)
		require.Empty(t, r.out)
	}
}

// Goal: every command has help with an example, and the root tells the exit codes.
func TestExecute_help(t *testing.T) {
	require.Contains(t, ok(t), "Exit codes:")
	require.Contains(t, ok(t, "--help"), "locked")
	for _, c := range []string{"demo", "put", "get", "del", "scan", "import tree", "import jsonl", "import csv", "export jsonl", "export tree", "stat", "inspect", "check", "compact"} {
		help := ok(t, append(strings.Fields(c), "--help")...)
		require.Contains(t, help, "Examples:", c)
		require.Contains(t, help, "holdfast "+strings.Fields(c)[0], c)
	}
	require.Equal(t, ok(t, "import", "csv", "--help"), ok(t, "help", "import", "csv"))
	require.NotContains(t, ok(t, "--help"), childName)
	require.Contains(t, ok(t, "--help"), "7    the disk is full")
	for _, c := range []string{"get", "scan", "export jsonl", "export tree", "stat", "inspect", "check"} {
		require.Contains(t, ok(t, append(strings.Fields(c), "--help")...), "salvage ", c)
	}
	require.Regexp(t, `^holdfast version \S+\n$`, ok(t, "--version"))
}

// Goal: where there is no store, commands that do not make one say so and leave
// nothing behind.
func TestExecute_noStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, others := everyCommand(dir)
	for _, args := range others {
		fails(t, exitNoStore, args, "there is no store in "+dir)
		require.NoDirExists(t, dir)
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	creating, others := everyCommand(file)
	for _, args := range append(creating, others...) {
		fails(t, exitNoStore, args, "is not a directory")
	}
}

// Goal: a store that is open elsewhere is exit code 4.
func TestExecute_locked(t *testing.T) {
	dir := newStore(t)
	e, err := engine.Open(dir, nil)
	require.NoError(t, err)
	defer e.Close()
	creating, others := everyCommand(dir)
	for _, args := range append(creating, others...) {
		fails(t, exitLocked, args, "is locked", dir)
	}
}

// Goal: readers run side by side.
func TestExecute_sharedReaders(t *testing.T) {
	dir := newStore(t)
	e, err := engine.Open(dir, &engine.Options{ReadOnly: true})
	require.NoError(t, err)
	defer e.Close()
	require.Equal(t, "hello", ok(t, "get", "-d", dir, "greeting"))
	fails(t, exitLocked, []string{"put", "-d", dir, "k", "v"})
}

// Goal: a directory that belongs to something else is refused, and untouched.
func TestExecute_foreign(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("x"), 0o600))
	before := tree(t, dir)
	creating, others := everyCommand(dir)
	for _, args := range append(creating, others...) {
		fails(t, exitNoStore, args, dir+` is not a Holdfast store: it holds "thesis.tex"`+"\n")
	}
	require.Equal(t, before, tree(t, dir))

	other := newStore(t)
	require.NoError(t, os.WriteFile(filepath.Join(other, "STATE"), noise(8192), 0o600))
	fails(t, exitNoStore, []string{"get", "-d", other, "k"}, "is not a Holdfast store")
}

// Goal: a store that a newer version wrote is refused by every command, untouched.
func TestExecute_newerVersion(t *testing.T) {
	dir := newStore(t)
	name := filepath.Join(dir, "STATE")
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	const page = 4096
	for at := 0; at+page <= len(b); at += page {
		slot := b[at : at+page]
		binary.LittleEndian.PutUint16(slot[8:], binary.LittleEndian.Uint16(slot[8:])+1)
		binary.LittleEndian.PutUint32(slot[page-4:], crc32.Checksum(slot[:page-4], crc32.MakeTable(crc32.Castagnoli)))
	}
	require.NoError(t, os.WriteFile(name, b, 0o600))
	before := tree(t, dir)
	creating, others := everyCommand(dir)
	for _, args := range append(creating, others...) {
		fails(t, exitNoStore, args, "newer version")
	}
	require.Equal(t, before, tree(t, dir))
}

// Goal: commands that read change no byte of a store, not even of one that was
// killed.
func TestExecute_readersChangeNothing(t *testing.T) {
	t.Run("closed", func(t *testing.T) { readersChangeNothing(t, newStore(t)) })
	t.Run("killed", func(t *testing.T) {
		dir, image := newStore(t), filepath.Join(t.TempDir(), "image")
		e, err := engine.Open(dir, nil)
		require.NoError(t, err)
		defer e.Close()
		require.NoError(t, e.Put([]byte("acknowledged"), []byte("v")))
		require.Eventually(t, func() bool { // a file may go away under the copy
			require.NoError(t, os.RemoveAll(image))
			return os.CopyFS(image, os.DirFS(dir)) == nil // as a kill would leave it
		}, 10*time.Second, 10*time.Millisecond)
		readersChangeNothing(t, image)
		require.Equal(t, "v", ok(t, "get", "-d", image, "acknowledged"))
		require.Contains(t, ok(t, "check", "-d", image), "not closed")
		require.Contains(t, ok(t, "stat", "-d", image), "not closed")
	})
}

func readersChangeNothing(t *testing.T, dir string) {
	before := tree(t, dir)
	out := filepath.Join(t.TempDir(), "out")
	for _, args := range [][]string{
		{"get", "greeting"}, {"get", "--json", "large"}, {"scan"}, {"scan", "--reverse", "--json"}, {"stat"}, {"stat", "--json"},
		{"stat", "large"}, {"inspect", "large"}, {"inspect", "--json", "nobody"}, {"check"}, {"export", "jsonl"}, {"export", "tree", out},
	} {
		ok(t, append(args, "-d", dir)...)
		require.Equal(t, before, tree(t, dir), "%v", args)
	}
}

// tree is every file below dir with its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		m[strings.TrimPrefix(path, dir)] = string(b)
		return err
	}))
	return m
}
