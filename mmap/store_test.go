package mmap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

var testUUID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}

// disk opens a store on the real disk; fix the rest of the options with opt.
func disk(t testing.TB, opt ...func(*Options)) (*Store, string) {
	t.Helper()
	o := Options{FS: vfs.Default, Dir: filepath.Join(t.TempDir(), "packs"), UUID: testUUID, OwnerEpoch: 3}
	for _, f := range opt {
		f(&o)
	}
	s, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, o.Dir
}

// value makes n bytes; the kinds differ in how well they compress.
func value(kind string, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		switch kind {
		case "text":
			b = fmt.Appendf(b, `{"id":%d,"state":"running","step":%d},`, r.IntN(1e6), len(b))
		case "zeros":
			b = append(b, make([]byte, 64)...)
		default:
			for v := r.Uint64(); v != 0; v >>= 8 {
				b = append(b, byte(v))
			}
		}
	}
	return b[:n:n]
}

var kinds = []string{"text", "zeros", "random"}

var sizes = []int{0, 1, 100, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128<<10 - 1, 128 << 10, 128<<10 + 1, 1 << 20, 5 << 20}

func put(t testing.TB, s *Store, v []byte) []byte {
	t.Helper()
	ref, err := s.Write(v)
	require.NoError(t, err)
	require.Len(t, ref, RefLen)
	return ref
}

func get(s *Store, ref []byte) ([]byte, error) {
	b, err := s.Open(ref)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return b.AppendTo(nil)
}

func view(s *Store, ref []byte) (out []byte, err error) {
	b, err := s.Open(ref)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	err = b.View(func(v []byte) error { out = bytes.Clone(v); return nil })
	return out, err
}

func same(t testing.TB, want, got []byte) {
	t.Helper()
	if !bytes.Equal(want, got) { // testify would print megabytes
		t.Fatalf("value differs: %d bytes, want %d", len(got), len(want))
	}
}

func TestStore_Write_roundTrip(t *testing.T) {
	// The goal: every size and kind comes back through every way to read it,
	// before the sync, after it, and after reopening.
	for _, c := range []Compression{Auto, None, Fast, Best} {
		for _, noMap := range []bool{false, true} {
			t.Run(fmt.Sprintf("compression=%v/noMap=%v", c, noMap), func(t *testing.T) {
				s, dir := disk(t, func(o *Options) { o.Compression, o.NoMap = c, noMap; o.PackBytes = 512 << 10 })
				type entry struct{ v, ref []byte }
				var all []entry
				check := func(s *Store) {
					for _, e := range all {
						got, err := view(s, e.ref)
						require.NoError(t, err)
						same(t, e.v, got)
						b, err := s.Open(e.ref)
						require.NoError(t, err)
						require.EqualValues(t, len(e.v), b.Size())
						got, err = b.AppendTo([]byte("head"))
						require.NoError(t, err)
						same(t, append([]byte("head"), e.v...), got)
						require.NoError(t, b.Close())
						require.NoError(t, b.Close())
						_, err = b.AppendTo(nil)
						require.ErrorIs(t, err, ErrClosed)
						require.NoError(t, s.Exists(e.ref))
						require.NoError(t, s.Verify(e.ref))
					}
				}
				for _, n := range sizes {
					for _, kind := range kinds {
						if n > 1<<20 && (raceEnabled || kind != "text" && (c == Best || noMap)) || n == 1<<20 && raceEnabled && kind != "text" {
							continue // seconds, and nothing new
						}
						v := value(kind, n)
						keep := bytes.Clone(v)
						all = append(all, entry{keep, put(t, s, v)})
						same(t, keep, v) // a write must not change what it is given
					}
				}
				check(s)
				require.NoError(t, s.Sync())
				check(s)
				m := s.Metrics()
				require.Greater(t, m.Packs, 1, "rotated")
				require.Equal(t, noMap, m.MappingsMade == 0)
				switch c {
				case None:
					require.Zero(t, m.ZstdBlobs)
				default:
					require.NotZero(t, m.ZstdBlobs)
					require.NotZero(t, m.RawBlobs, "random bytes stay raw")
				}
				high := s.High()
				require.NoError(t, s.Close())

				s2, err := Open(Options{FS: vfs.Default, Dir: dir, UUID: testUUID, NoMap: noMap, ReadOnly: true})
				require.NoError(t, err)
				defer s2.Close()
				require.Equal(t, high, s2.High())
				check(s2)
				_, err = s2.Write(nil)
				require.ErrorIs(t, err, ErrReadOnly)
				require.NoError(t, s2.Sync())
			})
		}
	}
}

