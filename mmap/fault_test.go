package mmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// typed says whether the error is one that the package promises.
func typed(err error) bool {
	for _, e := range []error{ErrCorrupt, ErrMissing, ErrForeign, ErrVersion} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// image is a pack in memory with the blobs in it.
type image struct {
	pack   []byte
	values [][]byte
	refs   [][]byte
}

func makeImage(t testing.TB) image { return makeImageOf(t, None, Fast, None) }

func makeImageOf(t testing.TB, compressions ...Compression) image {
	fs := vfs.NewMem()
	var im image
	s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, FrameBytes: minFrameBytes})
	require.NoError(t, err)
	// Both codecs in one pack: the option changes under way.
	for i, c := range compressions {
		s.o.Compression = c
		v := value("text", []int{5000, 20_000, 10}[i])
		im.values = append(im.values, v)
		im.refs = append(im.refs, put(t, s, v))
	}
	require.NoError(t, s.Close())
	im.pack = readMem(t, fs, "packs/"+packName(1))
	return im
}

func readMem(t testing.TB, fs vfs.FS, name string) []byte {
	f, err := fs.Open(name)
	require.NoError(t, err)
	defer f.Close()
	fi, err := f.Stat()
	require.NoError(t, err)
	b := make([]byte, fi.Size())
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	return b
}

// memStore opens a store over one pack with these bytes.
func memStore(t testing.TB, pack []byte, num uint64) *Store {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("packs", 0o755))
	f, err := fs.Create("packs/"+packName(num), diskCategory)
	require.NoError(t, err)
	_, err = f.Write(bytes.Clone(pack))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, ReadOnly: true})
	require.NoError(t, err)
	return s
}

// harmless reads everything every way: right bytes or a typed error.
func (im image) harmless(t testing.TB, s *Store, what string) (errs int) {
	for i, ref := range im.refs {
		for how, read := range map[string]func() ([]byte, error){
			"AppendTo": func() ([]byte, error) { return get(s, ref) },
			"View":     func() ([]byte, error) { return view(s, ref) },
			"ReadAt": func() ([]byte, error) {
				b, err := s.Open(ref)
				if err != nil {
					return nil, err
				}
				defer b.Close()
				p := make([]byte, len(im.values[i]))
				for at := 0; at < len(p); at += 3000 {
					if _, err := b.ReadAt(p[at:min(at+3000, len(p))], int64(at)); err != nil {
						return nil, err
					}
				}
				return p, nil
			},
			"Verify": func() ([]byte, error) { return im.values[i], s.Verify(ref) },
			"Exists": func() ([]byte, error) { return im.values[i], s.Exists(ref) },
		} {
			got, err := read()
			if err != nil {
				errs++
				if !typed(err) {
					t.Fatalf("%s: %s: %v", what, how, err)
				}
			} else if !bytes.Equal(got, im.values[i]) {
				t.Fatalf("%s: %s: wrong bytes", what, how)
			}
		}
	}
	return errs
}

func TestStore_flip_everyByte(t *testing.T) {
	// The goal: F-30. Each byte of a pack, flipped, is noticed or harmless.
	im := makeImage(t)
	require.Zero(t, im.harmless(t, memStore(t, im.pack, 1), "untouched"))
	var noticed int
	step := 1
	if testing.Short() || raceEnabled {
		step = 29
	}
	for i := 0; i < len(im.pack); i += step {
		bad := bytes.Clone(im.pack)
		bad[i] ^= 1 << (i % 8)
		s := memStore(t, bad, 1)
		if im.harmless(t, s, fmt.Sprint("flip at ", i)) > 0 {
			noticed++
		}
		require.NoError(t, s.Close())
	}
	// Only the padding after a blob, seven bytes at most, is nobody's.
	require.Greater(t, noticed*step, len(im.pack)-8*len(im.refs)-step)
	t.Logf("%d bytes, %d flips noticed", len(im.pack), noticed)
}

func TestStore_cutAndZeroed(t *testing.T) {
	// The goal: F-31, F-32, F-33 and F-38.
	im := makeImage(t)
	for n := 0; n < len(im.pack); n += 61 {
		s := memStore(t, im.pack[:n], 1)
		require.NotZero(t, im.harmless(t, s, fmt.Sprint("cut at ", n)))
		require.NoError(t, s.Close())
	}
	for n := 0; n+512 <= len(im.pack); n += 512 {
		bad := bytes.Clone(im.pack)
		clear(bad[n : n+512])
		s := memStore(t, bad, 1)
		im.harmless(t, s, fmt.Sprint("zeros at ", n))
		require.NoError(t, s.Close())
		bad = bytes.Clone(im.pack)
		copy(bad[4096:4608], im.pack[n:])
		s = memStore(t, bad, 1)
		im.harmless(t, s, fmt.Sprint("sector copied from ", n))
		require.NoError(t, s.Close())
	}
	s := memStore(t, append(bytes.Clone(im.pack), "garbage behind the end"...), 1)
	require.Zero(t, im.harmless(t, s, "longer"))
	require.NoError(t, s.Close())
}

