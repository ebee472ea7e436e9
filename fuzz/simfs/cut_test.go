package simfs

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: the corners are what their names say.
func TestCut_Image_corners(t *testing.T) {
	fs := New(nil)
	f := keep(t, fs, "f", []byte("old"))
	syncDir(t, fs, "/")
	_, err := f.Write(make([]byte, 509)) // to the end of the sector
	require.NoError(t, err)
	for _, s := range []string{"a", "b", "c"} {
		_, err := f.Write([]byte(strings.Repeat(s, SectorSize)))
		require.NoError(t, err)
	}
	require.NoError(t, put(t, fs, "g", nil).Close())
	c := fs.Cut()
	require.Equal(t, 5, c.Unsynced())
	look := func(i Image) string {
		tree := c.Image(CrashConfig{Image: i}).Tree()
		s := fmt.Sprint(len(tree["/f"].Data))
		for at := SectorSize; at < len(tree["/f"].Data); at += SectorSize {
			switch b := tree["/f"].Data[at]; b {
			case 0:
				s += "0"
			case 'a', 'b', 'c':
				s += string(b)
			default:
				s += "?"
			}
		}
		if _, ok := tree["/g"]; ok {
			s += " g"
		}
		return s
	}
	require.Equal(t, "3", look(Nothing))
	require.Equal(t, "2048abc g", look(Everything))
	require.Equal(t, "2048abc g", look(AllButFirst))
	require.Equal(t, "3 g", look(OnlyLast))
	require.Equal(t, "3 g", look(Names))
	require.Equal(t, "2048000 g", look(Lengths))
	require.Equal(t, "3 g", look(Bytes))
	require.Regexp(t, `^2048... g$`, look(Garbled))
	require.NotEqual(t, look(Lengths), look(Garbled))
	require.Equal(t, "all-but-first", AllButFirst.String())
	require.NoError(t, f.Close())

	fs = New(nil)
	f = keep(t, fs, "f", nil)
	syncDir(t, fs, "/")
	for _, s := range []string{"a", "b", "c"} {
		_, err := f.Write([]byte(strings.Repeat(s, SectorSize)))
		require.NoError(t, err)
	}
	c = fs.Cut()
	require.Equal(t, "1536"+"bc", look(AllButFirst)) // sector 0 is zeros, look skips it
	require.Equal(t, "1536"+"0c", look(OnlyLast))
	require.NoError(t, f.Close())
}

// Goal: every set of unsynced changes comes up once, and no set that cannot be.
func TestCut_Subsets(t *testing.T) {
	fs := New(nil)
	for _, name := range []string{"a", "b"} {
		require.NoError(t, put(t, fs, name, []byte(name)).Close())
	}
	all, ok := fs.Cut().Subsets()
	require.True(t, ok)
	seen, n := map[string]int{}, 0
	for img := range all {
		seen[img.Tree().String()]++
		n++
	}
	require.Equal(t, 16, n)
	require.Len(t, seen, 9) // absent, empty, full: squared
	require.NoError(t, fs.Rename("a", "c"))
	all, _ = fs.Cut().Subsets()
	for img := range all {
		require.NoError(t, fs.Cut().Legal(img.Tree()))
	}
	for i := range 20 {
		require.NoError(t, put(t, fs, fmt.Sprint(i), nil).Close())
	}
	_, ok = fs.Cut().Subsets()
	require.False(t, ok)
}

// Goal: the same calls and the same seed leave the same disks, bit for bit.
func TestFS_Crash_deterministic(t *testing.T) {
	run := func(seed uint64) (out []string) {
		fs := New(&Options{Seed: seed})
		fs.Inject(Rule{Ops: OpSyncs, Probability: 0.3, Err: syscall.EIO})
		p := player{fs: fs}
		defer p.close()
		for _, s := range trace(rand.New(rand.NewPCG(seed, 3)), 80) {
			p.do(s)
		}
		for cfg, img := range fs.CrashImages(seed, 20) {
			out = append(out, fmt.Sprintf("%v %x", cfg, img.Tree().Digest()))
		}
		return append(out, fs.Trace())
	}
	for seed := range uint64(10) {
		require.Equal(t, run(seed), run(seed))
	}
	a, b := run(1), run(2)
	require.NotEqual(t, a[:len(a)-1], b[:len(b)-1])
}

