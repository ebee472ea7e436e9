package simfs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// overwritten is a durable file of old bytes, 8 sectors, with unsynced new ones over
// [off, off+n).
func overwritten(t *testing.T, o Options, off, n int64) (fs *FS, was, now []byte) {
	rnd := rand.New(rand.NewPCG(1, 1))
	fs = New(&o)
	was = bytesOf(rnd, 16*SectorSize)
	f := keep(t, fs, "f", was)
	syncDir(t, fs, "/")
	now = bytes.Clone(was)
	copy(now[off:], bytesOf(rnd, int(n)))
	_, err := f.WriteAt(now[off:off+n], off)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return fs, was, now
}

// fates counts what became of each sector of /f.
func fates(fs *FS, was, now []byte) map[string]int {
	seen := map[string]int{}
	for _, img := range fs.CrashImages(1, 300) {
		got := img.Tree()["/f"].Data
		for at := 0; at < len(got); at += SectorSize {
			s := got[at : at+SectorSize]
			how := "garbage"
			switch {
			case bytes.Equal(was[at:at+SectorSize], now[at:at+SectorSize]):
				if bytes.Equal(s, was[at:at+SectorSize]) {
					continue
				}
				how = fmt.Sprintf("touched sector %d", at/SectorSize)
			case bytes.Equal(s, was[at:at+SectorSize]):
				how = "old"
			case bytes.Equal(s, now[at:at+SectorSize]):
				how = "new"
			case bytes.Equal(s, make([]byte, SectorSize)):
				how = "zero"
			}
			seen[how]++
		}
	}
	return seen
}

func keys(m map[string]int) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	return out
}

// Goal: each sector of an unsynced write comes back old, new, zero or garbage, each
// happens, and no other sector is touched.
func TestSector_fates(t *testing.T) {
	fs, was, now := overwritten(t, Options{}, 2*SectorSize, 5*SectorSize)
	require.ElementsMatch(t, []string{"old", "new", "zero", "garbage"}, keys(fates(fs, was, now)))
	fs, was, now = overwritten(t, Options{Damage: DamageNone}, 2*SectorSize, 5*SectorSize)
	require.ElementsMatch(t, []string{"old", "new", "zero"}, keys(fates(fs, was, now)))
}

// Goal: how far damage goes: to the bytes, the sectors, or the pages of the write.
func TestSector_damage(t *testing.T) {
	const off, n = PageSize + 100, 1000
	reach := map[Damage]extent{
		DamageNone:   {off, off + n},
		DamageBytes:  {off, off + n},
		DamageSector: {PageSize, PageSize + 3*SectorSize},
		DamagePage:   {PageSize, 2 * PageSize},
	}
	for d, want := range reach {
		fs, was, _ := overwritten(t, Options{Damage: d}, off, n)
		got := extent{1 << 40, 0}
		for _, img := range fs.CrashImages(1, 100) {
			for i, b := range img.Tree()["/f"].Data {
				if b != was[i] {
					got = extent{min(got.off, int64(i)), max(got.end, int64(i)+1)}
				}
			}
		}
		// A random byte may equal the old one at the very edge.
		require.True(t, want.covers(got), "%d: %v beyond %v", d, got, want)
		require.InDelta(t, want.off, got.off, 8, "%d", d)
		require.InDelta(t, want.end, got.end, 8, "%d", d)
	}
}

// Goal: a sector goes through the writes to it in order; each place happens, and no
// write arrives without the ones before it.
func TestSector_versions(t *testing.T) {
	fs := New(&Options{Damage: DamageNone})
	f := keep(t, fs, "f", []byte("..."))
	syncDir(t, fs, "/")
	for i := range 3 {
		_, err := f.WriteAt([]byte{'x'}, int64(i))
		require.NoError(t, err)
	}
	seen := outcomes(fs, 200, func(t Tree) string { return string(bytes.ReplaceAll(t["/f"].Data, []byte{0}, []byte("0"))) })
	require.ElementsMatch(t, []string{"...", "x..", "xx.", "xxx", "000"}, keys(seen))
	require.NoError(t, f.Close())
}