func TestStore_foreign(t *testing.T) {
	// The goal: F-34 to F-37. A pack of another store, under another number,
	// of another format, or a blob in another's place is not read.
	im := makeImage(t)
	r, err := DecodeRef(im.refs[0])
	require.NoError(t, err)

	fix := func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[packHeaderLen-4:], checksum(b[:packHeaderLen-4]))
		return b
	}
	bad := bytes.Clone(im.pack)
	bad[20] ^= 1
	require.ErrorIs(t, memStore(t, fix(bad), 1).Verify(im.refs[0]), ErrForeign)

	bad = bytes.Clone(im.pack)
	bad[8] = 3
	require.ErrorIs(t, memStore(t, fix(bad), 1).Verify(im.refs[0]), ErrVersion)
	bad[8] = rewrittenFormat // and no table
	require.ErrorIs(t, memStore(t, fix(bad), 1).Verify(im.refs[0]), ErrCorrupt)

	// The file of pack 1 under the name of pack 2.
	r2 := r
	r2.Pack = 2
	require.ErrorIs(t, memStore(t, im.pack, 2).Verify(r2.append(nil)), ErrCorrupt)
	require.ErrorIs(t, memStore(t, im.pack, 1).Verify(r2.append(nil)), ErrMissing)

	// A blob that was written elsewhere, and a reference to another value.
	bad = append(bytes.Clone(im.pack), im.pack[r.Offset:r.Offset+r.Stored]...)
	moved := r
	moved.Offset = uint64(len(im.pack))
	require.ErrorIs(t, memStore(t, bad, 1).Verify(moved.append(nil)), ErrCorrupt)
	for _, change := range []func(*Ref){
		func(r *Ref) { r.Hash++ },
		func(r *Ref) { r.Size-- },
		func(r *Ref) { r.Stored -= 8 },
		func(r *Ref) { r.Codec = Zstd },
		func(r *Ref) { r.Offset += 8 },
		func(r *Ref) { r.Stored = 1 << 40 },
	} {
		x := r
		change(&x)
		_, err := get(memStore(t, im.pack, 1), x.append(nil))
		require.ErrorIs(t, err, ErrCorrupt)
		var ce *CorruptError
		require.ErrorAs(t, err, &ce)
		require.Equal(t, packName(1), ce.File)
	}

	// Removed while the store is open.
	s, dir := disk(t)
	ref := put(t, s, []byte("v"))
	require.NoError(t, os.Remove(filepath.Join(dir, packName(1))))
	_, err = s.Open(ref)
	require.ErrorIs(t, err, ErrMissing)
}

func TestBlob_View_cutWhileMapped(t *testing.T) {
	// The goal: F-40. A mapped file that is cut under its readers is
	// ErrCorrupt, and the process lives.
	for name, touch := range map[string]func(b *Blob) error{
		"in View": func(b *Blob) error {
			return b.View(func(v []byte) error {
				if err := os.Truncate(b.p.name, 8192); err != nil {
					return err
				}
				if bytes.Count(v, []byte{0})+len(v) < 0 {
					return errors.New("unreachable")
				}
				return errors.New("read what is not there")
			})
		},
		"before View": func(b *Blob) error {
			_ = os.Truncate(b.p.name, 8192)
			return b.View(func(v []byte) error { return errors.New("called") })
		},
		"before AppendTo": func(b *Blob) error {
			_ = os.Truncate(b.p.name, 8192)
			_, err := b.AppendTo(nil)
			return err
		},
		"before ReadAt": func(b *Blob) error {
			_ = os.Truncate(b.p.name, 8192)
			_, err := b.ReadAt(make([]byte, 10), 200_000)
			return err
		},
	} {
		for _, c := range []Compression{None, Fast} {
			if c == Fast && name == "in View" {
				continue // decoded before fn sees it
			}
			t.Run(fmt.Sprintf("%s/%v", name, c), func(t *testing.T) {
				s, _ := disk(t, func(o *Options) { o.Compression = c })
				kind := "random"
				if c == Fast {
					kind = "text"
				}
				ref := put(t, s, value(kind, 1<<20))
				require.NoError(t, s.Sync())
				b, err := s.Open(ref)
				require.NoError(t, err)
				require.NoError(t, b.View(func([]byte) error { return nil }))
				require.True(t, b.Mapped())
				was := debug.SetPanicOnFault(false)
				err = touch(b)
				require.ErrorIs(t, err, ErrCorrupt)
				require.False(t, debug.SetPanicOnFault(was), "the guard puts the setting back")
				var ce *CorruptError
				require.ErrorAs(t, err, &ce)
				require.Equal(t, packName(1), ce.File)
				require.NoError(t, b.Close())
				require.NotZero(t, s.Metrics().Faults)
				// Nobody gets that mapping again; the file says the same.
				_, err = get(s, ref)
				require.ErrorIs(t, err, ErrCorrupt)
				require.Zero(t, maps(t))
			})
		}
	}
}

