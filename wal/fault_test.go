package wal

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/stretchr/testify/require"
)

// quiet is a store whose background sleeps: what happens, the test makes happen.
func quiet(t *testing.T, tune func(*Options)) *trial {
	tr := newTrial(t, &workload{tune: tune}, simfs.New(nil))
	tr.name = t.Name()
	require.NoError(t, tr.open())
	return tr
}

// commit is a Commit of n bytes.
func (tr *trial) commit(ctx context.Context, n int) (uint64, error) {
	b := payloadOf(7, n)
	return tr.log.Commit(ctx, b, 1, Checksum(b), nil)
}

// Goal: a writer that waits for a slow disk under Never can walk away, and then
// nothing of its batch lands.
func TestLog_Commit_neverAndCancelled(t *testing.T) {
	disk := simfs.New(nil)
	o := memOptions(disk)
	o.Policy = Never
	s := openStore(t, o)
	stall := disk.Inject(simfs.Rule{Ops: simfs.OpWriteAt, Path: "*" + sparePrefix + "*", Every: 1, Stall: true})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	time.AfterFunc(50*time.Millisecond, cancel)
	b := payloadOf(1, 900)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		_, err = s.log.Commit(ctx, b, 1, Checksum(b), nil)
	}
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrInDoubt)
	s.log.commitMu.Lock()
	require.ErrorIs(t, s.log.buf.wait(ctx), context.Canceled, "and before it waits")
	s.log.commitMu.Unlock()
	stall.Remove()
	s.close()
	s = openStore(t, o)
	require.Len(t, s.got, n-1)
	s.close()
}

// Goal: a group that is written when somebody else's failure poisons the log is
// in doubt.
func TestLog_Commit_poisonedMeanwhile(t *testing.T) {
	for _, p := range []Policy{Always, Interval} {
		tr := quiet(t, func(o *Options) { o.Policy, o.Interval = p, time.Hour })
		tr.fs.OnMutation(tr.fs.Mutations()+1, func() { tr.log.poison(syscall.EIO) })
		_, err := tr.commit(context.Background(), 10)
		require.ErrorIs(t, err, ErrInDoubt, "%v", p)
		require.ErrorIs(t, err, ErrPoisoned, "%v", p)
		require.ErrorContains(t, tr.log.Err(), "input/output error")
		require.Zero(t, tr.log.Last())
		require.ErrorIs(t, tr.end(), ErrPoisoned)
	}
}

// Goal: whoever finds no room in the forming group waits, and gets an answer
// from its context and from Close.
func TestLog_Commit_noRoomInGroup(t *testing.T) {
	s := openStore(t, memOptions(simfs.New(nil)))
	l := s.log
	l.commitMu.Lock()
	answers := make(chan error, 3)
	go func() {
		_, err := l.Commit(context.Background(), make([]byte, l.groupCap-100), 1, Checksum(make([]byte, l.groupCap-100)), nil)
		answers <- err
	}()
	forming := func() *group { l.groupMu.Lock(); defer l.groupMu.Unlock(); return l.forming }
	require.Eventually(t, func() bool { return forming() != nil }, 5*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	b := payloadOf(1, 500)
	_, err := l.Commit(ctx, b, 1, Checksum(b), nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, ErrInDoubt)
	go func() { _, err := l.Commit(context.Background(), b, 1, Checksum(b), nil); answers <- err }()
	require.Eventually(t, func() bool {
		g := forming()
		l.groupMu.Lock()
		defer l.groupMu.Unlock()
		return g.full.Load() && len(l.outside) == 1
	}, 5*time.Second, time.Millisecond)
	time.Sleep(time.Millisecond)
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	require.ErrorIs(t, <-answers, ErrClosed, "who waits outside is not let in any more")
	l.commitMu.Unlock()
	require.NoError(t, <-answers, "who was in the group is")
	require.NoError(t, <-closed)
	require.ErrorIs(t, l.Barrier(func(uint64) {}), ErrClosed)
	require.ErrorIs(t, l.SetFlushed(1, 1, 1), ErrClosed)
	require.NoError(t, l.drain())
	_, err = l.Commit(context.Background(), make([]byte, l.groupCap), 1, 0, nil)
	require.ErrorIs(t, err, ErrClosed)
}

// Goal: a batch that waits behind another one that is too large for company
// can walk away.
func TestLog_Commit_largeWaitsForLarge(t *testing.T) {
	tr := quiet(t, nil)
	tr.log.large <- struct{}{}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	_, err := tr.commit(ctx, 10_000)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, ErrInDoubt)
	<-tr.log.large
	require.NoError(t, tr.end())
}

