package mmap

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// sealed writes six blobs into one pack and gives up the pins.
func sealed(t testing.TB, s *Store) (all []blobEntry) {
	t.Helper()
	s.o.PackBytes = 1 << 20
	for i := range 6 {
		v := value(kinds[i%3], 3000+i*4100)
		ref := put(t, s, v)
		s.Settle(ref)
		all = append(all, blobEntry{v, ref})
	}
	require.NoError(t, s.Seal())
	return all
}

func extents(t testing.TB, es []blobEntry) (out []Extent) {
	for _, e := range es {
		r, err := DecodeRef(e.ref)
		require.NoError(t, err)
		out = append(out, Extent{r.Offset, r.Stored})
	}
	return out
}

// Goal (M1): after a rewrite the references lead to the same values, what was left out
// is missing, who had a value open keeps it, and a rewritten pack can be rewritten.
func TestStore_Rewrite(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		dir := t.TempDir()
		o := Options{FS: vfs.Default, Dir: dir, UUID: testUUID, FrameBytes: minFrameBytes, NoMap: noMap}
		s, err := Open(o)
		require.NoError(t, err)
		all := sealed(t, s)
		before, err := vfs.Default.Stat(s.path(1))
		require.NoError(t, err)
		left := all
		for _, gone := range []int{1, 0, 3, 0, 0} {
			dead := left[gone]
			b, err := s.Open(dead.ref)
			require.NoError(t, err)
			left = slices.Delete(slices.Clone(left), gone, gone+1)
			require.NoError(t, s.Rewrite(1, extents(t, left)))
			_, err = get(s, dead.ref)
			require.ErrorIs(t, err, ErrMissing)
			got, err := b.AppendTo(nil)
			require.NoError(t, err)
			same(t, dead.v, got)
			require.NoError(t, b.Close())
			for _, e := range left {
				require.NoError(t, s.Verify(e.ref))
				got, err := view(s, e.ref)
				require.NoError(t, err)
				same(t, e.v, got)
			}
		}
		after, err := vfs.Default.Stat(s.path(1))
		require.NoError(t, err)
		require.Less(t, after.Size(), before.Size())
		require.Error(t, s.Rewrite(1, extents(t, all)), "what is gone cannot be kept")
		_, err = get(s, left[0].ref)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		require.Zero(t, s.Metrics().OpenPacks)

		s, err = Open(o)
		require.NoError(t, err)
		require.NoError(t, s.Renew([][]byte{left[0].ref}))
		got, err := get(s, left[0].ref)
		require.NoError(t, err)
		same(t, left[0].v, got)
		require.NoError(t, s.Close())
	}
}

// Goal (I7): what is written to, or named by nobody yet, is not rewritten or removed.
func TestStore_Rewrite_refused(t *testing.T) {
	s, err := Open(Options{FS: vfs.NewMem(), Dir: "packs", UUID: testUUID})
	require.NoError(t, err)
	defer s.Close()
	ref := put(t, s, value("text", 5000))
	require.ErrorIs(t, s.Rewrite(1, nil), ErrNotSealed)
	require.NoError(t, s.Seal())
	require.ErrorIs(t, s.Rewrite(1, nil), ErrPending)
	require.ErrorIs(t, s.Remove(1), ErrPending)
	s.Settle(ref)
	require.NoError(t, s.Rewrite(1, nil))
	require.NoError(t, s.Remove(1))
	require.ErrorIs(t, s.Rewrite(1, nil), ErrMissing)
}