// Goal: the length goes its own way: zeros where it came first, nothing where it did
// not come, and ends of sectors in between.
func TestSector_length(t *testing.T) {
	fs := New(nil)
	f := keep(t, fs, "f", bytes.Repeat([]byte{1}, 700))
	syncDir(t, fs, "/")
	_, err := f.Write(bytes.Repeat([]byte{2}, 2000))
	require.NoError(t, err)
	seen := outcomes(fs, 500, func(t Tree) string {
		d := t["/f"].Data
		if len(d) == 2700 && bytes.Count(d[700:], []byte{0}) == 2000 {
			return "zeros"
		}
		return fmt.Sprint(len(d))
	})
	require.ElementsMatch(t, []string{"zeros", "700", "1024", "1536", "2048", "2560", "2700"}, keys(seen))
	require.NoError(t, f.Close())
}

// Goal: a preallocated range reads zeros until a write arrives whole; never garbage,
// and it gives the file no length.
func TestSector_preallocated(t *testing.T) {
	fs := New(nil)
	f := keep(t, fs, "f", []byte("head"))
	require.NoError(t, f.Preallocate(0, 8*SectorSize))
	require.NoError(t, f.Sync())
	syncDir(t, fs, "/")
	info, err := f.Stat()
	require.NoError(t, err)
	require.EqualValues(t, 4, info.Size())
	_, err = f.WriteAt(bytes.Repeat([]byte{7}, 4*SectorSize), 2*SectorSize)
	require.NoError(t, err)
	for range 2 { // a boot later it is still preallocated
		zero, whole := 0, 0
		for _, img := range fs.CrashImages(3, 300) {
			d := img.Tree()["/f"].Data
			require.Equal(t, "head", string(d[:4]))
			for at := SectorSize; at < len(d); at += SectorSize {
				s := d[at:min(at+SectorSize, len(d))]
				switch {
				case bytes.Count(s, []byte{0}) == len(s):
					zero++
				case bytes.Count(s, []byte{7}) == len(s):
					whole++
				default:
					t.Fatalf("sector at %d is garbage", at)
				}
			}
		}
		require.NotZero(t, zero)
		require.NotZero(t, whole)
		fs = fs.Crash(CrashConfig{Image: Nothing})
		g, err := fs.OpenReadWrite("f", cat)
		require.NoError(t, err)
		_, err = g.WriteAt(bytes.Repeat([]byte{7}, 4*SectorSize), 2*SectorSize)
		require.NoError(t, err)
		require.NoError(t, g.Close())
	}
	require.NoError(t, f.Close())
}

// Goal: the pages behind a file hold what a plain slice holds, shared or not.
func TestContent_likeSlice(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	var c content
	var plain []byte
	type old struct {
		c content
		p []byte
	}
	var olds []old
	for range 2000 {
		off, n := rnd.Int64N(20000), rnd.Int64N(9000)
		switch rnd.IntN(5) {
		case 0, 1:
			p := bytesOf(rnd, int(n))
			c.writeAt(p, off)
			if more := int(off+n) - len(plain); more > 0 {
				plain = append(plain, make([]byte, more)...)
			}
			copy(plain[off:], p)
		case 2:
			c.zero(off, n)
			if e := min(int(off+n), len(plain)); int(off) < e {
				clear(plain[off:e])
			}
		case 3:
			c.resize(off)
			if int(off) <= len(plain) {
				plain = plain[:off]
			} else {
				plain = append(plain, make([]byte, int(off)-len(plain))...)
			}
		case 4:
			olds = append(olds, old{c.clone(), bytes.Clone(plain)})
		}
		require.True(t, bytes.Equal(plain, c.bytes()))
	}
	for _, o := range olds {
		require.True(t, bytes.Equal(o.p, o.c.bytes()))
	}
}

// Goal: a truncation is unsynced too.
func TestFile_Truncate_unsynced(t *testing.T) {
	fs := New(&Options{Damage: DamageNone})
	f := keep(t, fs, "f", []byte("abcdef"))
	syncDir(t, fs, "/")
	require.NoError(t, f.(*file).Truncate(2))
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
	require.NoError(t, err)
	require.Equal(t, "ab", string(got))
	seen := outcomes(fs, 100, func(t Tree) string { return fmt.Sprintf("%q", t["/f"].Data) })
	require.ElementsMatch(t, []string{`"ab"`, `"abcdef"`, `"ab\x00\x00\x00\x00"`}, keys(seen))
	require.NoError(t, f.Sync())
	require.Equal(t, []string{`"ab"`}, keys(outcomes(fs, 20, func(t Tree) string { return fmt.Sprintf("%q", t["/f"].Data) })))
	require.NoError(t, f.Close())
}
