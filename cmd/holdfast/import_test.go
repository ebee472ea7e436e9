package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: a tree comes out as it went in; links and special files are counted, and a
// store inside the tree does not eat itself.
func TestImport_tree(t *testing.T) {
	src := t.TempDir()
	want := map[string]string{
		"/a.txt": "a", "/empty": "", "/sub/deep/b": "b", "/sub/large": string(noise(1 << 20)), "/sub/ü \n": "odd name",
	}
	for name, content := range want {
		require.NoError(t, os.MkdirAll(filepath.Dir(src+name), 0o755))
		require.NoError(t, os.WriteFile(src+name, []byte(content), 0o600))
	}
	require.NoError(t, os.Symlink("a.txt", filepath.Join(src, "link")))
	dir := filepath.Join(src, "store")
	for range 2 { // an import may be run again
		out := ok(t, "import", "tree", "-d", dir, src, "--prefix", "t/")
		require.Contains(t, out, "imported 5 keys, 1.0 MiB")
		require.Contains(t, out, "skipped 1 link or other special file\n")
	}
	require.Equal(t, "b", ok(t, "get", "-d", dir, "t/sub/deep/b"))

	back := filepath.Join(t.TempDir(), "back")
	require.Contains(t, ok(t, "export", "tree", "-d", dir, back, "--prefix", "t/"), "exported 5 keys")
	require.Equal(t, want, tree(t, back))
	fails(t, exitError, []string{"export", "tree", "-d", dir, back, "--prefix", "t/"}, "--overwrite")
	ok(t, "export", "tree", "-d", dir, back, "--prefix", "t/", "--overwrite")
	require.Equal(t, want, tree(t, back))

	behind := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(src, behind))
	require.Contains(t, ok(t, "import", "tree", "-d", dir, behind, "--prefix", "t/"), "imported 5 keys, 1.0 MiB")

	fails(t, exitError, []string{"import", "tree", "-d", dir, filepath.Join(src, "nope")}, "nope")
	fails(t, exitError, []string{"import", "tree", "-d", dir, filepath.Join(src, "a.txt")}, "is not a directory")
}

// Goal: an export of a tree never writes outside of its directory.
func TestExport_tree_outside(t *testing.T) {
	dir, parent := filepath.Join(t.TempDir(), "store"), t.TempDir()
	out := filepath.Join(parent, "out")
	require.NoError(t, os.Mkdir(out, 0o755))
	require.NoError(t, os.Symlink(parent, filepath.Join(out, "up")))
	bad := []string{"../escape", "/etc/escape", "a/../../escape", "a//b", "./a", "a/", "..", ".", "up/escape", "nul\x00"}
	for _, k := range bad {
		ok(t, "put", "-d", dir, k, "gotcha")
		fails(t, exitError, []string{"export", "tree", "-d", dir, out}, "key ")
		ok(t, "del", "-d", dir, k)
	}
	for _, k := range append(bad, "fine/file") {
		ok(t, "put", "-d", dir, k, "v")
	}
	require.Contains(t, ok(t, "export", "tree", "-d", dir, out, "--skip-bad"), "exported 1 key,")
	names, err := os.ReadDir(parent)
	require.NoError(t, err)
	require.Len(t, names, 1, "only out")
	require.NoFileExists(t, "/etc/escape")
}

// Goal: JSON lines are keyed by a field, a path or a name with dots in it.
func TestImport_jsonl(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	require.Contains(t, ok(t, "import", "jsonl", "-d", dir, "testdata/users.jsonl", "--key", "id", "--prefix", "u/"), "imported 3 keys")
	require.Equal(t, `{"id":"ada","user":{"id":1},"name":"Ada"}`, ok(t, "get", "-d", dir, "u/ada"))
	ok(t, "import", "jsonl", "-d", dir, "testdata/users.jsonl", "--key", "user.id")
	require.Contains(t, ok(t, "get", "-d", dir, "12345678901234567890"), "Bob")
	fails(t, exitError, []string{"import", "jsonl", "-d", dir, "testdata/users.jsonl", "--key", "a.b"}, `testdata/users.jsonl:1: no field "a.b"`)
	require.Contains(t, ok(t, "import", "jsonl", "-d", dir, "testdata/users.jsonl", "--key", "a.b", "--skip-bad"), "skipped 2 bad entries")
	require.Contains(t, ok(t, "get", "-d", dir, "dotted"), "Eve")

	r := runWith(t, `{"id":"from stdin"}`, "import", "jsonl", "-d", dir, "-", "--key", "id", "--json")
	require.Equal(t, exitOK, r.code, r.err)
	var sum importSummary
	require.NoError(t, json.Unmarshal([]byte(r.out), &sum))
	require.EqualValues(t, 1, sum.Keys)
	require.NotZero(t, sum.LSN)
	fails(t, exitError, []string{"import", "jsonl", "-d", dir, "testdata", "--key", "id"}, "is a directory")
	fails(t, exitError, []string{"import", "jsonl", "-d", dir, "testdata/nope", "--key", "id"}, "testdata/nope")
}

// Goal: a bad line is named by file and line; what came before it is there.
func TestImport_badLines(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	fails(t, exitError, []string{"import", "jsonl", "-d", dir, "testdata/bad.jsonl", "--key", "id"}, "testdata/bad.jsonl:2: not a JSON object", "--skip-bad")
	require.Equal(t, "ada\n", ok(t, "scan", "-d", dir, "--keys-only"))
	require.Contains(t, ok(t, "import", "jsonl", "-d", dir, "testdata/bad.jsonl", "--key", "id", "--skip-bad"),
		"imported 2 keys")
	fails(t, exitError, []string{"import", "csv", "-d", dir, "testdata/bad.csv", "--key", "email"}, "testdata/bad.csv:3: wrong number of fields")
	require.Contains(t, ok(t, "import", "csv", "-d", dir, "testdata/bad.csv", "--key", "email", "--skip-bad"),
		"skipped 2 bad")
	fails(t, exitError, []string{"import", "csv", "-d", dir, "testdata/bad.csv", "--key", "phone"}, `no column "phone"; there are email, name`)
}

