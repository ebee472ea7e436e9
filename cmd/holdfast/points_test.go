package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/engine"
)

// Goal: what put takes, get gives, byte for byte.
func TestPut_get(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "store") // put makes the parents, too
	ok(t, "put", "-d", dir, "greeting", "hello")
	require.Equal(t, "hello", ok(t, "get", "-d", dir, "greeting"))

	binary := string(noise(300 << 10))
	require.Equal(t, exitOK, runWith(t, binary, "put", "-d", dir, "photo").code)
	require.Equal(t, binary, ok(t, "get", "-d", dir, "photo"))

	ok(t, "put", "-d", dir, "empty", "")
	require.Equal(t, "", ok(t, "get", "-d", dir, "empty"))
	ok(t, "put", "-d", dir, "--", "-5", "--dashes")
	require.Equal(t, "--dashes", ok(t, "get", "-d", dir, "--", "-5"))
	ok(t, "put", "-d", dir, "--hex", "00ff", "binary key")
	require.Equal(t, "binary key", ok(t, "get", "-d", dir, "--hex", "00FF"))
	fails(t, exitNotFound, []string{"get", "-d", dir, "nobody"}, "key nobody: not found")
	fails(t, exitUsage, []string{"put", "-d", dir, strings.Repeat("k", 1<<17), "v"}, "at most 65,536 bytes, not 131,072")
}

// Goal: --json says revision and size, and carries any bytes.
func TestGet_json(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	var put, got keyJSON
	require.NoError(t, json.Unmarshal([]byte(ok(t, "put", "-d", dir, "--json", "k", "<ä>")), &put))
	require.EqualValues(t, 1, put.Revision)
	require.Equal(t, `{"key":"k","value":"<ä>","revision":1,"size":4}`+"\n", ok(t, "get", "-d", dir, "--json", "k"))

	require.Equal(t, exitOK, runWith(t, "\xff\x00", "put", "-d", dir, "--hex", "fe").code)
	require.NoError(t, json.Unmarshal([]byte(ok(t, "get", "-d", dir, "--json", "--hex", "fe")), &got))
	require.Equal(t, "base64", got.Encoding)
	require.Equal(t, "base64", got.KeyEncoding)
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte("\xff\x00")), *got.Value)
	require.EqualValues(t, 2, got.Revision)
}

// Goal: the directory may come from the environment; the flag wins.
func TestPut_environment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	t.Setenv(dirEnv, dir)
	ok(t, "put", "k", "v")
	require.Equal(t, "v", ok(t, "get", "k"))
	fails(t, exitNoStore, []string{"get", "-d", dir + "x", "k"})
}

// Goal: every policy of --sync takes writes, and they are there after the command.
func TestPut_sync(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, policy := range []string{"always", "interval", "never"} {
		ok(t, "put", "-d", dir, "--sync", policy, policy, "v")
		require.Equal(t, "v", ok(t, "get", "-d", dir, policy))
	}
}

// Goal: del takes keys, ranges, prefixes and everything.
func TestDel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, k := range []string{"a/1", "a/2", "b/1", "b/2", "c/1", "c/2", "d"} {
		ok(t, "put", "-d", dir, k, "v")
	}
	left := func() string {
		return strings.Join(strings.Fields(ok(t, "scan", "-d", dir, "--keys-only")), " ")
	}
	ok(t, "del", "-d", dir, "a/1", "d", "never there")
	require.Equal(t, "a/2 b/1 b/2 c/1 c/2", left())
	ok(t, "del", "-d", dir, "--range", "b/2", "c/2")
	require.Equal(t, "a/2 b/1 c/2", left())
	fails(t, exitUsage, []string{"del", "-d", dir, "--range", "z", "a"}, "inverted range")
	ok(t, "del", "-d", dir, "--prefix", "b/")
	require.Equal(t, "a/2 c/2", left())
	require.JSONEq(t, `{"lsn":11}`, ok(t, "del", "-d", dir, "--all", "--json"))
	require.Equal(t, "", left())
}