func TestBlob_zstdTool(t *testing.T) {
	// The goal: what the format claims. The tool decodes our frames, skips our
	// table, and the table says where each frame is.
	tool, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("no zstd tool here: the public format was not checked against it")
	}
	s, dir := disk(t, func(o *Options) { o.Compression = Fast })
	for i, n := range []int{1000, 128 << 10, 300_000, 5 << 20, 2 << 20, 9 << 20, 9 << 20} {
		v := value("text", n)
		var ref []byte
		switch i {
		case 4, 5: // in a shared pack, and in one of its own
			ref, err = streamed(s, v, 0)
		case 6: // with a stretch that does not shrink
			copy(v[4<<20:], value("random", 1<<20))
			ref, err = streamed(s, v, 0)
		default:
			ref, err = s.Write(v)
		}
		require.NoError(t, err)
		r, err := DecodeRef(ref)
		require.NoError(t, err)
		require.Equal(t, Zstd, r.Codec)
		pack, err := os.ReadFile(filepath.Join(dir, packName(r.Pack)))
		require.NoError(t, err)
		count := frames(r.Size, defaultFrameBytes)
		blob := pack[r.Offset:][:r.Stored]
		seekable := blob[blobHeaderLen : uint64(len(blob))-(count+1)*4]

		cmd := exec.Command(tool, "-d", "-c")
		cmd.Stdin = bytes.NewReader(seekable)
		out, err := cmd.Output()
		require.NoError(t, err)
		same(t, v, out)

		// Frame by frame, as a reader of the seekable format would.
		foot := seekable[len(seekable)-9:]
		require.Equal(t, []byte{0xB1, 0xEA, 0x92, 0x8F}, foot[5:])
		require.Equal(t, byte(0x80), foot[4])
		require.Equal(t, byte(count), foot[0])
		table := seekable[len(seekable)-9-int(count)*12:]
		var at, from int
		for i := range int(count) {
			e := table[i*12:]
			stored, size := int(e[0])|int(e[1])<<8|int(e[2])<<16, int(e[4])|int(e[5])<<8|int(e[6])<<16
			cmd := exec.Command(tool, "-d", "-c")
			cmd.Stdin = bytes.NewReader(seekable[at : at+stored])
			out, err := cmd.Output()
			require.NoError(t, err)
			same(t, v[from:from+size], out)
			at, from = at+stored, from+size
			if i > 3 {
				break
			}
		}
	}
}

func TestBlob_ReadAt(t *testing.T) {
	for _, c := range []Compression{None, Fast} {
		for _, noMap := range []bool{false, true} {
			s, _ := disk(t, func(o *Options) { o.Compression, o.NoMap, o.FrameBytes = c, noMap, 8<<10 })
			r := rand.New(rand.NewPCG(1, 2))
			for _, n := range []int{0, 1, 8 << 10, 100_001} {
				v := value("text", n)
				b, err := s.Open(put(t, s, v))
				require.NoError(t, err)
				require.NoError(t, s.Sync())
				model := bytes.NewReader(v)
				for range 400 {
					off := int64(r.IntN(n + 10))
					p := make([]byte, r.IntN(1+r.IntN(n+20)))
					q := bytes.Clone(p)
					wantN, wantErr := model.ReadAt(q, off)
					if len(p) == 0 {
						wantErr = nil
					}
					gotN, err := b.ReadAt(p, off)
					require.Equal(t, wantErr, err)
					require.Equal(t, wantN, gotN)
					same(t, q, p)
				}
				_, err = b.ReadAt(nil, -1)
				require.Error(t, err)
				got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
				require.NoError(t, err)
				same(t, v, got)
				require.NoError(t, b.Close())
			}
		}
	}
}

