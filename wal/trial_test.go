package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/stretchr/testify/require"
)

// trial is one run of a workload, what it was told, and what must be true then.
type trial struct {
	t    testing.TB
	w    *workload
	fs   *simfs.FS
	o    Options
	name string

	log     *Log
	acked   map[uint64]uint64 // number -> seed: acknowledged, or served by a recovery
	issued  map[uint64]bool   // seeds handed to Commit
	starts  map[uint64]bool   // first numbers of lives; only before them may numbers be missing
	durable uint64            // promised
	above   uint64            // what the imaginary storage has
	seed    uint64
	keeper  keeper
}

func newTrial(t testing.TB, w *workload, disk *simfs.FS) *trial {
	o := memOptions(disk)
	if w.tune != nil {
		w.tune(&o)
	}
	return &trial{t: t, w: w, fs: disk, o: o, acked: map[uint64]uint64{},
		issued: map[uint64]bool{}, starts: map[uint64]bool{1: true}}
}

// again is a trial of its own that goes on where tr is.
func (tr *trial) again(disk *simfs.FS, name string) *trial {
	c := *tr
	c.fs, c.o.FS, c.log, c.name = disk, disk, nil, name
	c.acked, c.issued, c.starts = maps.Clone(tr.acked), maps.Clone(tr.issued), maps.Clone(tr.starts)
	return &c
}

// enter does what an owner does before he recovers.
func (tr *trial) enter() (State, error) {
	st, err := ReadState(tr.fs, "db")
	if errors.Is(err, fs.ErrNotExist) {
		st, err = CreateState(tr.fs, "db", testUUID)
	}
	if err == nil {
		// Whoever made STATE may have been stopped before its name was durable.
		err = errors.Join(syncDir(tr.fs, "/"), syncDir(tr.fs, "db"))
	}
	return st, err
}

// recover reads the log, and compares it with what was promised if it succeeds.
func (tr *trial) recover(o Options, st State, durable bool) (*Recovery, []numbered, error) {
	var got []numbered
	rec, err := Recover(o, st, tr.above, ReplayFuncs{Replay: func(lsn uint64, p []byte, _ uint32) error {
		seed, err := seedOfPayload(p)
		got = append(got, numbered{lsn, seed})
		return err
	}})
	if err == nil && o.Mode < PointInTime {
		tr.compare(rec, got, durable)
	}
	return rec, got, err
}

// compare fails the test if a recovery lacks a record, holds one twice, has a
// hole, or would give a number again. With durable, what was never synced may
// be missing.
func (tr *trial) compare(rec *Recovery, got []numbered, durable bool) {
	tr.t.Helper()
	have := map[uint64]bool{}
	var before uint64
	for _, g := range got {
		seed, known := tr.acked[g.lsn]
		switch {
		case g.lsn <= before || g.lsn <= tr.above:
			tr.fatalf("number %d after %d, storage has %d", g.lsn, before, tr.above)
		case known && seed != g.seed || !tr.issued[g.seed]:
			tr.fatalf("number %d holds %d, acknowledged %d (%v)", g.lsn, g.seed, seed, known)
		case before != 0 && g.lsn != before+1 && !tr.starts[g.lsn]:
			tr.fatalf("a hole: %d after %d", g.lsn, before)
		}
		have[g.lsn], before = true, g.lsn
	}
	for lsn, seed := range tr.acked {
		// Under Never a record is acknowledged from memory, and the write may fail.
		if !have[lsn] && lsn > tr.above && !((durable || tr.o.Policy == Never) && lsn > tr.durable) {
			tr.fatalf("number %d (%d) was acknowledged and is gone; %d were promised", lsn, seed, tr.durable)
		}
		if rec.NextLSN <= lsn {
			tr.fatalf("number %d would be given again", lsn)
		}
	}
}

func (tr *trial) fatalf(format string, args ...any) {
	tr.t.Helper()
	tr.t.Fatalf("%s: %s\n%s", tr.name, fmt.Sprintf(format, args...), tr.fs.Trace())
}

// open recovers and starts. The background is put to sleep once it has made
// its first spare, so that the calls that follow have a fixed order.
func (tr *trial) open() error {
	st, err := tr.enter()
	if err != nil {
		return err
	}
	rec, got, err := tr.recover(tr.o, st, false)
	if err != nil {
		return err
	}
	log, err := rec.Start()
	if err != nil {
		return err
	}
	tr.log = log
	tr.starts[rec.NextLSN] = true
	if tr.o.Policy == Never {
		clear(tr.acked)
	}
	for _, g := range got {
		tr.acked[g.lsn] = g.seed // served from now on
		tr.durable = max(tr.durable, g.lsn)
	}
	if tr.w.live {
		return nil
	}
	tr.await(func() bool { return len(log.makeKick) == 0 || log.Err() != nil })
	tr.hush()
	tr.keeper = keeper{log: log, lastState: time.Now(), lastSync: time.Now()}
	return nil
}

