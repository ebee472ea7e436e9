package simfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal: a rule strikes the kinds, paths and calls that it names, and no others.
func TestFS_Inject_when(t *testing.T) {
	for _, c := range []struct {
		rule Rule
		want string // per write: . is fine, x fails
	}{
		{Rule{}, "x......."},
		{FailOnce(OpWrite, "f", 3, syscall.EIO), "..x....."},
		{FailFrom(OpWrite, "/f", 3, syscall.EIO), "..xxxxxx"},
		{Rule{Nth: 2, Every: 3}, ".x..x..x"},
		{Rule{Path: "g"}, "........"},
		{Rule{Path: "d/f"}, "........"},
		{Rule{Ops: OpReads | OpSync}, "........"},
		{Rule{Path: "[a-f]*", Nth: 8}, ".......x"},
	} {
		fs := New(nil)
		f := put(t, fs, "f", nil)
		if c.rule.Err = syscall.EIO; c.rule.Ops == 0 {
			c.rule.Ops = OpWrites
		}
		fault := fs.Inject(c.rule)
		got := ""
		for range 8 {
			n, err := f.Write([]byte("x"))
			if err == nil {
				got += "."
				continue
			}
			require.Zero(t, n)
			require.ErrorIs(t, err, syscall.EIO)
			require.ErrorIs(t, err, ErrInjected)
			var pe *os.PathError
			require.True(t, errors.As(err, &pe))
			got += "x"
		}
		require.Equal(t, c.want, got, "%+v", c.rule)
		fired := 0
		for _, r := range got {
			if r == 'x' {
				fired++
			}
		}
		require.Equal(t, fired, fault.Fired())
		fault.Remove()
		_, err := f.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

// Goal: chance comes from the seed.
func TestFS_Inject_probability(t *testing.T) {
	run := func(seed uint64) (got string) {
		fs := New(&Options{Seed: seed})
		fs.Inject(Rule{Ops: OpStat, Probability: 0.3, Err: syscall.EIO})
		for range 200 {
			if _, err := fs.Stat("/"); err != nil {
				got += "x"
			} else {
				got += "."
			}
		}
		return got
	}
	require.Equal(t, run(1), run(1))
	require.NotEqual(t, run(1), run(2))
	require.Contains(t, run(1), "x")
	require.Contains(t, run(1), ".")
}

// Goal: every call that can fail on a disk can be made to, leaves no trace of itself,
// and no handle.
func TestFS_Inject_everyCall(t *testing.T) {
	calls := map[Op]func(fs *FS, f, d vfs.File) error{
		OpCreate:        func(fs *FS, _, _ vfs.File) error { _, err := fs.Create("n", cat); return err },
		OpOpen:          func(fs *FS, _, _ vfs.File) error { _, err := fs.Open("f"); return err },
		OpOpenReadWrite: func(fs *FS, _, _ vfs.File) error { _, err := fs.OpenReadWrite("n", cat); return err },
		OpOpenDir:       func(fs *FS, _, _ vfs.File) error { _, err := fs.OpenDir("/"); return err },
		OpReuse:         func(fs *FS, _, _ vfs.File) error { _, err := fs.ReuseForWrite("f", "n", cat); return err },
		OpLink:          func(fs *FS, _, _ vfs.File) error { return fs.Link("f", "n") },
		OpRename:        func(fs *FS, _, _ vfs.File) error { return fs.Rename("f", "n") },
		OpRemove:        func(fs *FS, _, _ vfs.File) error { return fs.Remove("f") },
		OpRemoveAll:     func(fs *FS, _, _ vfs.File) error { return fs.RemoveAll("f") },
		OpMkdir:         func(fs *FS, _, _ vfs.File) error { return fs.MkdirAll("n", 0) },
		OpLock:          func(fs *FS, _, _ vfs.File) error { _, err := fs.Lock("n"); return err },
		OpList:          func(fs *FS, _, _ vfs.File) error { _, err := fs.List("/"); return err },
		OpStat:          func(fs *FS, _, _ vfs.File) error { _, err := fs.Stat("f"); return err },
		OpDiskUsage:     func(fs *FS, _, _ vfs.File) error { _, err := fs.GetDiskUsage("/"); return err },
		OpRead:          func(_ *FS, f, _ vfs.File) error { _, err := f.Read(make([]byte, 1)); return err },
		OpReadAt:        func(_ *FS, f, _ vfs.File) error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		OpWrite:         func(_ *FS, f, _ vfs.File) error { _, err := f.Write([]byte("n")); return err },
		OpWriteAt:       func(_ *FS, f, _ vfs.File) error { _, err := f.WriteAt([]byte("n"), 0); return err },
		OpTruncate:      func(_ *FS, f, _ vfs.File) error { return f.(*file).Truncate(0) },
		OpPreallocate:   func(_ *FS, f, _ vfs.File) error { return f.Preallocate(0, 10) },
		OpSync:          func(_ *FS, f, _ vfs.File) error { return f.Sync() },
		OpSyncDir:       func(_ *FS, _, d vfs.File) error { return d.Sync() },
		OpSyncData:      func(_ *FS, f, _ vfs.File) error { return f.SyncData() },
		OpSyncTo:        func(_ *FS, f, _ vfs.File) error { _, err := f.SyncTo(1); return err },
		OpFileStat:      func(_ *FS, f, _ vfs.File) error { _, err := f.Stat(); return err },
		OpPrefetch:      func(_ *FS, f, _ vfs.File) error { return f.Prefetch(0, 1) },
		OpClose:         func(_ *FS, f, _ vfs.File) error { return f.Close() },
	}
	for op := OpCreate; op <= OpPrefetch; op <<= 1 {
		require.Contains(t, calls, op)
		for _, effect := range []Effect{EffectNone, EffectDone} {
			fs := New(nil)
			f := keep(t, fs, "f", []byte("x"))
			f.Close()
			f, err := fs.OpenReadWrite("f", cat)
			require.NoError(t, err)
			d, err := fs.OpenDir("/")
			require.NoError(t, err)
			before, open := fs.Tree(), fs.open
			fs.Inject(Rule{Ops: op, Err: syscall.EDQUOT, Effect: effect})
			require.ErrorIs(t, calls[op](fs, f, d), syscall.EDQUOT, "%v", op)
			if effect == EffectNone {
				require.True(t, fs.Tree().Equal(before), "%v", op)
			} else if op&(OpNames|OpWrites|OpTruncate) != 0 {
				require.False(t, fs.Tree().Equal(before), "%v: should be done", op)
			}
			if op == OpClose {
				open--
				require.ErrorIs(t, f.Close(), os.ErrClosed)
			} else {
				require.NoError(t, f.Close())
				open--
			}
			require.Equal(t, open, fs.open, "%v left a handle", op)
			require.NoError(t, d.Close())
			require.NotContains(t, op.String(), "|")
		}
	}
}

// Goal: short writes and reads transfer a part, and say so.
func TestFS_Inject_short(t *testing.T) {
	fs := New(nil)
	f := put(t, fs, "f", nil)
	fs.Inject(Rule{Ops: OpWrite, Short: true})
	n, err := f.Write([]byte("abcdef"))
	require.Equal(t, 3, n)
	require.ErrorIs(t, err, io.ErrShortWrite)
	fs.Inject(Rule{Ops: OpWrite, Short: true, Keep: 2, Err: syscall.ENOSPC})
	n, err = f.Write([]byte("def"))
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.True(t, vfs.IsNoSpaceError(err))
	require.Equal(t, "abcde", text(t, f))
	fs.Inject(Rule{Ops: OpReadAt, Short: true})
	p := make([]byte, 4)
	n, err = f.ReadAt(p, 0)
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	fs.Inject(Rule{Ops: OpRead, Short: true, Keep: 1})
	g, err := fs.Open("f")
	require.NoError(t, err)
	n, err = g.Read(p)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = g.Read(p)
	require.NoError(t, err)
	require.Equal(t, "bcde", string(p[:n]))
	require.NoError(t, f.Close())
	require.NoError(t, g.Close())
}

// Goal: a slow disk waits on the injected clock, and holds up nobody else.
func TestFS_Inject_delay(t *testing.T) {
	var slept time.Duration
	var fs *FS
	fs = New(&Options{Sleep: func(d time.Duration) {
		slept += d
		fs.List("/") // others go on
	}})
	fs.Inject(Delay(OpSync, "*.log", 10*time.Second))
	fs.Inject(Delay(OpSync, "1.log", time.Second))
	f := keep(t, fs, "1.log", []byte("x"))
	require.Equal(t, 11*time.Second, slept)
	require.NoError(t, f.Close())
}

// Goal: a write that comes while a sync is under way is not covered by it.
func TestFile_Sync_coversOnlyBefore(t *testing.T) {
	var f vfs.File
	fs := New(&Options{Damage: DamageNone, Sleep: func(time.Duration) {
		_, err := f.WriteAt([]byte("late"), 0)
		require.NoError(t, err)
	}})
	f = put(t, fs, "f", []byte("soon"))
	syncDir(t, fs, "/")
	fs.Inject(Delay(OpSync, "", 1))
	require.NoError(t, f.Sync())
	require.ElementsMatch(t, []string{"soon", "late", "\x00\x00\x00\x00"}, keys(outcomes(fs, 50, dataOf("/f"))))
	require.NoError(t, f.Close())
}

// Goal: a stall holds its calls until it is released, or until the power goes.
func TestFS_Inject_stall(t *testing.T) {
	fs := New(nil)
	f := put(t, fs, "f", []byte("x"))
	stall := fs.Inject(Rule{Ops: OpSync, Every: 1, Stall: true})
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = f.Sync() })
	for stall.Fired() == 0 {
		time.Sleep(time.Millisecond)
	}
	_, werr := f.Write([]byte("y"))
	require.NoError(t, werr)
	stall.Release()
	wg.Wait()
	require.NoError(t, err)
	require.NoError(t, f.Sync())

	again := fs.Inject(Rule{Ops: OpSync, Every: 1, Stall: true})
	wg.Go(func() { err = f.Sync() })
	for again.Fired() == 0 {
		time.Sleep(time.Millisecond)
	}
	fs.Kill()
	wg.Wait()
	require.ErrorIs(t, err, ErrKilled)
}