func TestBlob_View_passesThrough(t *testing.T) {
	// The goal: what fn does is its own affair, and a panic leaves no pin.
	s, _ := disk(t)
	ref := put(t, s, value("random", 70_000))
	require.NoError(t, s.Sync())
	b, err := s.Open(ref)
	require.NoError(t, err)
	mine := errors.New("mine")
	require.Equal(t, mine, b.View(func([]byte) error { return mine }))
	require.True(t, b.Mapped())
	require.PanicsWithValue(t, "mine", func() { _ = b.View(func([]byte) error { panic("mine") }) })
	require.Panics(t, func() {
		_ = b.View(func([]byte) error {
			var p *int
			*p = 1 // a fault, but none of ours
			return nil
		})
	})
	// Re-entrant, and closed from inside.
	require.NoError(t, b.View(func(v []byte) error {
		require.NoError(t, b.View(func(w []byte) error { same(t, v, w); return nil }))
		require.NoError(t, b.Close())
		require.NotZero(t, v[0]|v[1]|v[2]) // still there
		return nil
	}))
	require.Zero(t, s.Metrics().Pins)
	require.ErrorIs(t, b.View(nil), ErrClosed)
}

func TestStore_MaxMapped(t *testing.T) {
	// The goal: I10. Never more mappings, and never more resident in them, than
	// allowed, whoever pins, and what finds no place is read all the same.
	for _, byCount := range []bool{false, true} {
		s, _ := disk(t, func(o *Options) {
			o.Compression = None
			if byCount {
				o.MaxMappings = 3
			} else {
				o.MaxMappedBytes = 300_000
			}
		})
		var refs [][]byte
		var want [][]byte
		for i := range 10 {
			want = append(want, value("random", 80_000+i))
			refs = append(refs, put(t, s, want[i]))
		}
		require.NoError(t, s.Sync())
		bound := func() {
			m := s.Metrics()
			if byCount {
				require.LessOrEqual(t, m.Mappings, 3)
			} else {
				require.LessOrEqual(t, m.ResidentBytes, int64(300_000))
			}
			require.LessOrEqual(t, m.ResidentBytes, m.MappedBytes)
		}
		for range 2 {
			for i, ref := range refs {
				got, err := view(s, ref)
				require.NoError(t, err)
				same(t, want[i], got)
				bound()
			}
		}
		require.Equal(t, byCount, s.Metrics().MappingsGone > 0)
		require.Equal(t, byCount, s.Metrics().GivenBack == 0)
		var open []*Blob
		for i, ref := range refs {
			b, err := s.Open(ref)
			require.NoError(t, err)
			require.NoError(t, b.View(func(v []byte) error { same(t, want[i], v); return nil }))
			open = append(open, b)
			bound()
		}
		require.Equal(t, byCount, s.Metrics().MapRefused > 0)
		for _, b := range open {
			require.NoError(t, b.Close())
		}
		s.DropMappings()
		require.Zero(t, s.Metrics().MappedBytes)
		require.Zero(t, s.Metrics().ResidentBytes)
		require.Zero(t, s.Metrics().Mappings)
		require.NoError(t, s.Close())
	}
}

func maps(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("no /proc")
	}
	return strings.Count(string(b), packSuffix)
}

func TestStore_Close_pinned(t *testing.T) {
	// The goal: M7. A pinned value outlives Close, also one that was not mapped
	// yet; afterwards nothing is left.
	s, _ := disk(t)
	v := value("random", 200_000)
	ref := put(t, s, v)
	require.NoError(t, s.Sync())
	a, err := s.Open(ref)
	require.NoError(t, err)
	require.NoError(t, a.View(func(w []byte) error { same(t, v, w); return nil }))
	b, err := s.Open(ref)
	require.NoError(t, err)
	late, err := s.Open(put(t, s, v))
	require.NoError(t, err)
	require.NoError(t, a.View(func([]byte) error {
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		return nil
	}))
	_, err = s.Open(ref)
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.Write(v)
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, s.Sync(), ErrClosed)
	require.Equal(t, 1, maps(t))
	for _, x := range []*Blob{a, b, late} {
		require.NoError(t, x.View(func(w []byte) error { same(t, v, w); return nil }))
		got, err := x.AppendTo(nil)
		require.NoError(t, err)
		same(t, v, got)
	}
	for _, x := range []*Blob{a, b, late} {
		require.NoError(t, x.Close())
	}
	require.Zero(t, maps(t))
	m := s.Metrics()
	require.Zero(t, m.Mappings)
	require.Zero(t, m.MappedBytes)
	require.Zero(t, m.OpenPacks)
}

