package storage

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

const uncategorized = vfs.WriteCategoryUnspecified

// gateOps are the ways to change a file through the gate, each with the call that
// it makes on the disk.
var gateOps = []struct {
	name string
	op   simfs.Op
	do   func(g *gate, name string) error
}{
	{"open for writing", simfs.OpOpenReadWrite, func(g *gate, name string) error {
		f, err := g.OpenReadWrite(name, uncategorized)
		return closed(f, err)
	}},
	{"reuse", simfs.OpReuse, func(g *gate, name string) error {
		f, err := g.ReuseForWrite("old", name, uncategorized)
		return closed(f, err)
	}},
	{"write at", simfs.OpWriteAt, through(func(f vfs.File) error {
		n, err := f.WriteAt([]byte("abc"), 1)
		if err == nil && n != 3 {
			return errors.New("a short write without an error")
		}
		return err
	})},
	{"sync data", simfs.OpSyncData, through(vfs.File.SyncData)},
	{"sync to", simfs.OpSyncTo, through(func(f vfs.File) error {
		_, err := f.SyncTo(3)
		return err
	})},
}

func closed(f vfs.File, err error) error {
	if err != nil {
		return err
	}
	return f.Close()
}

// through makes the file, does f with it and closes it.
func through(f func(vfs.File) error) func(*gate, string) error {
	return func(g *gate, name string) error {
		file, err := g.Create(name, uncategorized)
		if err != nil {
			return err
		}
		err = f(file)
		return errors.Join(err, file.Close())
	}
}

// Goal (S6): every way to change a file goes through the gate. On a MANIFEST a failure
// closes it and is not told; on another file it is told and closes nothing; behind the
// closed gate nothing changes; and without a fault the change arrives.
func TestGate_everyChange(t *testing.T) {
	const dir = "store/l3"
	for _, c := range gateOps {
		for name, critical := range map[string]bool{dir + "/MANIFEST-000007": true, dir + "/000007.sst": false, "copy/MANIFEST-000007": false} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				fs := simfs.New(nil)
				require.NoError(t, fs.MkdirAll(dir, 0o755))
				require.NoError(t, fs.MkdirAll("copy", 0o755))
				require.NoError(t, fs.Put("old", []byte("old")))
				before := fs.Tree()
				g := newGate(fs, dir, false)
				fault := fs.Inject(simfs.FailOnce(c.op, "", 1, syscall.ENOSPC))
				err := c.do(g, name)
				require.Equal(t, 1, fault.Fired())
				if critical {
					require.NoError(t, err)
					require.ErrorIs(t, g.refusal(), ErrDegraded)
					require.ErrorIs(t, g.refusal(), ErrDiskFull)
					before = fs.Tree()
					require.NoError(t, c.do(g, name), "Pebble does not hear of it")
					require.ErrorIs(t, c.do(g, dir+"/000009.sst"), ErrDegraded)
					require.True(t, before.Equal(fs.Tree()))
					return
				}
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.NoError(t, g.refusal())
				_ = fs.Remove(name)
				require.NoError(t, fs.Put("old", []byte("old")))
				require.NoError(t, c.do(g, name))
				require.False(t, before.Equal(fs.Tree()), "the change is there")
			})
		}
	}
}

// Goal: a hint to the disk passes while the gate is open and is refused after, and its
// failure never closes anything.
func TestGate_preallocate(t *testing.T) {
	fs := simfs.New(nil)
	g := newGate(fs, "l3", false)
	require.NoError(t, g.MkdirAll("l3", 0o755))
	f, err := g.Create("l3/MANIFEST-000001", uncategorized)
	require.NoError(t, err)
	require.NoError(t, f.Preallocate(0, 4096))
	fault := fs.Inject(simfs.FailOnce(simfs.OpPreallocate, "", 1, syscall.ENOSPC))
	require.ErrorIs(t, f.Preallocate(4096, 8192), syscall.ENOSPC)
	require.Equal(t, 1, fault.Fired())
	require.NoError(t, g.refusal())
	g.close(errors.New("test"))
	require.ErrorIs(t, f.Preallocate(4096, 8192), ErrDegraded)
	require.NoError(t, f.Close())
	require.Same(t, fs, g.Unwrap())
}

// Goal: a folder that cannot be opened for its sync is a failure like any other: the
// marker behind it is not made, and the gate closes.
func TestGate_folderCannotBeOpened(t *testing.T) {
	fs := simfs.New(nil)
	g := newGate(fs, "l3", false)
	require.NoError(t, g.MkdirAll("l3", 0o755))
	fault := fs.Inject(simfs.FailFrom(simfs.OpOpenDir, "l3", 1, syscall.EMFILE))
	_, err := g.OpenDir("l3")
	require.ErrorIs(t, err, syscall.EMFILE)
	require.NoError(t, g.refusal(), "whoever asked was told")
	require.NoError(t, create("l3/marker.manifest.000001.MANIFEST-000001")(g))
	require.ErrorIs(t, g.refusal(), syscall.EMFILE)
	fault.Remove()
	d, err := g.OpenDir("l3")
	require.NoError(t, err)
	require.NoError(t, d.SyncData())
	require.NoError(t, d.Close())
	names, err := fs.List("l3")
	require.NoError(t, err)
	require.Empty(t, names)
}

// Goal: what stands in for a file that could not be made answers every call that a
// file has, takes everything and keeps nothing.
func TestSink_answersEveryCall(t *testing.T) {
	// A method that sink lacks would be called on the nil file inside: a panic.
	v, file := reflect.ValueOf(sink{}), reflect.TypeFor[vfs.File]()
	for i := range file.NumMethod() {
		m := v.MethodByName(file.Method(i).Name)
		args := make([]reflect.Value, m.Type().NumIn())
		for j := range args {
			args[j] = reflect.Zero(m.Type().In(j))
		}
		require.NotPanics(t, func() { m.Call(args) }, file.Method(i).Name)
	}
	var s sink
	n, err := s.Write([]byte("abc"))
	require.NoError(t, err)
	require.Equal(t, 3, n)
	n, err = s.WriteAt([]byte("abc"), 9)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	full, err := s.SyncTo(9)
	require.NoError(t, err)
	require.True(t, full)
	_, err = s.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = s.Stat()
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, vfs.InvalidFd, s.Fd())
}

// Goal: an L3 whose MANIFEST cannot be made does not open, says why, and is made at
// the next try. Pebble, which is not told, meets the stand-in.
func TestOpen_manifestCannotBeMade(t *testing.T) {
	for nth := 1; nth <= 2; nth++ {
		for _, path := range []string{"MANIFEST-*", "marker.*"} {
			fs := simfs.New(nil)
			fault := fs.Inject(simfs.FailFrom(simfs.OpCreate, path, nth, syscall.ENOSPC))
			s, err := Open(testOptions(fs))
			if fault.Fired() > 0 {
				require.ErrorIs(t, err, ErrDegraded)
				require.ErrorIs(t, err, ErrDiskFull)
			} else {
				require.NoError(t, err)
				require.NoError(t, s.Close())
			}
			fault.Remove()
			s, err = Open(testOptions(fs))
			require.NoError(t, err, fmt.Sprint(path, nth))
			mustIngest(t, s, 1, sets(3, "k%d", "v"))
			require.NoError(t, s.Close())
		}
	}
}