// Goal: a full disk: writes go as far as they can, space comes back, inodes run out.
func TestFS_capacity(t *testing.T) {
	fs := New(&Options{Capacity: 1000, Inodes: 3, MaxOpen: 3})
	f := put(t, fs, "f", make([]byte, 600))
	n, err := f.Write(make([]byte, 600))
	require.Equal(t, 400, n)
	require.ErrorIs(t, err, syscall.ENOSPC)
	n, err = f.Write([]byte("x"))
	require.Zero(t, n)
	require.True(t, vfs.IsNoSpaceError(err))
	_, err = f.WriteAt(make([]byte, 1000), 0) // what is there may be overwritten
	require.NoError(t, err)
	u, err := fs.GetDiskUsage("/")
	require.NoError(t, err)
	require.Equal(t, vfs.DiskUsage{TotalBytes: 1000, UsedBytes: 1000}, u)
	require.ErrorIs(t, f.Preallocate(0, 1001), syscall.ENOSPC)
	require.NoError(t, f.(*file).Truncate(10))
	require.NoError(t, f.Preallocate(0, 500))
	u, _ = fs.GetDiskUsage("/")
	require.EqualValues(t, 500, u.AvailBytes)
	fs.SetCapacity(800)
	require.ErrorIs(t, f.(*file).Truncate(900), syscall.ENOSPC)

	g := put(t, fs, "g", make([]byte, 300))
	require.NoError(t, fs.MkdirAll("d", 0))
	require.ErrorIs(t, fs.MkdirAll("e", 0), syscall.ENOSPC)
	_, err = fs.Create("h", cat)
	require.ErrorIs(t, err, syscall.ENOSPC)
	h, err := fs.Open("g")
	require.NoError(t, err)
	_, err = fs.Open("f")
	require.ErrorIs(t, err, syscall.EMFILE)
	_, err = fs.OpenReadWrite("new", cat)
	require.ErrorIs(t, err, syscall.EMFILE)
	require.NoError(t, h.Close())

	require.NoError(t, fs.Remove("g")) // its space is taken until it is closed
	u, _ = fs.GetDiskUsage("/")
	require.Zero(t, u.AvailBytes)
	require.NoError(t, g.Close())
	u, _ = fs.GetDiskUsage("/")
	require.EqualValues(t, 300, u.AvailBytes)
	require.NoError(t, put(t, fs, "h", nil).Close())
	require.NoError(t, f.Close())

	img := fs.Crash(CrashConfig{Image: Everything})
	require.EqualValues(t, 10, img.used) // nobody synced the preallocation
	require.Equal(t, 3, img.inodes)
}