func TestStore_concurrent(t *testing.T) {
	s, _ := disk(t, func(o *Options) { o.PackBytes = 2 << 20; o.MaxMappedBytes = 1 << 20; o.MaxMappings = 8 })
	type entry struct{ v, ref []byte }
	var mu sync.Mutex
	var all []entry
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 30 {
				v := value(kinds[(g+i)%3], 64<<10+i*1000+g)
				ref, err := s.Write(v)
				require.NoError(t, err)
				require.NoError(t, s.Sync())
				mu.Lock()
				all = append(all, entry{v, ref})
				mu.Unlock()
			}
		})
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for n := 0; n < 200; {
				mu.Lock()
				if len(all) == 0 {
					mu.Unlock()
					runtime.Gosched()
					continue
				}
				n++
				e := all[r.IntN(len(all))]
				mu.Unlock()
				b, err := s.Open(e.ref)
				require.NoError(t, err)
				switch r.IntN(4) {
				case 0:
					got, err := b.AppendTo(nil)
					require.NoError(t, err)
					same(t, e.v, got)
				case 1:
					p := make([]byte, 500)
					off := r.IntN(len(e.v) - 500)
					_, err := b.ReadAt(p, int64(off))
					require.NoError(t, err)
					same(t, e.v[off:off+500], p)
				default:
					require.NoError(t, b.View(func(v []byte) error { same(t, e.v, v); return nil }))
				}
				require.NoError(t, b.Close())
			}
		})
	}
	wg.Go(func() {
		for range 10 {
			require.NoError(t, s.Seal())
			s.DropMappings()
		}
	})
	wg.Wait()
	m := s.Metrics()
	require.Zero(t, m.Pins)
	require.NotZero(t, m.MappingsMade)
	require.LessOrEqual(t, m.Syncs, m.Blobs+10)
	t.Logf("%+v", m)
	for _, e := range all {
		require.NoError(t, s.Verify(e.ref))
	}
}

func TestStore_LinkTo(t *testing.T) {
	s, _ := disk(t)
	v := value("text", 300_000)
	ref := put(t, s, v)
	r, err := DecodeRef(ref)
	require.NoError(t, err)
	want := map[uint64]bool{r.Pack: true, 999: false}
	dst := filepath.Join(t.TempDir(), "copy", "packs")
	require.ErrorIs(t, s.LinkTo(vfs.Default, dst, want), ErrNotSealed)
	require.NoError(t, s.Seal())
	require.NoError(t, s.Seal())
	ref2 := put(t, s, v)
	r2, _ := DecodeRef(ref2)
	require.Greater(t, r2.Pack, r.Pack, "sealed: the next write begins a pack")
	require.NoError(t, s.LinkTo(vfs.Default, dst, want))
	require.ErrorIs(t, s.LinkTo(vfs.Default, dst, map[uint64]bool{77: true}), ErrMissing)
	a, err := os.Stat(filepath.Join(dst, packName(r.Pack)))
	require.NoError(t, err)
	require.EqualValues(t, 2, a.Sys().(*syscall.Stat_t).Nlink)

	// Where links do not reach, a copy.
	mem := vfs.NewCrashableMem()
	require.NoError(t, mem.MkdirAll("", 0o755))
	require.NoError(t, s.LinkTo(mem, "packs", want))
	for _, o := range []Options{
		{FS: vfs.Default, Dir: dst, UUID: testUUID, ReadOnly: true},
		{FS: mem, Dir: "packs", UUID: testUUID, ReadOnly: true},
	} {
		c, err := Open(o)
		require.NoError(t, err)
		require.NoError(t, c.Verify(ref))
		require.ErrorIs(t, c.Verify(ref2), ErrMissing)
		require.NoError(t, c.Close())
	}
	names, err := mem.List("packs")
	require.NoError(t, err)
	require.Equal(t, []string{packName(r.Pack)}, names)
}