// Goal: compact gives back the space of a large value that was deleted, and what is left
// reads right.
func TestCompact(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	value := string(noise(8 << 20))
	e, err := engine.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("gone"), []byte(value)))
	require.NoError(t, e.Put([]byte("kept"), []byte(value)))
	require.NoError(t, e.Delete([]byte("gone")))
	require.NoError(t, e.Close())
	var is struct{ Before, After int64 }
	require.NoError(t, json.Unmarshal([]byte(ok(t, "compact", "-d", dir, "--json")), &is))
	require.Greater(t, is.Before, int64(16<<20))
	require.Less(t, is.After, is.Before-7<<20)
	require.True(t, value == ok(t, "get", "-d", dir, "kept"))
	require.Contains(t, ok(t, "compact", "-d", dir), "on disk")
}

// Goal: scan honours every bound, and its text is one line per key whatever is in
// it.
func TestScan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, k := range []string{"a", "b1", "b2", "b3", "c"} {
		ok(t, "put", "-d", dir, k, "v"+k)
	}
	for args, want := range map[string]string{
		"":                                "a b1 b2 b3 c",
		"--reverse":                       "c b3 b2 b1 a",
		"--prefix b":                      "b1 b2 b3",
		"--prefix b --from b2":            "b2 b3",
		"--prefix b --to b2":              "b1",
		"--prefix b --reverse --limit 2":  "b3 b2",
		"--from b2":                       "b2 b3 c",
		"--to b2":                         "a b1",
		"--limit 2":                       "a b1",
		"--hex --from 6232 --to 63":       "b2 b3",
		"--from c --to c":                 "",
		"--prefix x":                      "",
		"--prefix b --from c":             "",
		"--prefix b --from a --to z":      "b1 b2 b3",
		"--memory 16MiB --read-only=true": "a b1 b2 b3 c",
		"--read-only=false":               "a b1 b2 b3 c",
	} {
		got := ok(t, append([]string{"scan", "-d", dir, "--keys-only"}, strings.Fields(args)...)...)
		require.Equal(t, want, strings.Join(strings.Fields(got), " "), args)
	}
	ok(t, "put", "-d", dir, "--hex", "00610a5c", "tab\there\nß \x7f\xff")
	require.Equal(t, `\x00a\n\\`+"\t"+`tab\there\nß \x7f\xff`+"\n", ok(t, "scan", "-d", dir, "--limit", "1"))
	require.Equal(t, `{"key":"a","value":"va","revision":1,"size":2}`+"\n",
		ok(t, "scan", "-d", dir, "--prefix", "a", "--json"))
	require.Equal(t, `{"key":"a","revision":1,"size":2}`+"\n",
		ok(t, "scan", "-d", dir, "--prefix", "a", "--json", "--keys-only"))
}

// Goal: a value of any size goes in and comes out as a stream, whole or in part; stat says
// where it lies.
func TestPut_stream(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for name, value := range map[string]string{
		"noise": string(noise(20 << 20)),
		"json":  strings.Repeat("{\"state\":\"running\"}\n", 1<<20),
	} {
		require.Equal(t, exitOK, runWith(t, value, "put", "-d", dir, name).code)
		require.True(t, value == ok(t, "get", "-d", dir, name))
		for _, r := range []struct {
			arg      string
			from, to int
		}{
			{":", 0, len(value)}, {"0:0", 0, 0}, {":100", 0, 100}, {"131000:200", 131000, 131200},
			{"131072:131072", 131072, 262144}, {"9000000:", 9000000, len(value)},
			{fmt.Sprint(len(value), ":"), len(value), len(value)}, {fmt.Sprint(len(value)-5, ":99"), len(value) - 5, len(value)},
		} {
			require.True(t, value[r.from:r.to] == ok(t, "get", "-d", dir, name, "--range", r.arg), r.arg)
		}
		fails(t, exitUsage, []string{"get", "-d", dir, name, "--range", fmt.Sprint(len(value)+1, ":")}, "the value has")
		var st struct {
			Size, Stored, Offset int64
			Codec                string
			Frames               int
			Pack                 uint64
		}
		require.NoError(t, json.Unmarshal([]byte(ok(t, "stat", "-d", dir, name, "--json")), &st))
		require.EqualValues(t, len(value), st.Size)
		require.Equal(t, (len(value)+131071)/131072, st.Frames)
		require.NotZero(t, st.Pack)
		require.Equal(t, map[string]string{"noise": "raw", "json": "zstd"}[name], st.Codec)
		require.Contains(t, ok(t, "stat", "-d", dir, name), "frames")
	}
	for _, bad := range []string{"5", "a:", ":b", "-1:", ":-1", "1:2:3"} {
		fails(t, exitUsage, []string{"get", "-d", dir, "noise", "--range=" + bad}, "OFFSET:LENGTH")
	}
	require.Equal(t, exitUsage, runWith(t, "", "get", "-d", dir, "noise", "--range", ":1", "--json").code)
}

