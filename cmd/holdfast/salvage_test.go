package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/engine"
)

// damages are ways to break the store of newStore, and the keys that each may cost.
var damages = map[string]struct {
	do    func(t *testing.T, dir string)
	opens bool // the store opens in spite of it
	costs string
	says  []string // of check, on lines of their own
}{
	"STATE": {func(t *testing.T, dir string) {
		flip(t, filepath.Join(dir, "STATE"), 100)
		flip(t, filepath.Join(dir, "STATE"), 4096+100)
	}, false, "", []string{"STATE: offset 0: neither of its two slots verifies"}},
	"STATE missing": {remove("STATE"), false, "", []string{"STATE: missing"}},
	"log":           {remove("log/*.wal"), false, "greeting", []string{"commit 502 is lost"}},
	"block": {func(t *testing.T, dir string) {
		table := largest(t, dir, "l3/*.sst")
		flip(t, table, int(sizeOf(t, table)/4))
	}, true, "k", []string{"block does not verify; it held keys from \"k"}},
	"table missing": {func(t *testing.T, dir string) {
		require.NoError(t, os.Remove(largest(t, dir, "l3/*.sst")))
	}, false, "kl", []string{"missing file; it held keys from \"k000\" to \"large\""}},
	"manifest missing": {remove("l3/MANIFEST-*"), false, "", []string{"no MANIFEST; tables are read by themselves"}},
	"manifest": {func(t *testing.T, dir string) {
		flip(t, largest(t, dir, "l3/MANIFEST-*"), 60)
	}, false, "", []string{"MANIFEST"}},
	"marker missing": {remove("l3/marker.manifest.*"), false, "", nil},
	"pack": {func(t *testing.T, dir string) {
		flip(t, largest(t, dir, "packs/*"), 100<<10)
	}, true, "large", []string{"checksum; the value of key \"large\" is lost"}},
	"pack missing": {remove("packs/*"), true, "large", []string{"the pack is missing; the value of key \"large\" is lost"}},
}

func remove(pattern string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, f := range files {
			require.NoError(t, os.Remove(f))
		}
	}
}

func largest(t *testing.T, dir, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	out := files[0]
	for _, f := range files {
		if sizeOf(t, f) > sizeOf(t, out) {
			out = f
		}
	}
	return out
}

// Goal: whatever is damaged, check says so in lines that name file and cost, and
// salvage gives a store that check finds sound, with every key that was not hit.
func TestSalvage_damages(t *testing.T) {
	for name, c := range damages {
		t.Run(name, func(t *testing.T) {
			dir := newStore(t)
			want := ok(t, "scan", "-d", dir, "--json")
			c.do(t, dir)
			before := tree(t, dir)

			out := fails(t, exitCorrupt, []string{"check", "-d", dir}, "corrupt", "'holdfast salvage "+dir+" NEWDIR' rescues the rest")
			for _, s := range c.says {
				require.Contains(t, out, s)
			}
			var checked checkReport
			require.NoError(t, json.Unmarshal([]byte(run(t, "check", "-d", dir, "--json").out), &checked))
			require.NotNil(t, checked.Salvage)

			dst := filepath.Join(t.TempDir(), "rescued")
			r := run(t, "salvage", dir, dst)
			require.Equal(t, before, tree(t, dir), "the damaged store was changed")
			require.Contains(t, r.out, "rescued ")
			if c.costs == "" && len(c.says) == 0 {
				require.Equal(t, exitOK, r.code, r.err)
			} else {
				require.Equal(t, exitCorrupt, r.code, r.err)
				require.Contains(t, r.out, "lost: ")
				require.Regexp(t, `\Aholdfast: rescued [0-9,]+ keys to [^\n]+\n\z`, r.err)
			}
			require.Contains(t, ok(t, "check", "-d", dst), fmt.Sprintf("ok: %d keys", checked.Salvage.Keys))
			got := ok(t, "scan", "-d", dst, "--json")
			for line := range strings.Lines(want) {
				var k keyJSON
				require.NoError(t, json.Unmarshal([]byte(line), &k))
				hit := strings.ContainsRune(c.costs, rune(k.Key[0])) && c.costs != ""
				if !hit {
					require.Contains(t, got, line, "%s is missing or changed", k.Key)
				}
			}
			for line := range strings.Lines(got) {
				require.Contains(t, want, line, "not what the store had")
			}
		})
	}
}

// Goal: a report as JSON has each loss with its place and its key.
func TestSalvage_json(t *testing.T) {
	dir, dst := rotten(t), filepath.Join(t.TempDir(), "rescued")
	r := run(t, "salvage", dir, dst, "--json")
	require.Equal(t, exitCorrupt, r.code)
	require.True(t, json.Valid([]byte(r.err)), r.err)
	var got salvageJSON
	require.NoError(t, json.Unmarshal([]byte(r.out), &got))
	require.False(t, got.OK)
	require.True(t, got.Exact)
	require.EqualValues(t, 502, got.Keys)
	require.Len(t, got.Lost, 1)
	require.Equal(t, "large", got.Lost[0].Key.Text)
	require.NotNil(t, got.Lost[0].Offset)
	require.FileExists(t, got.Lost[0].File)
}

// Goal: what cannot be salvaged is told with the code that every command has for it, and
// leaves nothing behind.
func TestSalvage_refused(t *testing.T) {
	dir, dst := newStore(t), filepath.Join(t.TempDir(), "rescued")
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{exitUsage, []string{dir}, "salvage wants DIR and NEWDIR, got 1 argument"},
		{exitUsage, []string{dir, dst, "-d", dir}, "not --dir"},
		{exitUsage, []string{dir, filepath.Join(dir, "in")}, "not to be changed"},
		{exitError, []string{dir, dir + "/log"}, "name a new directory"},
		{exitNoStore, []string{dst, dst + "2"}, "there is no store in"},
		{exitNoStore, []string{filepath.Join(dir, "STATE"), dst}, "is not a directory"},
		{exitNoStore, []string{t.TempDir(), dst}, "there is no store in"},
	} {
		fails(t, c.code, append([]string{"salvage"}, c.args...), c.want)
		require.NoDirExists(t, dst)
	}
	e, err := engine.Open(dir, nil)
	require.NoError(t, err)
	fails(t, exitLocked, []string{"salvage", dir, dst}, "is locked")
	require.NoError(t, e.Close())
	require.NoDirExists(t, dst)
	require.Contains(t, ok(t, "salvage", dir, dst), "rescued 502 keys")
	require.Contains(t, ok(t, "salvage", "--help"), "Examples:")

	noise := strings.Repeat("\xa5", 64<<10)
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" || d.Name() == "STATE" {
			return err
		}
		return os.WriteFile(p, []byte(noise), 0o600)
	}))
	fails(t, exitCorrupt, []string{"salvage", dir, dst + "3"}, "can be rescued")
	require.NoDirExists(t, dst+"3")
	fails(t, exitCorrupt, []string{"check", "-d", dir}, "nothing in it can be rescued")
}