func TestStore_Remove(t *testing.T) {
	// The goal: I7. A removed pack is gone for new readers and whole for those
	// who have it pinned; then nothing is left of it.
	s, dir := disk(t, func(o *Options) { o.Compression = None })
	v := value("random", 100_000)
	ref, unpinned := put(t, s, v), put(t, s, v)
	require.ErrorIs(t, s.Remove(1), ErrNotSealed)
	require.NoError(t, s.Seal())
	for _, r := range [][]byte{ref, unpinned} {
		require.ErrorIs(t, s.Remove(1), ErrPending)
		s.Settle(r)
	}
	_, err := view(s, unpinned)
	require.NoError(t, err)
	mapped, err := s.Open(ref)
	require.NoError(t, err)
	require.NoError(t, mapped.View(func([]byte) error { return nil }))
	plain, err := s.Open(unpinned)
	require.NoError(t, err)
	require.NoError(t, s.Remove(1))
	require.ErrorIs(t, s.Remove(1), ErrMissing)
	_, err = s.Open(ref)
	require.ErrorIs(t, err, ErrMissing)
	require.NoFileExists(t, filepath.Join(dir, packName(1)))
	for _, b := range []*Blob{mapped, plain} {
		require.NoError(t, b.View(func(w []byte) error { same(t, v, w); return nil }))
		require.NoError(t, b.Close())
	}
	m := s.Metrics()
	require.Zero(t, m.Mappings)
	require.Zero(t, m.OpenPacks)
	require.Zero(t, m.Packs)
	r, err := DecodeRef(put(t, s, v))
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Pack)
}

func TestOpen_numbers(t *testing.T) {
	// The goal: M1. No number comes back, whatever is in the folder.
	s, dir := disk(t, func(o *Options) { o.NextPack = 10 })
	require.EqualValues(t, 9, s.High())
	r, err := DecodeRef(put(t, s, []byte("x")))
	require.NoError(t, err)
	require.EqualValues(t, 10, r.Pack)
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, packName(20)+".tmp"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o644))
	s, err = Open(Options{FS: vfs.Default, Dir: dir, UUID: testUUID, NextPack: 3})
	require.NoError(t, err)
	require.EqualValues(t, 20, s.High())
	require.Equal(t, []uint64{10}, s.Packs())
	r2, err := DecodeRef(put(t, s, []byte("y")))
	require.NoError(t, err)
	require.EqualValues(t, 21, r2.Pack)
	require.NoError(t, s.Close())

	for _, o := range []Options{{}, {FS: vfs.Default, Dir: dir, FrameBytes: 1}, {FS: vfs.Default, Dir: dir, Compression: 9}, {FS: vfs.Default, Dir: dir, PackBytes: -1}} {
		_, err := Open(o)
		require.Error(t, err)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "18446744073709551615.pack"), nil, 0o644))
	_, err = Open(Options{FS: vfs.Default, Dir: dir, UUID: testUUID})
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestStore_manyPacks(t *testing.T) {
	// The goal: idle packs do not keep all their files open.
	s, _ := disk(t, func(o *Options) { o.PackBytes = 1; o.Compression = None })
	var refs [][]byte
	for i := range maxOpenPacks + 40 {
		refs = append(refs, put(t, s, []byte{byte(i)}))
	}
	require.NoError(t, s.Seal())
	for range 2 {
		for i, ref := range refs {
			got, err := get(s, ref)
			require.NoError(t, err)
			require.Equal(t, []byte{byte(i)}, got)
		}
	}
	require.LessOrEqual(t, s.Metrics().OpenPacks, maxOpenPacks+1)
	require.Len(t, s.Packs(), len(refs))
	require.True(t, slices.Contains(s.Packs(), s.High()))
}