// Goal: a wait for a sync ends with its context, the sync goes on.
func TestLog_WaitDurable_cancelled(t *testing.T) {
	tr := quiet(t, func(o *Options) { o.Policy, o.Interval = Interval, time.Hour })
	require.NoError(t, tr.put(10))
	ctx, cancel := context.WithCancel(context.Background())
	stall := tr.fs.Inject(simfs.Rule{Ops: simfs.OpSyncData, Stall: true})
	time.AfterFunc(5*time.Millisecond, cancel)
	require.ErrorIs(t, tr.log.WaitDurable(ctx, 1), context.Canceled)
	require.ErrorIs(t, tr.log.WaitDurable(ctx, 1), context.Canceled, "and at once")
	require.Zero(t, tr.log.Durable())
	stall.Remove()
	require.NoError(t, tr.sync())
	require.NoError(t, tr.put(10))
	log := tr.log
	log.poison(syscall.EIO)
	require.ErrorIs(t, tr.end(), ErrPoisoned)
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	require.ErrorIs(t, log.WaitDurable(ctx, 2), ErrPoisoned, "after Close, too")
}

// Goal: a large copy fails with any of its writes, and says so.
func TestLog_CopyTo_largeFails(t *testing.T) {
	tr := quiet(t, func(o *Options) { o.SegmentBytes, o.MaxGroupBytes = 2<<20, 1<<20 })
	require.NoError(t, tr.puts(700_000, 700_000, 2_500_000, 100))
	for nth := 1; ; nth++ {
		dst := simfs.New(nil)
		fault := dst.Inject(simfs.FullDisk("*"+segmentSuffix, nth))
		err := tr.log.CopyTo(dst, "copy", 0, 1, 4)
		if fault.Fired() == 0 {
			require.NoError(t, err)
			require.Greater(t, nth, 8)
			o := tr.o
			o.FS, o.Dir = dst, "copy"
			s, err := tryRecover(t, o, 0)
			require.NoError(t, err)
			require.Len(t, s.got, 4)
			require.Len(t, s.got[3], 2_500_012)
			break
		}
		require.Error(t, err)
		_, err = ReadState(dst, "copy")
		require.ErrorIs(t, err, fs.ErrNotExist, "half a copy is no store")
	}
	require.NoError(t, tr.end())
}

// Goal: what is no longer in the log, or does not verify there, is not copied.
func TestLog_CopyTo_refuses(t *testing.T) {
	tr := quiet(t, nil)
	require.NoError(t, tr.puts(5000, 5000, 5000))
	name := "/db/log/" + segmentName(tr.log.segs[0].no)
	whole := tr.fs.Tree()[name].Data
	bad := append([]byte(nil), whole...)
	bad[framesOffset+openBytes+frameHeaderBytes+1000] ^= 1
	require.NoError(t, tr.fs.Put(name, bad))
	require.ErrorIs(t, tr.log.CopyTo(tr.fs, "copy", 0, 1, 3), ErrCorrupt)
	bad[0], bad[pageBytes] = 1, 1
	require.NoError(t, tr.fs.Put(name, bad))
	require.ErrorIs(t, tr.log.CopyTo(tr.fs, "copy", 0, 1, 3), ErrCorrupt)
	require.NoError(t, tr.fs.Put(name, whole))
	require.NoError(t, tr.flush())
	require.NoError(t, tr.tick(2*time.Second))
	tr.tend()
	tr.log.mu.Lock()
	tr.log.segs = nil // whoever recycled them
	tr.log.mu.Unlock()
	require.ErrorContains(t, tr.log.CopyTo(tr.fs, "copy", 0, 1, 3), "no longer in the log")
	require.NoError(t, tr.end())
	// Nor is what the open before left unread.
	require.NoError(t, tr.open())
	require.NoError(t, tr.put(1))
	require.ErrorContains(t, tr.log.CopyTo(tr.fs, "copy", 0, 1, 4), "no longer in the log")
	require.NoError(t, tr.end())
}

