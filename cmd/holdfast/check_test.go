package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/engine"
)

// Goal: a sound store is ok, and the check says what it read.
func TestCheck_sound(t *testing.T) {
	dir := newStore(t)
	require.Contains(t, ok(t, "check", "-d", dir), "ok: 502 keys")
	require.Contains(t, ok(t, "check", "-d", dir, "--read-only=false"), "ok: 502 keys")
	var r checkReport
	require.NoError(t, json.Unmarshal([]byte(ok(t, "check", "-d", dir, "--json")), &r))
	require.True(t, r.OK)
	require.EqualValues(t, 502, r.Keys)
	require.Empty(t, r.Problems)
}

// Goal: damage in each room is exit code 5, one line on standard error, and a
// line per problem that names the file.
func TestCheck_damage(t *testing.T) {
	for name, c := range map[string]struct {
		glob string
		at   func(size int) int
	}{
		"state": {"STATE", func(size int) int { return -1 }},
		"l3":    {"l3/*.sst", func(size int) int { return size / 4 }},
		"pack":  {"packs/*", func(size int) int { return 100 << 10 }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newStore(t)
			files, err := filepath.Glob(filepath.Join(dir, c.glob))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			largest := files[0]
			for _, f := range files {
				if sizeOf(t, f) > sizeOf(t, largest) {
					largest = f
				}
			}
			b, err := os.ReadFile(largest)
			require.NoError(t, err)
			if at := c.at(len(b)); at >= 0 {
				b[at] ^= 0x40
			} else {
				b[100] ^= 0x40 // each of its two slots
				b[4096+100] ^= 0x40
			}
			require.NoError(t, os.WriteFile(largest, b, 0o600))

			out := fails(t, exitCorrupt, []string{"check", "-d", dir}, "corrupt")
			require.Contains(t, out, filepath.Base(largest), "the report names the file")

			r := run(t, "check", "-d", dir, "--json")
			require.Equal(t, exitCorrupt, r.code)
			var got checkReport
			require.NoError(t, json.Unmarshal([]byte(r.out), &got), r.out)
			require.False(t, got.OK)
			require.NotEmpty(t, got.Problems)
		})
	}
}

func sizeOf(t *testing.T, name string) int64 {
	t.Helper()
	i, err := os.Stat(name)
	require.NoError(t, err)
	return i.Size()
}

// Goal: stat describes a store and a key, for people and for scripts.
func TestStat(t *testing.T) {
	dir := newStore(t)
	out := ok(t, "stat", "-d", dir)
	for _, want := range []string{"lsn", "502", "watermark", "501", "map", "1 key,", "L3", "packs", "log"} {
		require.Contains(t, out, want)
	}
	require.Regexp(t, `(?m)^tier +reads +share +bytes +capacity +evicted +rejected$`, out)
	for _, tier := range []string{"map", "filter", "L1", "L2", "L3"} {
		require.Regexp(t, `(?m)^`+tier+` +- +- +[0-9.]+ (B|KiB|MiB) `, out, "nobody has read")
		if tier == "filter" {
			continue // what it answers is a read of nothing
		}
		require.Regexp(t, `(?m)^read from `+tier+` +- +- +- +- +-$`, out)
	}
	require.Regexp(t, `(?m)^process +\d+ goroutines, [0-9.]+ % of CPU`, out)
	var store struct {
		Dir       string
		DiskBytes int64 `json:"disk_bytes"`
		Recovered struct{ LSN uint64 }
		Metrics   struct{ LSN uint64 }
	}
	require.NoError(t, json.Unmarshal([]byte(ok(t, "stat", "-d", dir, "--json")), &store))
	require.EqualValues(t, 502, store.Metrics.LSN)
	require.EqualValues(t, 502, store.Recovered.LSN)
	require.Positive(t, store.DiskBytes)

	require.Regexp(t, `(?m)^tier +map$`, ok(t, "stat", "-d", dir, "greeting"))
	require.Regexp(t, `(?m)^tier +L3$`, ok(t, "stat", "-d", dir, "k001"))
	var key struct {
		Key      string
		Size     int64
		Revision uint64
		Tier     string
		Codec    string
	}
	require.NoError(t, json.Unmarshal([]byte(ok(t, "stat", "-d", dir, "--json", "large")), &key))
	require.Equal(t, "large", key.Key)
	require.EqualValues(t, 200<<10, key.Size)
	require.EqualValues(t, 501, key.Revision)
	require.Equal(t, "raw", key.Codec)
	fails(t, exitNotFound, []string{"stat", "-d", dir, "nobody"}, "nobody", "not found")
}

// Goal: the table of tiers says who answered, what was evicted, and how long it took.
func TestTierGrid(t *testing.T) {
	e, err := engine.Open(t.TempDir(), &engine.Options{MemoryBudget: 16 << 20, Sync: engine.SyncNever})
	require.NoError(t, err)
	defer e.Close()
	const keys = 20_000
	key := func(i int) []byte { return fmt.Appendf(nil, "k%05d", i) }
	for i := range keys {
		require.NoError(t, e.Put(key(i), make([]byte, 300)))
	}
	require.NoError(t, e.Flush(t.Context()))
	before := e.Metrics()
	for i := range keys {
		_, err := e.Get(key(i))
		require.NoError(t, err)
	}
	require.NoError(t, e.Put(key(0), nil))
	for range keys {
		_, err := e.Get(key(0))
		require.NoError(t, err)
	}
	after := e.Metrics()
	tiers := reportTiers(&before, &after, 2*keys)
	var share float64
	for _, r := range tiers {
		share += r.Share
	}
	require.InDelta(t, 1, share, 1e-9)
	require.EqualValues(t, keys, tiers[0].Reads, "the map answered what nobody else did")
	require.EqualValues(t, keys, tiers[4].Reads)
	require.InDelta(t, keys/64, tiers[4].Samples, keys/128)
	require.LessOrEqual(t, tiers[4].P50, tiers[4].P999)
	out := tierGrid(tiers).String()
	require.Regexp(t, `(?m)^map +20,000 +50\.0 % +[0-9.]+ .iB +\d.* +- +-$`, out)
	require.Regexp(t, `(?m)^L1 +- +- +[0-9.]+ .iB +[0-9.]+ .iB +[0-9,]+ +[1-9][0-9,]*$`, out)
	require.Regexp(t, `(?m)^L3 +20,000 +50\.0 % +[0-9.]+ .iB +- +- +-$`, out)
	// Without knowing how many reads there were, the map's own estimate stands.
	require.InDelta(t, keys, reportTiers(&before, &after, 0)[0].Reads, keys/3)

	g := newLatencyGrid("time of")
	g.addLatency("nothing", latencyReport{})
	g.addLatency("read", tiers[4].latencyReport)
	require.Regexp(t, `(?m)^nothing +- +- +- +- +-$`, g.String())
	require.Regexp(t, `(?m)^read( +\S+ ?[mnµ]?s?){5}$`, g.String())
}