// Goal: the table of calls and faults is complete and sorted.
func TestFS_Coverage(t *testing.T) {
	fs := New(nil)
	fs.Inject(FailOnce(OpWrite, "", 2, syscall.EIO))
	for i := range 3 {
		f := put2(fs, fmt.Sprintf("%06d.log", i))
		f.Close()
	}
	require.Equal(t, []Coverage{{OpCreate, "#.log", 3, 0}, {OpWrite, "#.log", 3, 1}, {OpClose, "#.log", 3, 0}}, fs.Coverage())
	require.Contains(t, CoverageTable(fs.Coverage()), "write   #.log  3      1\n")
}

func put2(fs *FS, name string) vfs.File {
	f, _ := fs.Create(name, cat)
	f.Write([]byte("x"))
	return f
}

// Goal: a read that is short for ever goes on, byte by byte.
func TestRule_shortReads(t *testing.T) {
	fs := New(nil)
	put(t, fs, "f", []byte("abcdefg"))
	fs.Inject(Rule{Ops: OpRead, Nth: 1, Every: 1, Short: true})
	f, err := fs.Open("f")
	require.NoError(t, err)
	got, err := io.ReadAll(f)
	require.NoError(t, err)
	require.Equal(t, "abcdefg", string(got))
	require.NoError(t, f.Close())
}
