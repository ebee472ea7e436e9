package mmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// Goal: a copy is the same blob in another place: frames, size, hash and codec; what is
// stored in 8 MiB or more gets a pack of its own; and the source may go.
func TestStore_Copy(t *testing.T) {
	for _, c := range []Compression{None, Fast, Best} {
		t.Run(c.String(), func(t *testing.T) {
			s, dir := disk(t, func(o *Options) { o.Compression = c; o.FrameBytes = 32 << 10 })
			sizes := []int{0, 1, 32 << 10, 100_001, 3 << 20}
			if c == None {
				sizes = append(sizes, soloBytes-10, soloBytes+10)
			}
			type entry struct{ v, old, ref []byte }
			var all []entry
			for _, n := range sizes {
				v := value("text", n)
				all = append(all, entry{v: v, old: put(t, s, v)})
			}
			require.NoError(t, s.Seal())
			require.NoError(t, s.Close())
			// Another size of frames is not the copy's affair.
			s, err := Open(Options{FS: vfs.Default, Dir: dir, UUID: testUUID, Compression: c})
			require.NoError(t, err)
			defer s.Close()
			for i := range all {
				e := &all[i]
				_, err := view(s, e.old) // so that there is a mapping to be passed over
				require.NoError(t, err)
				e.ref, err = s.Copy(e.old)
				require.NoError(t, err)
				was, err := DecodeRef(e.old)
				require.NoError(t, err)
				is, err := DecodeRef(e.ref)
				require.NoError(t, err)
				require.Equal(t, was.Stored >= soloBytes, is.Offset == packHeaderLen && is.Pack != 2, "size %d", was.Size)
				require.NotEqual(t, was.Pack, is.Pack)
				a, err := os.ReadFile(filepath.Join(dir, packName(was.Pack)))
				require.NoError(t, err)
				b, err := os.ReadFile(filepath.Join(dir, packName(is.Pack)))
				require.NoError(t, err)
				same(t, a[was.Offset+blobHeaderLen:][:was.Stored-blobHeaderLen], b[is.Offset+blobHeaderLen:][:is.Stored-blobHeaderLen])
				is.Pack, is.Offset = was.Pack, was.Offset
				require.Equal(t, was, is)
				require.Equal(t, i+1, pending(t, s))
			}
			require.NoError(t, s.Sync())
			require.NoError(t, s.Remove(1))
			for _, e := range all {
				require.ErrorIs(t, s.Has(e.old), ErrMissing)
				everyWay(t, s, e.ref, e.v)
			}
		})
	}
}

// prose is what the better level has something to gain by: parts of a hundred sentences,
// in an order that does not come again.
func prose(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	word := func() string { return fmt.Sprintf("%x ", r.Uint64()>>(20+r.IntN(40))) }
	sentences := make([]string, 100)
	for i := range sentences {
		for range 20 {
			sentences[i] += word()
		}
	}
	var b []byte
	for len(b) < n {
		s := sentences[r.IntN(len(sentences))]
		from := r.IntN(len(s))
		b = append(b, s[from:from+r.IntN(len(s)-from)]...)
		b = append(b, word()...)
	}
	return b[:n]
}

// Goal: under Best, what was compressed fast is compressed better on its way, is never
// larger for it, and is not tried twice.
func TestStore_Copy_best(t *testing.T) {
	s, _ := disk(t, func(o *Options) { o.Compression = Fast })
	fast := put(t, s, prose(2<<20))
	zeros := put(t, s, value("zeros", 2<<20)) // nothing to gain
	raw := put(t, s, value("random", 100_000))
	s.o.Compression = Best
	for i, ref := range [][]byte{fast, zeros, raw} {
		again, err := s.Copy(ref)
		require.NoError(t, err)
		was, err := DecodeRef(ref)
		require.NoError(t, err)
		is, err := DecodeRef(again)
		require.NoError(t, err)
		switch i {
		case 0:
			require.Equal(t, ZstdBest, is.Codec)
			require.Less(t, is.Stored, was.Stored)
		case 1:
			require.LessOrEqual(t, is.Stored, was.Stored)
		default:
			require.Equal(t, Raw, is.Codec)
			require.Equal(t, was.Stored, is.Stored)
		}
		require.Equal(t, was.Hash, is.Hash)
		require.Equal(t, was.Size, is.Size)
		v, err := get(s, ref)
		require.NoError(t, err)
		everyWay(t, s, again, v)
		third, err := s.Copy(again)
		require.NoError(t, err)
		now, err := DecodeRef(third)
		require.NoError(t, err)
		require.Equal(t, is.Codec, now.Codec)
		require.Equal(t, is.Stored, now.Stored)
	}
	require.Equal(t, 9, pending(t, s))
}