// flow gives nothing but zeros, or takes all, for so many bytes, and then calls.
type flow struct {
	left int
	then func() error
}

func (f *flow) Read(p []byte) (int, error) {
	if f.left <= 0 {
		return 0, f.then()
	}
	n := min(len(p), f.left)
	f.left -= n
	return n, nil
}

func (f *flow) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left <= 0 {
		if err := f.then(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Goal: a put whose input breaks off, or that is interrupted, also while its input gives
// nothing, leaves the key as it was and no bytes in the store; an interrupted get ends,
// and one whose reader is gone says so.
func TestPut_breaksOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	ok(t, "put", "-d", dir, "k", "before")
	quiet, idle, err := os.Pipe() // gives nothing
	require.NoError(t, err)
	defer quiet.Close()
	defer idle.Close()
	over := make(chan struct{})
	defer close(over)
	for name, in := range map[string]func(cancel func()) io.Reader{
		"error": func(func()) io.Reader { return &flow{20 << 20, func() error { return syscall.EIO }} },
		"interrupted": func(cancel func()) io.Reader {
			return &flow{20 << 20, func() error { cancel(); <-over; return io.EOF }}
		},
		"nothing more": func(cancel func()) io.Reader { time.AfterFunc(50*time.Millisecond, cancel); return quiet },
		"no end": func(cancel func()) io.Reader {
			time.AfterFunc(50*time.Millisecond, cancel)
			return &flow{math.MaxInt, nil}
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var out, errs bytes.Buffer
		a := &app{in: in(cancel), out: &out, err: &errs}
		code := a.execute(ctx, []string{"put", "-d", dir, "k"})
		cancel()
		require.Empty(t, out.String(), name)
		require.Regexp(t, `\Aholdfast: [^\n]+\n\z`, errs.String(), name) // and no bar
		if name == "error" {
			require.Equal(t, exitError, code, errs.String())
			require.Contains(t, errs.String(), "standard input: input/output error")
		} else {
			require.Equal(t, exitInterrupted, code, "%s: %s", name, errs.String())
		}
		require.Equal(t, "before", ok(t, "get", "-d", dir, "k"), name)
		packs, err := filepath.Glob(filepath.Join(dir, "packs", "*"))
		require.NoError(t, err)
		require.Empty(t, packs, name)
	}
	require.Equal(t, exitOK, runWith(t, string(noise(20<<20)), "put", "-d", dir, "k").code)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs bytes.Buffer
	get := func(then func() error) int {
		a := &app{in: strings.NewReader(""), out: &flow{1 << 20, then}, err: &errs}
		return a.execute(ctx, []string{"get", "-d", dir, "k"})
	}
	require.Equal(t, exitError, get(func() error { return syscall.EIO }), errs.String())
	require.Contains(t, errs.String(), "input/output error")
	writes := 0
	require.Equal(t, exitInterrupted, get(func() error { cancel(); writes++; return nil }), errs.String())
	require.Equal(t, 1, writes)
}