// Goal: what is no Unicode text is a bad entry, and never another text: keys that differ
// by such bytes would become one key.
func TestImport_notUnicode(t *testing.T) {
	for _, c := range []struct{ input, want, args string }{
		{"{\"id\":\"a\"}\n{\"id\":\"\xff\"}\n{\"id\":\"\xfe\"}\n", "standard input:2: not UTF-8", "jsonl - --key id"},
		{"{\"id\":\"a\"}\n{\"id\":\"\\ud800\"}\n{\"id\":\"\\udc00\\ud800\"}\n", "standard input:2: a \\u escape", "jsonl - --key id"},
		{"{\"key\":\"a\",\"value\":\"\"}\n{\"key\":\"b\",\"value\":\"\xff\"}\n{\"key\":\"\\uDBFFx\",\"value\":\"\"}", "standard input:2: not UTF-8", "jsonl - --native"},
		{"id,v\na,1\nb,\xff\nc,\xe4\n", "standard input:3: not UTF-8", "csv - --key id"},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		args := append([]string{"import"}, strings.Fields(c.args)...)
		r := runWith(t, c.input, append(args, "-d", dir)...)
		require.Equal(t, exitError, r.code)
		require.Contains(t, r.err, c.want)
		require.Contains(t, r.err, "--skip-bad")
		r = runWith(t, c.input, append(args, "-d", dir, "--skip-bad")...)
		require.Equal(t, exitOK, r.code, r.err)
		require.Contains(t, r.out, "imported 1 key,")
		require.Contains(t, r.out, "skipped 2 bad entries")
		require.Equal(t, "a\n", ok(t, "scan", "-d", dir, "--keys-only"))
	}
	dir := filepath.Join(t.TempDir(), "store")
	require.Contains(t, runWith(t, "id,\xff\na,1\n", "import", "csv", "-d", dir, "-", "--key", "id").err, "column 2: not UTF-8")
	// What only looks like half a pair, and a whole one.
	r := runWith(t, `{"id":"\\ud800 \ud83d\ude00"}`, "import", "jsonl", "-d", dir, "-", "--key", "id")
	require.Equal(t, exitOK, r.code, r.err)
	require.Equal(t, `\\ud800 😀`+"\n", ok(t, "scan", "-d", dir, "--keys-only"))
}

// Goal: a row of CSV becomes a JSON object with the columns in order.
func TestImport_csv(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	ok(t, "import", "csv", "-d", dir, "testdata/people.csv", "--key", "email", "--prefix", "p/")
	require.Equal(t, `{"email":"bob@x.org","name":"Bob","note":"two\nlines \"quoted\""}`, ok(t, "get", "-d", dir, "p/bob@x.org"))
	r := runWith(t, "id\tv\n1\ta,b\n", "import", "csv", "-d", dir, "-", "--key", "id", "--delimiter", "tab")
	require.Equal(t, exitOK, r.code, r.err)
	require.Equal(t, `{"id":"1","v":"a,b"}`, ok(t, "get", "-d", dir, "1"))
	require.Contains(t, runWith(t, "", "import", "csv", "-d", dir, "-", "--key", "id").err, "first line must name the columns")
	require.Contains(t, runWith(t, "a,a\n1,2\n", "import", "csv", "-d", dir, "-", "--key", "a").err, "two columns")
}

// Goal: an export as JSON lines, imported again, is the same export but for the
// revisions.
func TestExport_jsonl_roundTrip(t *testing.T) {
	from, to := newStore(t), filepath.Join(t.TempDir(), "to")
	ok(t, "put", "-d", from, "--hex", "00fffe", "binary key")
	ok(t, "put", "-d", from, "empty", "")
	ok(t, "put", "-d", from, "text", "<&>\u2028 \\ \" \n\ufffd")
	file := filepath.Join(t.TempDir(), "all.jsonl")
	require.Contains(t, ok(t, "export", "jsonl", "-d", from, file), "exported 505 keys")
	fails(t, exitError, []string{"export", "jsonl", "-d", from, file}, "--overwrite")
	require.Contains(t, ok(t, "import", "jsonl", "-d", to, file, "--native"), "imported 505 keys")

	lines := func(dir string) (out []keyJSON) {
		for line := range strings.Lines(ok(t, "export", "jsonl", "-d", dir)) {
			var k keyJSON
			require.NoError(t, json.Unmarshal([]byte(line), &k))
			k.Revision = 0
			out = append(out, k)
		}
		return out
	}
	require.Equal(t, lines(from), lines(to))
	r := runWith(t, `{"key":"k"}`+"\n", "import", "jsonl", "-d", to, "-", "--native")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, `standard input:1: no "value"`)
}

// Goal: an interrupt ends an import between two batches, with its own exit code.
func TestImport_interrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := filepath.Join(t.TempDir(), "store")
	var out, errs bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &out, err: &errs}
	code := a.execute(ctx, []string{"import", "tree", "-d", dir, "testdata"})
	require.Equal(t, exitInterrupted, code, errs.String())
	require.Contains(t, errs.String(), "run it again to go on")
	require.Contains(t, ok(t, "check", "-d", dir), "ok: 0 keys")
}