// Goal: if the disk fills up while segments for one batch are gathered, nothing
// is written, and what was gathered is used or given back.
func TestLog_Commit_spanGivesBack(t *testing.T) {
	tr := quiet(t, nil)
	tr.fs.SetCapacity(8*16<<10 + stateBytes)
	_, err := tr.commit(context.Background(), 100_000)
	require.ErrorIs(t, err, ErrDiskFull)
	require.NoError(t, tr.log.Err())
	require.EqualValues(t, 1, tr.log.Metrics().DiskFull)
	require.Greater(t, len(tr.log.spares), 3)
	fault := tr.fs.Inject(simfs.Rule{Ops: simfs.OpRemove, Err: syscall.EIO})
	tr.tend()
	fault.Remove()
	require.Len(t, tr.log.spares, 2, "two are kept")
	tr.fs.SetCapacity(0)
	require.NoError(t, tr.puts(100_000, 10))
	require.NoError(t, tr.end())
	require.NoError(t, tr.open())
	require.NoError(t, tr.end())
}

// Goal: segments of no fixed size grow with what has to fit.
func TestLog_Commit_adaptiveSegments(t *testing.T) {
	tr := quiet(t, func(o *Options) { o.SegmentBytes = 0 })
	require.NoError(t, tr.puts(3_000_000, 10, 5_000_000))
	require.GreaterOrEqual(t, tr.log.cur.size, int64(3_000_000))
	require.NoError(t, tr.end())
	require.NoError(t, tr.open())
	require.Len(t, tr.acked, 3)
	require.NoError(t, tr.end())
}

// Goal: a name that somebody else made is not replaced: the log stops.
func TestLog_installNew_otherOwner(t *testing.T) {
	tr := quiet(t, nil)
	require.NoError(t, tr.put(5000))
	no := tr.log.nextNo
	require.NoError(t, tr.fs.Put("/db/log/"+segmentName(no), []byte("not ours")))
	err := tr.puts(5000, 5000, 5000)
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorContains(t, err, "another owner")
	require.Equal(t, "not ours", string(tr.fs.Tree()["/db/log/"+segmentName(no)].Data))
	require.ErrorIs(t, tr.end(), ErrPoisoned)
}

// Goal: the file of a segment that is begun never has bytes of an orphan.
func TestFiles_create_orphan(t *testing.T) {
	disk := simfs.New(nil)
	require.NoError(t, disk.MkdirAll("/db/log", 0o755))
	f := newFiles(disk, "db")
	orphan := "/db/log/" + spareName(3)
	require.NoError(t, disk.Put(orphan, []byte(strings.Repeat("x", 30_000))))
	fault := disk.Inject(simfs.FailOnce(simfs.OpSyncDir, "", 1, syscall.EIO))
	_, err := f.create(segmentHeader{segNo: 3, salt: 1}, 16<<10)
	require.ErrorIs(t, err, syscall.EIO)
	fault.Remove()
	require.NoError(t, disk.Put(orphan, []byte(strings.Repeat("x", 30_000))))
	s, err := f.create(segmentHeader{segNo: 3, salt: 1}, 16<<10)
	require.NoError(t, err)
	require.NoError(t, s.f.Close())
	b := disk.Tree()[orphan].Data
	require.Len(t, b, 16<<10)
	require.True(t, allZero(b[framesOffset:]))
}

// Goal: a segment whose OPEN cannot be read is no spare.
func TestRecover_openUnreadable(t *testing.T) {
	f := newForge(1)
	disk, st := forged(t, f)
	// Too short for the window to have OPEN.
	require.NoError(t, disk.Put("/db/log/"+segmentName(1), append(f.b, make([]byte, 8)...)))
	rec, err := Recover(memOptions(disk), st, 0, ReplayFuncs{})
	require.NoError(t, err)
	require.Zero(t, rec.LastLSN)
	disk.Inject(simfs.FailOnce(simfs.OpReadAt, "", 2, syscall.EIO))
	_, err = Recover(memOptions(disk), st, 0, ReplayFuncs{})
	require.ErrorIs(t, err, syscall.EIO)
	require.NotErrorIs(t, err, ErrCorrupt)
}