// Goal: a copy of a source that is wrong is ErrCorrupt wherever the wrong byte is, and
// leaves no file, no pin and no blob.
func TestStore_Copy_corrupt(t *testing.T) {
	for _, c := range []Compression{None, Fast} {
		for _, n := range []int{100_000, soloBytes + 5} {
			if c == Fast && n > 1<<20 {
				continue // stored it is small again
			}
			s, dir := disk(t, func(o *Options) { o.Compression = c })
			ref := put(t, s, value("text", n))
			s.Settle(ref)
			require.NoError(t, s.Seal())
			r, err := DecodeRef(ref)
			require.NoError(t, err)
			name := filepath.Join(dir, packName(r.Pack))
			whole, err := os.ReadFile(name)
			require.NoError(t, err)
			for _, at := range []uint64{r.Offset + 9, r.Offset + blobHeaderLen, r.Offset + r.Stored/2, r.Offset + r.Stored - 2} {
				f, err := os.OpenFile(name, os.O_RDWR, 0)
				require.NoError(t, err)
				_, err = f.WriteAt([]byte{whole[at] ^ 1}, int64(at))
				require.NoError(t, err)
				_, err = s.Copy(ref)
				require.ErrorIs(t, err, ErrCorrupt)
				_, err = f.WriteAt(whole[at:at+1], int64(at))
				require.NoError(t, err)
				require.NoError(t, f.Close())
			}
			require.Zero(t, pending(t, s))
			require.Equal(t, []string{packName(r.Pack)}, files(t, s))
			_, err = s.Copy(ref)
			require.NoError(t, err)
			s.o.Compression = Best
			_, err = s.Copy(ref[1:])
			require.ErrorIs(t, err, ErrCorrupt)
		}
	}
}

// Goal: while a copy waits for a slow source, others write.
func TestStore_Copy_besideWrite(t *testing.T) {
	var slow atomic.Bool
	began, release := make(chan struct{}, 1), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, packSuffix) && slow.CompareAndSwap(true, false) {
			began <- struct{}{}
			<-release
		}
		return nil
	}))
	s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, Compression: None})
	require.NoError(t, err)
	ref := put(t, s, value("text", 300_000))
	slow.Store(true)
	copied := make(chan error)
	go func() { _, err := s.Copy(ref); copied <- err }()
	<-began
	wrote := make(chan error)
	go func() { _, err := s.Write([]byte("beside")); wrote <- err }()
	select {
	case err := <-wrote:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Error("Write waits for a copy that reads")
	}
	close(release)
	require.NoError(t, <-copied)
	require.NoError(t, s.Close())
}

// Goal: a full disk costs the copy alone; a broken one is told as what it is.
func TestStore_Copy_diskFails(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		for _, n := range []int{100_000, soloBytes + 5} {
			var fail atomic.Bool
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if fail.Load() && op.Kind == errorfs.OpFileWrite {
					return cause
				}
				return nil
			}))
			s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, Compression: None})
			require.NoError(t, err)
			ref := put(t, s, value("text", n))
			fail.Store(true)
			_, err = s.Copy(ref)
			require.ErrorIs(t, err, cause)
			require.Equal(t, cause == syscall.EIO, errors.Is(err, ErrPoisoned))
			require.Equal(t, cause == syscall.ENOSPC, errors.Is(err, ErrDiskFull))
			fail.Store(false)
			onlyPacks(t, s, fmt.Sprint(cause, n))
			require.Equal(t, 1, pending(t, s))
			require.NoError(t, s.Close())
		}
	}
}
