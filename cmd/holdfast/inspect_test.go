package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/engine"
)

// Goal: inspect says of every layer what it knows, for people and for scripts, and a
// key that nobody knows is no error.
func TestInspect(t *testing.T) {
	dir := newStore(t)
	out := ok(t, "inspect", "-d", dir, "k001")
	require.Regexp(t, `(?m)^a read +finds the value in L3$`, out)
	require.Regexp(t, `(?m)^active +nothing +- +- +-$`, out)
	require.Regexp(t, `(?m)^L3 \* +value +2 +300 B +300 B$`, out)
	require.Regexp(t, `(?m)^active \* +value `, ok(t, "inspect", "-d", dir, "greeting"))
	require.Contains(t, ok(t, "inspect", "-d", dir, "nobody"), "finds nothing: L3 says that the key is absent")
	require.Regexp(t, `(?m)^pack +blob +501 .*pack \d+ at \d+, raw, \d frames?$`, ok(t, "inspect", "-d", dir, "large"))

	ok(t, "del", "-d", dir, "k001")
	out = ok(t, "inspect", "-d", dir, "k001")
	require.Contains(t, out, "finds nothing: active has a tombstone")
	require.Regexp(t, `(?m)^L3 +value +2 `, out)
	ok(t, "del", "-d", dir, "--all")
	require.Contains(t, ok(t, "inspect", "-d", dir, "k002"), "finds nothing: active has a range delete over the key")

	ok(t, "put", "-d", dir, "--hex", "ff00", "v")
	var is struct {
		Key    string
		KeyEnc string `json:"key_encoding"`
		LSN    uint64
		Found  bool
		Layers []layerJSON
	}
	require.NoError(t, json.Unmarshal([]byte(ok(t, "inspect", "-d", dir, "--hex", "ff00", "--json")), &is))
	require.Equal(t, "base64", is.KeyEnc)
	require.EqualValues(t, 505, is.LSN)
	require.True(t, is.Found)
	require.Equal(t, layerJSON{Layer: "active", Knows: "value", Answers: true, Revision: 505, Size: 1, Stored: 1}, is.Layers[0])
	require.Equal(t, "L3", is.Layers[len(is.Layers)-1].Layer)
}

// Goal: what a cache holds comes with its stamp.
func TestInspect_stamp(t *testing.T) {
	l := engine.Layer{Name: "L1", Tier: engine.TierL1, Knows: engine.KnowsValue, Stamp: 3, Fresh: true, Answers: true, Expiry: 1000}
	require.Equal(t, []string{"L1 *", "value", "-", "0 B", "0 B", "1970-01-01T00:00:01Z", "3, fresh", "-"}, layerCells(&l, 3))
	l.Fresh = false
	require.Equal(t, "3, stale at 5", layerCells(&l, 5)[6])
	require.True(t, isCached(&l))
	require.False(t, isCached(&engine.Layer{Tier: engine.TierL2}))
}

// Goal: where the pack cannot be read, what the layers above know is printed before the
// error.
func TestInspect_damaged(t *testing.T) {
	dir := newStore(t)
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*.pack"))
	require.NoError(t, err)
	require.Len(t, packs, 1)
	b, err := os.ReadFile(packs[0])
	require.NoError(t, err)
	for i := 4096; i < 4096+64; i++ { // the header of the value
		b[i] ^= 0xff
	}
	require.NoError(t, os.WriteFile(packs[0], b, 0o600))
	out := fails(t, exitCorrupt, []string{"inspect", "-d", dir, "large"}, "large", filepath.Base(packs[0]))
	require.Regexp(t, `(?m)^L3 \* +blob +501 `, out)
	require.NotContains(t, out, "\npack")
}

// Goal: numbers stand under each other, and a sparse grid has no empty column.
func TestGrid(t *testing.T) {
	g := &grid{head: []string{"tier", "reads", "time", "x"}, left: 1}
	g.add("map", "1,234", "5 µs", none)
	g.add("L1", "7", "12.25 ms", none)
	require.Equal(t, ""+
		"tier  reads      time  x\n"+
		"map   1,234      5 µs  -\n"+
		"L1        7  12.25 ms  -\n", g.String())
	g.sparse = true
	require.Equal(t, ""+
		"tier  reads      time\n"+
		"map   1,234      5 µs\n"+
		"L1        7  12.25 ms\n", g.String())
}