// Goal: without room for a MARKER, STATE makes the promise.
func TestLog_writeMarker_noRoom(t *testing.T) {
	tr := quiet(t, nil)
	require.NoError(t, tr.put(10))
	room := int(tr.log.curRoom())
	require.NoError(t, tr.put(room-frameHeaderBytes-8-12-8))
	require.Less(t, tr.log.curRoom(), int64(frameHeaderBytes))
	for _, after := range []time.Duration{0, time.Millisecond} {
		require.NoError(t, tr.tick(after))
	}
	require.Zero(t, tr.log.Metrics().Markers)
	require.EqualValues(t, 2, tr.log.State().Synced)
	require.NoError(t, tr.end())
}

// Goal: options that contradict themselves are refused by name.
func TestRecover_badOptions(t *testing.T) {
	mem := vfs.NewMem()
	for want, o := range map[string]Options{
		"FS is nil":    {Dir: "db"},
		"Dir is empty": {FS: mem},
		"Policy":       {FS: mem, Dir: "db", Policy: 9},
		"Mode":         {FS: mem, Dir: "db", Mode: 9},
		"SegmentBytes": {FS: mem, Dir: "db", SegmentBytes: 1},
		"negative":     {FS: mem, Dir: "db", Interval: -1},
	} {
		_, err := Recover(o, State{}, 0, ReplayFuncs{})
		require.ErrorContains(t, err, want)
	}
}

// Goal: an error says where the damage is, and what is beneath.
func TestCorruptError_Error(t *testing.T) {
	err := error(&CorruptError{File: "a", Offset: 7, What: "gone", Err: fs.ErrNotExist})
	require.EqualError(t, err, "wal: corrupt: a: offset 7: gone: file does not exist")
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, corrupt("a", 7, "gone"), "wal: corrupt: a: offset 7: gone")
	p := &poisonError{errors.New("cause")}
	require.EqualError(t, p, "wal: poisoned by an earlier failure: cause")
}

// Goal: who finds no room is let in first come, first served, and no more of them than fit;
// who walks away holds up nobody.
func TestLog_enter_firstComeFirstServed(t *testing.T) {
	tr := quiet(t, nil)
	l := tr.log
	third := l.groupCap / 3
	l.groupMu.Lock()
	require.NoError(t, l.enter(context.Background(), l.groupCap))
	l.groupMu.Unlock()
	entered, failed := make(chan int), make(chan error, 1)
	come := func(ctx context.Context, name, need int) {
		before := len(l.outside)
		go func() {
			l.groupMu.Lock()
			err := l.enter(ctx, need)
			l.groupMu.Unlock()
			if err != nil {
				failed <- err
				return
			}
			entered <- name
		}()
		require.Eventually(t, func() bool {
			l.groupMu.Lock()
			defer l.groupMu.Unlock()
			return len(l.outside) == before+1
		}, 5*time.Second, time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	come(ctx, 0, l.groupCap)
	for name := 1; name <= 7; name++ {
		come(context.Background(), name, third)
	}
	leave := func(n int) {
		l.groupMu.Lock()
		defer l.groupMu.Unlock()
		l.leave(n)
	}
	group := func() (names []int) {
		for range 3 {
			names = append(names, <-entered)
		}
		slices.Sort(names)
		select {
		case n := <-entered:
			t.Fatalf("%d is one too many", n)
		case <-time.After(5 * time.Millisecond):
		}
		return names
	}
	leave(third) // the first needs more, and the others wait behind it
	select {
	case n := <-entered:
		t.Fatalf("%d passed the first", n)
	case <-time.After(5 * time.Millisecond):
	}
	come(context.Background(), 8, third) // there is room for it, and it was not first
	leave(l.groupCap - third)
	cancel() // it was let in, and gives its room back
	select {
	case err := <-failed:
		require.ErrorIs(t, err, context.Canceled)
	case n := <-entered:
		require.Zero(t, n)
		leave(l.groupCap)
	}
	require.Equal(t, []int{1, 2, 3}, group())
	leave(3 * third)
	require.Equal(t, []int{4, 5, 6}, group())
	leave(third)
	require.Equal(t, 7, <-entered)
	leave(third)
	require.Equal(t, 8, <-entered)
	leave(3 * third)
	require.Zero(t, l.entered)
	require.NoError(t, tr.end())
}