func TestBlob_View_faultElsewhere(t *testing.T) {
	// The goal: a fault of fn in a mapping that is not ours goes on as the
	// panic that it is, and is not blamed on the pack.
	name := filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.WriteFile(name, make([]byte, 1<<16), 0o644))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	other, err := mapFile(f.Fd(), 0, 1<<16)
	if err != nil {
		t.Skip("no mappings here")
	}
	defer func() { require.NoError(t, unmap(other)) }()
	require.NoError(t, f.Truncate(0))

	s, _ := disk(t, func(o *Options) { o.Compression = None })
	ref := put(t, s, value("random", 100_000))
	require.NoError(t, s.Sync())
	b, err := s.Open(ref)
	require.NoError(t, err)
	defer b.Close()
	var sum byte
	require.Panics(t, func() {
		_ = b.View(func([]byte) error { sum += other[40_000]; return nil })
	})
	require.True(t, b.Mapped())
	require.Zero(t, s.Metrics().Faults)
	require.NoError(t, b.View(func(v []byte) error { sum += v[0]; return nil }))
}

func TestBlob_View_flipWhileOpen(t *testing.T) {
	// The goal: F-39. A flip before the first touch in a mapping is noticed.
	s, dir := disk(t, func(o *Options) { o.Compression = None })
	v := value("random", 300_000)
	ref := put(t, s, v)
	require.NoError(t, s.Sync())
	f, err := os.OpenFile(filepath.Join(dir, packName(1)), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{^v[150_000]}, packHeaderLen+blobHeaderLen+150_000)
	require.NoError(t, err)
	_, err = view(s, ref)
	require.ErrorIs(t, err, ErrCorrupt)
	b, err := s.Open(ref)
	require.NoError(t, err)
	p := make([]byte, 10)
	_, err = b.ReadAt(p, 0)
	require.NoError(t, err, "another frame is whole")
	require.Equal(t, v[:10], p)
	_, err = b.ReadAt(p, 140_000)
	require.ErrorIs(t, err, ErrCorrupt)
	require.NoError(t, b.Close())
}

func TestFormat_golden(t *testing.T) {
	// The goal: a pack of the first version opens for ever, and so does one that
	// was written when there came to be a better level.
	best := func(t testing.TB) image { return makeImageOf(t, Best, None, Best) }
	for name, made := range map[string]image{"": makeImage(t), "best": best(t)} {
		packName, refsName := "testdata/pack.golden", "testdata/refs.golden"
		if name != "" {
			packName, refsName = "testdata/"+name+".golden", "testdata/"+name+"-refs.golden"
		}
		if os.Getenv("HOLDFAST_GOLDEN") == "write" {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			var refs []byte
			for _, r := range made.refs {
				refs = append(refs, r...)
			}
			require.NoError(t, os.WriteFile(packName, made.pack, 0o644))
			require.NoError(t, os.WriteFile(refsName, refs, 0o644))
		}
		pack, err := os.ReadFile(packName)
		require.NoError(t, err)
		refs, err := os.ReadFile(refsName)
		require.NoError(t, err)
		im := made
		im.refs = nil
		for ; len(refs) > 0; refs = refs[RefLen:] {
			im.refs = append(im.refs, refs[:RefLen:RefLen])
		}
		require.Len(t, im.refs, len(im.values))
		if name == "best" {
			r, err := DecodeRef(im.refs[0])
			require.NoError(t, err)
			require.Equal(t, ZstdBest, r.Codec)
		}
		s := memStore(t, pack, 1)
		require.Zero(t, im.harmless(t, s, "golden"))
		require.NoError(t, s.Close())
	}
}

func TestDecodeFrame_hostile(t *testing.T) {
	// The goal: F-41. A frame that declares or makes more than its place is an
	// error and no allocation.
	huge := []byte{0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0} // 1 TiB declared
	bomb := fastEncoder().EncodeAll(make([]byte, 8<<20), nil)
	r := rand.New(rand.NewPCG(1, 1))
	for _, frame := range [][]byte{huge, bomb, nil, {0}, []byte("not zstd at all")} {
		dst := make([]byte, 4096, 8192)
		require.Error(t, decodeFrame(dst, frame))
		require.Zero(t, dst[:8192][4096], "wrote past its place")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = decodeFrame(dst, frame)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		for range 50 {
			if len(frame) > 0 {
				frame = bytes.Clone(frame)
				frame[r.IntN(len(frame))] ^= byte(1 << r.IntN(8))
			}
			_ = decodeFrame(dst, frame)
		}
	}
}