// Goal (M5): whatever byte of a rewritten pack changes, and wherever it is cut, reads
// give the right bytes or a typed error.
func TestStore_Rewrite_damaged(t *testing.T) {
	fs := vfs.NewMem()
	s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, FrameBytes: minFrameBytes})
	require.NoError(t, err)
	all := sealed(t, s)
	keep := []blobEntry{all[1], all[2]}
	require.NoError(t, s.Rewrite(1, extents(t, keep)))
	require.NoError(t, s.Close())
	im := image{pack: readMem(t, fs, "packs/"+packName(1))}
	for _, e := range keep {
		im.values, im.refs = append(im.values, e.v), append(im.refs, e.ref)
	}
	require.Zero(t, im.harmless(t, memStore(t, im.pack, 1), "as written"))
	step := 7
	if testing.Short() {
		step = 101
	}
	for at := 0; at < len(im.pack); at++ {
		if table := len(im.pack) - 2*movedLen; at > 64 && at < table && at%step != 0 {
			continue
		}
		bad := bytes.Clone(im.pack)
		bad[at] ^= 1 << (at % 8)
		im.harmless(t, memStore(t, bad, 1), fmt.Sprint("flip at ", at))
		if at >= len(im.pack)-2*movedLen { // not missing: that would be a blob that was collected
			require.ErrorIs(t, memStore(t, bad, 1).Verify(keep[0].ref), ErrCorrupt, "flip at %d", at)
		}
		im.harmless(t, memStore(t, im.pack[:at], 1), fmt.Sprint("cut at ", at))
	}
}

// Goal (M1, I7): a power cut or a failing call anywhere in a rewrite leaves every value
// that is kept, and no leftover after the next Renew.
func TestStore_Rewrite_anyMoment(t *testing.T) {
	for _, cause := range []error{nil, syscall.EIO, syscall.ENOSPC} {
		for nth, more := 1, true; more; nth++ {
			fs := simfs.New(nil)
			s, err := Open(simOptions(fs))
			require.NoError(t, err)
			all := sealed(t, s)
			root, err := fs.OpenDir("/")
			require.NoError(t, err)
			require.NoError(t, errors.Join(root.Sync(), root.Close()))
			keep := []blobEntry{all[0], all[3], all[4]}
			at := fmt.Sprintf("%v at %d", cause, nth)
			var images []*simfs.FS
			if cause == nil {
				more = false
				fs.OnMutation(fs.Mutations()+nth, func() {
					more = true
					for seed := range uint64(6) {
						images = append(images, fs.Crash(simfs.CrashConfig{Seed: seed}))
					}
				})
				require.NoError(t, s.Rewrite(1, extents(t, keep)), at)
			} else {
				fault := fs.Inject(simfs.FailOnce(0, "", nth, cause))
				err = s.Rewrite(1, extents(t, keep))
				more = fault.Fired() > 0
				fault.Remove()
				if err != nil {
					require.ErrorIs(t, err, cause, at)
				}
				images = append(images, fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}))
				for _, e := range keep {
					require.NoError(t, s.Verify(e.ref), at)
				}
			}
			require.NoError(t, s.Close(), at)
			for _, im := range append(images, fs) {
				s, err := Open(simOptions(im))
				require.NoError(t, err, at)
				require.NoError(t, s.Renew(nil), at)
				names, err := im.List("packs")
				require.NoError(t, err)
				require.Equal(t, []string{packName(1)}, names, at)
				require.NoError(t, s.Close())
				allThere(t, im, keep, at)
			}
		}
	}
}

// Goal (M5): whatever byte of a blob that is kept is damaged, the rewrite says so, leaves
// the pack as it was, and no file beside it.
func TestStore_Rewrite_ofDamage(t *testing.T) {
	fs := vfs.NewMem()
	s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, FrameBytes: minFrameBytes})
	require.NoError(t, err)
	all := sealed(t, s)
	require.NoError(t, s.Close())
	pack := readMem(t, fs, "packs/"+packName(1))
	keep := extents(t, []blobEntry{all[1], all[2]})
	for at := keep[0].Offset; at < keep[1].Offset+keep[1].Stored; at += 1 + at%13 {
		if at >= keep[0].Offset+keep[0].Stored && at < keep[1].Offset {
			continue // between the two
		}
		bad := bytes.Clone(pack)
		bad[at] ^= 0x10
		s := memStore(t, bad, 1)
		s.o.ReadOnly = false
		require.ErrorIs(t, s.Rewrite(1, keep), ErrCorrupt, "byte %d", at)
		names, err := s.o.FS.List("packs")
		require.NoError(t, err)
		require.Equal(t, []string{packName(1)}, names)
		require.True(t, bytes.Equal(bad, readMem(t, s.o.FS, "packs/"+packName(1))))
	}
}
