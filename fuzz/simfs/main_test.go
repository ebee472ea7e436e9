package simfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cat = vfs.WriteCategoryUnspecified

// put makes a file with these unsynced bytes and leaves it open.
func put(t testing.TB, fs vfs.FS, name string, data []byte) vfs.File {
	t.Helper()
	f, err := fs.Create(name, cat)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, err)
	return f
}

// keep is put and a sync.
func keep(t testing.TB, fs vfs.FS, name string, data []byte) vfs.File {
	t.Helper()
	f := put(t, fs, name, data)
	require.NoError(t, f.Sync())
	return f
}

func syncDir(t testing.TB, fs vfs.FS, dir string) {
	t.Helper()
	d, err := fs.OpenDir(dir)
	require.NoError(t, err)
	require.NoError(t, d.Sync())
	require.NoError(t, d.Close())
}

// outcomes crashes often and counts how the trees look to see.
func outcomes(fs *FS, random int, see func(Tree) string) map[string]int {
	seen := map[string]int{}
	for _, img := range fs.CrashImages(1, random) {
		seen[see(img.Tree())]++
	}
	return seen
}

func names(t Tree) string { return fmt.Sprint(t.Paths()) }

// bytesOf makes n bytes that nobody else has, none of them zero.
func bytesOf(rnd *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(1 + rnd.IntN(255))
	}
	return p
}

// step is one call of a random trace.
type step struct {
	op   string
	a, b string
	slot int
	off  int64
	n    int64
	data []byte
}

func (s step) String() string {
	return fmt.Sprintf("%s %s %s slot %d off %d n %d", s.op, s.a, s.b, s.slot, s.off, max(s.n, int64(len(s.data))))
}

var (
	traceDirs  = []string{"/d", "/e", "/d/s"}
	traceFiles = []string{"/a", "/b", "/d/a", "/d/b", "/e/a", "/d/s/a"}
	tracePaths = append(append([]string{}, traceFiles...), traceDirs...)
)

// trace draws steps; most of them make sense.
func trace(rnd *rand.Rand, n int) []step {
	steps := []step{{op: "mkdir", a: "/d"}, {op: "mkdir", a: "/e"}}
	if rnd.IntN(2) == 0 {
		steps = append(steps, step{op: "syncdir", a: "/"})
	}
	one := func(s []string) string { return s[rnd.IntN(len(s))] }
	some := func() []byte {
		return bytesOf(rnd, []int{1, 100, 511, 512, 513, 4096, 5000, 12000}[rnd.IntN(8)])
	}
	for len(steps) < n {
		s := step{slot: rnd.IntN(4)}
		switch k := rnd.IntN(100); {
		case k < 16:
			s.op, s.a = "create", one(traceFiles)
		case k < 20:
			s.op, s.a = "openrw", one(traceFiles)
		case k < 44:
			s.op, s.data = "write", some()
		case k < 52:
			s.op, s.data, s.off = "writeat", some(), rnd.Int64N(9000)
		case k < 60:
			s.op = "sync"
		case k < 64:
			s.op = "syncdata"
		case k < 66:
			s.op, s.n = "syncto", 4096
		case k < 70:
			s.op = "close"
		case k < 79:
			s.op, s.a, s.b = "rename", one(traceFiles), one(traceFiles)
		case k < 81:
			s.op, s.a, s.b = "rename", one(traceDirs), one(traceDirs)
		case k < 85:
			s.op, s.a, s.b = "link", one(traceFiles), one(traceFiles)
		case k < 90:
			s.op, s.a = "remove", one(tracePaths)
		case k < 91:
			s.op, s.a = "removeall", one(traceDirs)
		case k < 94:
			s.op, s.a = "mkdir", one(traceDirs)
		case k < 97:
			s.op, s.a = "syncdir", one(append([]string{"/"}, traceDirs...))
		case k < 98:
			s.op, s.n = "prealloc", 20000
		default:
			s.op, s.off = "truncate", rnd.Int64N(9000)
		}
		steps = append(steps, s)
	}
	return steps
}

// player runs steps on a file system below root.
type player struct {
	fs    vfs.FS
	root  string
	slots [4]vfs.File
}

func (p *player) close() {
	for i, f := range p.slots {
		if f != nil {
			f.Close()
			p.slots[i] = nil
		}
	}
}

func (p *player) do(s step) error {
	a, b := p.root+s.a, p.root+s.b
	open := func(f vfs.File, err error) error {
		if err != nil {
			return err
		}
		if old := p.slots[s.slot]; old != nil {
			old.Close()
		}
		p.slots[s.slot] = f
		return nil
	}
	f := p.slots[s.slot]
	switch s.op {
	case "create":
		return open(p.fs.Create(a, cat))
	case "openrw":
		return open(p.fs.OpenReadWrite(a, cat))
	case "rename":
		return p.fs.Rename(a, b)
	case "link":
		return p.fs.Link(a, b)
	case "remove":
		return p.fs.Remove(a)
	case "removeall":
		return p.fs.RemoveAll(a)
	case "mkdir":
		return p.fs.MkdirAll(a, 0o755)
	case "syncdir":
		d, err := p.fs.OpenDir(a)
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Sync()
	}
	if f == nil {
		return nil
	}
	var err error
	switch s.op {
	case "write":
		_, err = f.Write(append([]byte(nil), s.data...))
	case "writeat":
		_, err = f.WriteAt(append([]byte(nil), s.data...), s.off)
	case "sync":
		err = f.Sync()
	case "syncdata":
		err = f.SyncData()
	case "syncto":
		_, err = f.SyncTo(s.n)
	case "prealloc":
		err = f.Preallocate(0, s.n)
	case "truncate":
		err = f.(interface{ Truncate(int64) error }).Truncate(s.off)
	case "close":
		err = f.Close()
		p.slots[s.slot] = nil
	default:
		panic(s.op)
	}
	return err
}

// class is what callers can tell about an error.
func class(err error) string {
	for _, e := range []error{os.ErrNotExist, os.ErrExist, syscall.ENOTDIR, syscall.EISDIR, syscall.EINVAL} {
		if errors.Is(err, e) {
			if e == os.ErrExist && errors.Is(err, syscall.ENOTEMPTY) {
				return "not empty"
			}
			return e.Error()
		}
	}
	if err != nil {
		return "error: " + err.Error()
	}
	return "ok"
}