// Goal: the hook comes at the kth mutating call and before it has an effect.
func TestFS_OnMutation(t *testing.T) {
	work := func(fs *FS) error {
		f, err := fs.Create("f", cat) // 1
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err = f.Write([]byte("x")); err != nil { // 2
			return err
		}
		f.ReadAt(make([]byte, 1), 0)
		if err = f.Sync(); err != nil { // 3
			return err
		}
		return fs.Rename("f", "g") // 4
	}
	fs := New(nil)
	require.NoError(t, work(fs))
	require.Equal(t, 4, fs.Mutations())
	for k, want := range []string{"", "/f 0", "/f 1", "/f 1", "/g 1"} {
		fs := New(nil)
		var img *FS
		fs.OnMutation(k+1, func() { img = fs.Crash(CrashConfig{Image: Everything, Kill: true}) })
		err := work(fs)
		if k == 4 {
			require.NoError(t, err)
			img = fs.Crash(CrashConfig{Image: Everything})
		} else {
			require.ErrorIs(t, err, ErrKilled)
		}
		got := ""
		for p, e := range img.Tree() {
			got = fmt.Sprint(p, " ", len(e.Data))
		}
		require.Equal(t, want, got)
	}
}

// Goal: a killed file system refuses everything; one that lives on does not reach the
// image.
func TestFS_Kill(t *testing.T) {
	fs := New(nil)
	f := keep(t, fs, "f", []byte("one"))
	syncDir(t, fs, "/")
	l, err := fs.Lock("LOCK")
	require.NoError(t, err)
	_, err = fs.Lock("LOCK")
	require.ErrorIs(t, err, syscall.EAGAIN)

	img := fs.Crash(CrashConfig{Image: Everything})
	_, err = f.WriteAt([]byte("two"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, fs.Remove("f"))
	require.Equal(t, "one", string(img.Tree()["/f"].Data))
	other, err := img.Lock("LOCK") // a crash releases locks
	require.NoError(t, err)
	g, err := img.OpenReadWrite("f", cat)
	require.NoError(t, err)
	_, err = g.WriteAt([]byte("new"), 0)
	require.NoError(t, err)
	require.Equal(t, "two", text(t, f))
	require.NoError(t, g.Close())
	require.NoError(t, other.Close())
	require.NoError(t, other.Close())
	other, err = img.Lock("LOCK")
	require.NoError(t, err)
	require.NoError(t, other.Close())

	fs.Crash(CrashConfig{Kill: true})
	for _, err := range []error{
		fs.Remove("x"), fs.MkdirAll("x", 0), f.Sync(), l.Close(), f.Close(),
		func() error { _, err := f.Write([]byte("x")); return err }(),
		func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err }(),
		func() error { _, err := fs.Create("x", cat); return err }(),
		func() error { _, err := fs.Lock("x"); return err }(),
	} {
		require.ErrorIs(t, err, ErrKilled)
	}
	require.Contains(t, fs.Trace(), "power is off")
}

// Goal: the trace keeps the newest calls in order.
func TestFS_Trace(t *testing.T) {
	fs := New(&Options{TraceLen: 3})
	f := put(t, fs, "a", []byte("xyz"))
	require.NoError(t, fs.Rename("a", "b"))
	_, err := fs.Open("a")
	require.ErrorIs(t, err, os.ErrNotExist)
	ev := fs.Events()
	require.Len(t, ev, 3)
	require.Equal(t, []Op{OpWrite, OpRename, OpOpen}, []Op{ev[0].Op, ev[1].Op, ev[2].Op})
	require.Equal(t, "     3 m3     rename     a -> b", ev[1].String())
	require.Equal(t, "     2 m2     write      a off -1 len 3", ev[0].String())
	require.Equal(t, "     4        open       a: no such file or directory", ev[2].String())
	require.NoError(t, f.Close())
}

// Goal: many goroutines may use it, crash it, and read the images at once.
func TestFS_concurrent(t *testing.T) {
	fs := New(nil)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			f, _ := fs.Create(fmt.Sprint(i), cat)
			for range 100 {
				f.Write([]byte("hello"))
				f.Sync()
				f.ReadAt(make([]byte, 5), 0)
				fs.List("/")
			}
			f.Close()
		})
	}
	c := fs.Cut()
	for i := range 4 {
		wg.Go(func() {
			for j := range 20 {
				img := fs.Crash(CrashConfig{Seed: uint64(i*100 + j)})
				c.Image(CrashConfig{Seed: uint64(j)}).Tree()
				for p := range img.Tree() {
					f, _ := img.OpenReadWrite(p, cat)
					f.Write([]byte("HELLO!"))
					io.ReadAll(f)
					f.Close()
				}
			}
		})
	}
	wg.Wait()
}

// Goal: damage at rest needs no handle and survives every crash.
func TestFS_Put(t *testing.T) {
	fs := New(nil)
	require.NoError(t, put(t, fs, "f", []byte("abc")).Close())
	require.NoError(t, fs.Put("f", []byte("aXc")))
	require.NoError(t, fs.Put("g", []byte("new")))
	require.Error(t, fs.Put("no/g", nil))
	require.Error(t, fs.Put("/", nil))
	seen := outcomes(fs, 50, func(t Tree) string { return string(t["/f"].Data) + " " + string(t["/g"].Data) })
	require.ElementsMatch(t, []string{" new", "aXc new"}, keys(seen))
}