func (tr *trial) await(done func() bool) {
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Microsecond) {
		if time.Now().After(end) {
			tr.fatalf("the background does not come to rest")
		}
	}
}

func (tr *trial) hush() {
	close(tr.log.stop)
	tr.log.background.Wait()
	tr.log.stop = make(chan struct{})
}

// tend lets the background make and recycle segments, once.
func (tr *trial) tend() {
	l := tr.log
	kick(l.makeKick)
	l.background.Go(l.make)
	tr.await(func() bool { return len(l.makeKick) == 0 })
	tr.hush()
}

// tick lets the keeper look at the log at a time of the caller's choice.
func (tr *trial) tick(after time.Duration) error {
	tr.keeper.run(time.Now().Add(after))
	return tr.log.Err()
}

// put commits one batch of n bytes.
func (tr *trial) put(n int) error {
	tr.seed++
	tr.issued[tr.seed] = true
	b := payloadOf(tr.seed, n)
	lsn, err := tr.log.Commit(context.Background(), b, 1, Checksum(b), nil)
	if err != nil {
		return err
	}
	tr.acked[lsn] = tr.seed
	if tr.o.Policy == Always {
		tr.durable = max(tr.durable, lsn)
	}
	return nil
}

func (tr *trial) puts(sizes ...int) error {
	for _, n := range sizes {
		if err := tr.put(n); err != nil {
			return err
		}
	}
	return nil
}

// sync makes durable what was acknowledged.
func (tr *trial) sync() error {
	last := tr.log.Last()
	err := tr.log.Sync(context.Background())
	if err == nil {
		tr.durable = max(tr.durable, last)
	}
	return err
}

// flush moves everything so far into the imaginary storage.
func (tr *trial) flush() error {
	if err := tr.sync(); err != nil {
		return err
	}
	tr.above = tr.log.Last()
	return tr.log.SetFlushed(tr.above, 1, 1)
}

// end closes the log. A log that is poisoned says so to everybody, until the end.
func (tr *trial) end() error {
	l := tr.log
	tr.log = nil
	cause := l.Err()
	if cause != nil {
		b := payloadOf(1, 1)
		_, err := l.Commit(context.Background(), b, 1, Checksum(b), nil)
		require.ErrorIs(tr.t, err, ErrPoisoned, tr.name)
		require.ErrorIs(tr.t, l.Barrier(func(uint64) {}), ErrPoisoned, tr.name)
		require.ErrorIs(tr.t, l.writeState(nil), ErrPoisoned, tr.name)
		require.ErrorIs(tr.t, l.sync(), ErrPoisoned, tr.name)
		require.ErrorIs(tr.t, l.SetFlushed(l.Last(), 9, 9), ErrPoisoned, tr.name)
		if l.Last() > l.Durable() {
			require.ErrorIs(tr.t, l.Sync(context.Background()), ErrPoisoned, tr.name)
			require.ErrorIs(tr.t, l.CopyTo(tr.fs, "never", 0, 0, l.Last()), ErrPoisoned, tr.name)
		}
		b = payloadOf(1, l.groupCap)
		_, err = l.Commit(context.Background(), b, 1, Checksum(b), nil)
		require.ErrorIs(tr.t, err, ErrPoisoned, tr.name)
		l.commitMu.Lock()
		err = l.commit(&group{}) // one that formed before
		l.commitMu.Unlock()
		require.ErrorIs(tr.t, err, ErrPoisoned, tr.name)
	}
	last := l.Last()
	err := l.Close()
	if cause != nil {
		require.ErrorIs(tr.t, err, ErrPoisoned, tr.name)
	}
	if err == nil {
		tr.durable = max(tr.durable, last)
	}
	return err
}

// copyElsewhere copies a running log, and looks at the copy after a power cut.
func copyElsewhere(tr *trial, above uint64) error {
	if err := tr.open(); err != nil {
		return err
	}
	if err := tr.puts(5000, 300); err != nil {
		return err
	}
	if err := tr.log.CopyTo(tr.fs, "copies/one", above, 1, tr.log.Last()); err != nil {
		return err
	}
	disk := tr.fs.Crash(simfs.CrashConfig{Image: simfs.Nothing})
	st, err := ReadState(disk, "copies/one")
	require.NoError(tr.t, err, tr.name)
	c := tr.again(disk, tr.name+", the copy")
	c.o.Dir, c.above = "copies/one", above
	_, _, err = c.recover(c.o, st, true)
	require.NoError(tr.t, err, c.name)
	return nil
}
