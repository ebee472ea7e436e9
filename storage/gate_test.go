package storage

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// Goal: a failed change of a MANIFEST or marker of L3 closes the gate, and
// Pebble does not hear of it; a failed change of anything else is told, and
// closes nothing.
func TestGate_change(t *testing.T) {
	const dir = "store/l3"
	cases := []struct {
		name   string
		match  func(op errorfs.Op) bool // which operation fails
		do     func(g *gate) error
		closes bool
	}{
		{"manifest create", kind(errorfs.OpCreate), create(dir + "/MANIFEST-000001"), true},
		{"manifest write", kind(errorfs.OpFileWrite), create(dir + "/MANIFEST-000001"), true},
		{"manifest sync", kind(errorfs.OpFileSync), create(dir + "/MANIFEST-000001"), true},
		{"marker create", kind(errorfs.OpCreate), create(dir + "/marker.manifest.000001.MANIFEST-000001"), true},
		{"marker's directory", kind(errorfs.OpFileSync), create(dir + "/marker.manifest.000001.MANIFEST-000001"), true},
		{"marker remove", kind(errorfs.OpRemove), remove(dir + "/marker.manifest.000001.x"), true},
		{"marker rename", kind(errorfs.OpRename), func(g *gate) error { return g.Rename("a", dir+"/marker.x.000001.y") }, true},
		{"directory sync", kind(errorfs.OpFileSync), func(g *gate) error {
			d, err := g.OpenDir(dir)
			if err != nil {
				return err
			}
			defer d.Close()
			return d.Sync()
		}, true},
		{"table create", kind(errorfs.OpCreate), create(dir + "/000001.sst"), false},
		{"table write", kind(errorfs.OpFileWrite), create(dir + "/000001.sst"), false},
		{"table sync", kind(errorfs.OpFileSync), create(dir + "/000001.sst"), false},
		{"table remove", kind(errorfs.OpRemove), remove(dir + "/000001.sst"), false},
		{"manifest of a copy", kind(errorfs.OpFileWrite), create("copy/MANIFEST-000001"), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			require.NoError(t, mem.MkdirAll(dir, 0o755))
			require.NoError(t, mem.MkdirAll("copy", 0o755))
			writeFile(t, mem, dir+"/000001.sst", nil)
			writeFile(t, mem, dir+"/marker.manifest.000001.x", nil)
			failing := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if c.match(op) {
					return syscall.ENOSPC
				}
				return nil
			}))
			g := newGate(failing, dir, false)
			calls := 0
			g.onClose = func() { calls++ }
			err := c.do(g)
			if !c.closes {
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.NoError(t, g.refusal())
				return
			}
			require.NoError(t, err)
			require.ErrorIs(t, g.refusal(), ErrDegraded)
			require.ErrorIs(t, g.refusal(), ErrDiskFull)
			require.Equal(t, 1, calls)

			// Behind the closed gate nothing on disk changes.
			g = closedLike(g, mem)
			before := tree(t, mem)
			for _, do := range []func(*gate) error{
				create(dir + "/MANIFEST-000009"), create(dir + "/marker.manifest.000009.MANIFEST-000009"),
			} {
				require.NoError(t, do(g))
			}
			for _, do := range []func(*gate) error{create(dir + "/000009.sst"), create("copy/x"), remove(dir + "/000001.sst")} {
				require.ErrorIs(t, do(g), ErrDegraded)
			}
			require.Equal(t, before, tree(t, mem))
		})
	}
}

// Goal: the same for a failure that shows only when the file is closed.
func TestGate_close(t *testing.T) {
	g := newGate(closeFails{vfs.NewMem()}, "l3", false)
	require.NoError(t, g.inner.MkdirAll("l3", 0o755))
	require.ErrorIs(t, create("l3/000001.sst")(g), syscall.EIO)
	require.NoError(t, g.refusal())
	require.NoError(t, create("l3/MANIFEST-000001")(g))
	require.ErrorIs(t, g.refusal(), ErrDegraded)
}

type closeFails struct{ vfs.FS }

func (fs closeFails) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return closeFailsFile{f}, err
}

type closeFailsFile struct{ vfs.File }

func (f closeFailsFile) Close() error {
	_ = f.File.Close()
	return syscall.EIO
}

// closedLike is g over a file system that works again.
func closedLike(g *gate, fs vfs.FS) *gate {
	n := newGate(fs, g.dir, false)
	n.cause.Store(g.cause.Load())
	return n
}

func kind(k errorfs.OpKind) func(errorfs.Op) bool {
	return func(op errorfs.Op) bool { return op.Kind == k }
}

func create(name string) func(*gate) error {
	return func(g *gate) error {
		f, err := g.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		n, err := f.Write([]byte("abc"))
		if err == nil && n != 3 {
			panic("short write without an error")
		}
		if err != nil {
			_ = f.Close()
			return err
		}
		if err := f.Sync(); err != nil {
			_ = f.Close()
			return err
		}
		return f.Close()
	}
}

func remove(name string) func(*gate) error {
	return func(g *gate) error { return g.Remove(name) }
}

func tree(t *testing.T, fs vfs.FS) string {
	t.Helper()
	var all []string
	for _, d := range []string{"store/l3", "copy"} {
		ls, err := fs.List(d)
		require.NoError(t, err)
		for _, n := range ls {
			all = append(all, d+"/"+n+":"+string(readFile(t, fs, d+"/"+n)))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}
