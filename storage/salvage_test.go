package storage

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// remnant reads the largest table of a folder by itself.
func remnant(t *testing.T, o Options) (entries map[string]string, lost []LostBlock, file string) {
	t.Helper()
	r, err := OpenRemains(o)
	require.NoError(t, err)
	var big *Remnant
	for i := range r.Tables {
		if big == nil || r.Tables[i].Size > big.Size {
			big = &r.Tables[i]
		}
	}
	it, err := r.Open(big)
	require.NoError(t, err)
	entries = map[string]string{}
	for it.Next() {
		entries[string(it.Key())] = string(it.Cell())
	}
	require.NoError(t, it.Err())
	lost = it.Lost()
	require.NoError(t, it.Close())
	return entries, lost, big.File
}

// Goal: a flip anywhere in a table costs at most the block that it hits, and what is
// missing lies between the keys that the loss names; a damaged index or footer costs
// nothing, because the blocks are found without them.
func TestRemains_flips(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	s := mustOpen(t, o)
	mustIngest(t, s, 1, sets(2000, "key%04d", strings.Repeat("v", 100)))
	require.NoError(t, s.Close())
	want, lost, file := remnant(t, o)
	require.Len(t, want, 2000)
	require.Empty(t, lost)
	clean := readFile(t, mem, file)
	indexless := 0
	for at, step := 0, 1511; at < len(clean); at += step {
		if at > len(clean)-2000 { // index, properties, footer
			step = 61
		}
		bad := append([]byte(nil), clean...)
		bad[at] ^= 0x10
		writeFile(t, mem, file, bad)
		got, lost, _ := remnant(t, o)
		for k, v := range got {
			require.Equal(t, want[k], v, "flip at %d: key %s", at, k)
		}
		require.Less(t, len(want)-len(got), 200, "flip at %d", at)
		for k := range want {
			if _, ok := got[k]; ok {
				continue
			}
			require.NotEmpty(t, lost)
			l := lost[0]
			require.True(t, k > string(l.Lower) && (l.Upper == nil || k <= string(l.Upper)), "flip at %d: %s is not in %q to %q", at, k, l.Lower, l.Upper)
			require.True(t, int64(at) >= l.Offset && int64(at) <= l.Offset+l.Bytes+5, "the loss is at %d, the flip at %d", l.Offset, at)
		}
		if len(lost) > 0 && len(got) == len(want) {
			indexless++
		}
	}
	require.Positive(t, indexless, "no flip hit index or footer")
	for _, cut := range []int{len(clean) - 1, len(clean) - 100, len(clean) / 2} {
		writeFile(t, mem, file, clean[:cut])
		got, lost, _ := remnant(t, o)
		require.NotEmpty(t, lost)
		require.Greater(t, len(got), cut*2000/len(clean)-200, "cut at %d", cut)
	}
}

// Goal: the manifest names the live tables with their bounds and sequence numbers, as
// Pebble itself sees them; cut anywhere it gives a prefix and never panics.
func TestRemains_manifest(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	s := mustOpen(t, o)
	rest(s)
	for i := range 4 {
		mustIngest(t, s, uint64(i+1), sets(300, fmt.Sprintf("k%d-%%04d", i%2), strings.Repeat("v", 100)))
	}
	type table struct{ size, first, last uint64 }
	want := map[uint64]table{}
	levels, err := s.db.SSTables()
	require.NoError(t, err)
	for _, l := range levels {
		for _, f := range l {
			want[uint64(f.BackingSSTNum)] = table{f.Size, uint64(f.SmallestSeqNum), uint64(f.LargestSeqNum)}
		}
	}
	require.NoError(t, s.Close())
	r, err := OpenRemains(o)
	require.NoError(t, err)
	require.NoError(t, r.Manifest.Err)
	got := map[uint64]table{}
	for _, f := range r.Tables {
		if f.Named {
			require.Equal(t, f.Size, f.NamedSize)
			got[f.Number] = table{uint64(f.NamedSize), f.First, f.Last}
		}
	}
	require.Equal(t, want, got)
	clean := readFile(t, mem, r.Manifest.File)
	edits := r.Manifest.Edits
	for n := 0; n < len(clean); n += 1 + len(clean)/100 {
		writeFile(t, mem, r.Manifest.File, clean[:n])
		r, err := OpenRemains(o)
		require.NoError(t, err)
		require.LessOrEqual(t, r.Manifest.Edits, edits)
		bad := append([]byte(nil), clean...)
		bad[n] ^= 0x20
		writeFile(t, mem, r.Manifest.File, bad)
		_, err = OpenRemains(o)
		require.NoError(t, err)
	}
	require.ErrorIs(t, func() error { _, err := OpenRemains(Options{FS: mem, Dir: "none"}); return err }(), ErrNoRemains)
}
