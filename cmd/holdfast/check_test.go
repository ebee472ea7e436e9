package main

import (
	"bytes"
	"encoding/binary"
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

// Goal: stat says of a large value what it takes, its codec and frames, and in which pack
// and where it lies, as the header that is there says it, too.
func TestStat_large(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	e, err := engine.Open(dir, &engine.Options{MemoryBudget: 16 << 20})
	require.NoError(t, err)
	stream := func(key string, value []byte) {
		w, err := e.Create(t.Context(), []byte(key))
		require.NoError(t, err)
		_, err = w.Write(value)
		require.NoError(t, err)
		require.NoError(t, w.Close())
	}
	state := bytes.Repeat([]byte("{\"state\":\"running\"}\n"), 500_000)
	require.NoError(t, e.Put([]byte("first"), noise(200_001)))
	require.NoError(t, e.Put([]byte("second"), state[:300_000]))
	stream("alone", noise(9<<20))
	stream("json", state)
	require.NoError(t, e.Put([]byte("third"), noise(70_000)))
	require.NoError(t, e.Put([]byte("small"), []byte("hello")))
	require.NoError(t, e.Close())

	type stat struct {
		Size, Stored, Offset int64
		Codec                string
		Frames               int
		Pack                 uint64
	}
	// A header of 64 bytes, the frames, and a footer of 4 bytes for each and for the table.
	raw := func(size int64) int64 { return 64 + size + 4*((size+131071)/131072+1) }
	want := map[string]stat{
		"first":  {Size: 200_001, Stored: raw(200_001), Offset: 4096, Codec: "raw", Frames: 2, Pack: 1},
		"second": {Size: 300_000, Offset: 4096 + (raw(200_001)+7)&^7, Codec: "zstd", Frames: 3, Pack: 1},
		"alone":  {Size: 9 << 20, Stored: raw(9 << 20), Offset: 4096, Codec: "raw", Frames: 72, Pack: 2},
		"json":   {Size: int64(len(state)), Offset: 4096, Codec: "zstd", Frames: 77, Pack: 3},
		"third":  {Size: 70_000, Stored: raw(70_000), Codec: "raw", Frames: 1, Pack: 1},
	}
	for key, want := range want {
		var got stat
		require.NoError(t, json.Unmarshal([]byte(ok(t, "stat", "-d", dir, "--json", key)), &got))
		pack, err := os.ReadFile(filepath.Join(dir, "packs", fmt.Sprintf("%020d.pack", got.Pack)))
		require.NoError(t, err)
		head := pack[got.Offset:][:64]
		require.Equal(t, "HFB1", string(head[:4]), key)
		require.EqualValues(t, got.Pack, binary.LittleEndian.Uint64(head[8:]), key)
		require.EqualValues(t, got.Size, binary.LittleEndian.Uint64(head[24:]), key)
		require.EqualValues(t, got.Stored, binary.LittleEndian.Uint64(head[32:]), key)
		require.EqualValues(t, got.Frames, binary.LittleEndian.Uint32(head[52:]), key)
		switch key {
		case "json": // nothing else is in its pack
			want.Stored = int64(len(pack)) - 4096
			require.Less(t, want.Stored, want.Size/10)
		case "second":
			want.Stored = got.Stored
			require.Less(t, want.Stored, want.Size/10)
		case "third": // behind the two before
			want.Offset = int64(len(pack)) - (want.Stored+7)&^7
		}
		require.Equal(t, want, got, key)

		text := ok(t, "stat", "-d", dir, key)
		for _, line := range []string{
			fmt.Sprintf(`size +%d B \(.+\)`, want.Size), fmt.Sprintf(`stored +%d B( \(.+\))?`, want.Stored),
			"codec +" + want.Codec, fmt.Sprintf("frames +%d", want.Frames),
			fmt.Sprintf("pack +%d, at offset %d", want.Pack, want.Offset),
		} {
			require.Regexp(t, "(?m)^"+line+"$", text, key)
		}
	}
	text := ok(t, "stat", "-d", dir, "small")
	require.Regexp(t, `(?m)^stored +5 B$`, text)
	require.Regexp(t, `(?m)^codec +inline$`, text)
	require.NotContains(t, text, "pack")
	require.NotContains(t, text, "frames")
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
	require.Regexp(t, `(?m)^L1 +- +- +[0-9.]+ .iB +[0-9.]+ .iB +[0-9,]+ +[0-9,]+$`, out)
	require.Regexp(t, `(?m)^L3 +20,000 +50\.0 % +[0-9.]+ .iB +- +- +-$`, out)
	then := after // how many L1 turns away is not ours to say
	then.Cache.Rejects, then.Cache.Refused, then.Cache.Evictions = after.Cache.Rejects+1200, after.Cache.Refused+34, after.Cache.Evictions+5678
	require.Regexp(t, `(?m)^L1 +- +- +[0-9.]+ .iB +[0-9.]+ .iB +5,678 +1,234$`, tierGrid(reportTiers(&after, &then, 0)).String())
	// Without knowing how many reads there were, the map's own estimate stands.
	require.InDelta(t, keys, reportTiers(&before, &after, 0)[0].Reads, keys/3)

	g := newLatencyGrid("time of")
	g.addLatency("nothing", latencyReport{})
	g.addLatency("read", tiers[4].latencyReport)
	require.Regexp(t, `(?m)^nothing +- +- +- +- +-$`, g.String())
	require.Regexp(t, `(?m)^read( +\S+ ?[mnµ]?s?){5}$`, g.String())
}
