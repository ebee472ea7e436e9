package wal

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/stretchr/testify/require"
)

// workloads are what an owner does with a log, small enough to let every call
// of each fail.
var workloads = []*workload{
	{name: "create", run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		return tr.put(10)
	}},
	{name: "append", prepare: tidy, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		return tr.puts(10, 500, 0)
	}},
	{name: "interval", prepare: tidy, tune: func(o *Options) { o.Policy, o.Interval = Interval, time.Hour }, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		for range 2 {
			if err := errors.Join(tr.puts(3000, 3000, 3000), tr.tick(2*time.Hour)); err != nil {
				return err
			}
		}
		return tr.sync()
	}},
	{name: "never", prepare: tidy, live: true, tune: func(o *Options) { o.Policy = Never }, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		if err := tr.puts(1500, 1500, 1500, 1500, 1500, 9000); err != nil {
			return err
		}
		return tr.sync()
	}},
	// Nobody writes behind the owner's back: the close does.
	{name: "never-lease", prepare: tidy, tune: func(o *Options) { o.Policy, o.lease = Never, 2 }, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		return tr.puts(1, 2, 3, 4, 5)
	}},
	{name: "lease", prepare: tidy, tune: func(o *Options) { o.lease = 2 }, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		return tr.puts(1, 2, 3, 4, 5, 6)
	}},
	{name: "rotate", prepare: tidy, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		return tr.puts(5000, 5000, 5000, 5000)
	}},
	{name: "span", prepare: tidy, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		return tr.puts(10, 20_000, 10)
	}},
	{name: "recycle", prepare: tidy, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		for range 2 {
			if err := tr.puts(5000, 5000, 5000); err != nil {
				return err
			}
			if err := errors.Join(tr.flush(), tr.tick(2*time.Second)); err != nil {
				return err
			}
			tr.tend()
		}
		return tr.puts(5000, 5000)
	}},
	{name: "keeper", prepare: tidy, tune: func(o *Options) { o.lease = 6 }, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		if err := tr.puts(10, 10, 10, 10); err != nil {
			return err
		}
		return tr.tick(2 * time.Second) // the lease, STATE
	}},
	{name: "marker", prepare: tidy, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		if err := tr.puts(10, 10); err != nil {
			return err
		}
		for _, after := range []time.Duration{0, time.Millisecond, 100 * time.Millisecond, 2 * time.Second} {
			if err := tr.tick(after); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "reopen", prepare: killed, run: (*trial).open},
	{name: "torn", prepare: torn, run: func(tr *trial) error {
		if err := tr.open(); err != nil {
			return err
		}
		return tr.put(10)
	}},
	{name: "read-only", prepare: killed, tune: func(o *Options) { o.ReadOnly = true }, run: readOnly},
	{name: "read-only-torn", prepare: torn, tune: func(o *Options) { o.ReadOnly = true }, run: readOnly},
	{name: "copy", prepare: killed, run: func(tr *trial) error { return copyElsewhere(tr, 2) }},
	{name: "copy-empty", prepare: tidy, run: func(tr *trial) error { return copyElsewhere(tr, 5) }},
	{name: "copy-unsynced", prepare: tidy, tune: func(o *Options) { o.Policy, o.Interval = Interval, time.Hour },
		run: func(tr *trial) error { return copyElsewhere(tr, 4) }},
	// What does not fit into the reader's window is read more than once.
	{name: "large", prepare: large, tune: largeTune(Strict), ops: simfs.OpReads, run: (*trial).open},
	{name: "large-torn", prepare: largeTorn(3), tune: largeTune(Strict), ops: simfs.OpReads, unfit: true, run: likeHealthy},
	{name: "large-salvage", prepare: largeTorn(1), tune: largeTune(Salvage), ops: simfs.OpReads, unfit: true, run: likeHealthy},
	{name: "spare-only", prepare: spareOnly, run: (*trial).open},
	{name: "salvage", prepare: damagedDisk, unfit: true, tune: func(o *Options) { o.Mode = Salvage }, run: likeHealthy},
	{name: "salvage-state", prepare: damagedDisk, unfit: true, run: whoseLog},
	{name: "salvage-cut", prepare: cutBefore, unfit: true, tune: func(o *Options) { o.Mode = Salvage }, run: likeHealthy},
	{name: "point-in-time", prepare: damagedDisk, unfit: true, tune: func(o *Options) { o.Mode = PointInTime }, run: func(tr *trial) error {
		if err := likeHealthy(tr); err != nil {
			return err
		}
		return cutAndContinue(tr)
	}},
}

// tidy leaves a store that was closed.
func tidy(tr *trial) {
	require.NoError(tr.t, tr.open())
	require.NoError(tr.t, tr.puts(100, 6000, 6000))
	require.NoError(tr.t, tr.end())
}

// killed leaves several segments, a jump of the numbers, and no clean end.
func killed(tr *trial) {
	ro := tr.o.ReadOnly
	tr.o.ReadOnly = false
	tidy(tr)
	require.NoError(tr.t, tr.open())
	require.NoError(tr.t, tr.puts(100, 9000, 200, 300))
	disk := tr.fs.Crash(simfs.CrashConfig{Image: simfs.Everything})
	require.NoError(tr.t, tr.end())
	tr.fs, tr.o.FS, tr.o.ReadOnly = disk, disk, ro
}

// torn leaves a group that was never synced and does not verify, with a spare
// behind it.
func torn(tr *trial) {
	ro := tr.o.ReadOnly
	tr.o.ReadOnly = false
	tidy(tr)
	require.NoError(tr.t, tr.open())
	require.NoError(tr.t, tr.puts(100, 200))
	at, no := tr.log.pos.off, tr.log.cur.no
	tr.tend()
	disk := tr.fs.Crash(simfs.CrashConfig{Image: simfs.Everything})
	require.NoError(tr.t, tr.end())
	name := "/db/log/" + segmentName(no)
	b := bytes.Clone(disk.Tree()[name].Data)
	f := frame{kind: kindData, payloadLen: 100, salt: tr.segment(disk, no).salt, offset: at, firstLSN: 6, count: 1, synced: 4}
	f.put(b[at:], seedOf(f.salt)) // a header without its payload
	require.NoError(tr.t, disk.Put(name, b))
	tr.fs, tr.o.FS, tr.o.ReadOnly = disk, disk, ro
}

// spareOnly leaves a store whose only segment was never begun.
func spareOnly(tr *trial) {
	st, err := tr.enter()
	require.NoError(tr.t, err)
	f := newFiles(tr.fs, "db")
	s, err := f.create(segmentHeader{uuid: st.UUID, segNo: 1, salt: 7, ownerEpoch: st.OwnerEpoch}, tr.o.SegmentBytes)
	require.NoError(tr.t, err)
	require.NoError(tr.t, f.install(s))
	require.NoError(tr.t, s.f.Close())
}

func largeTune(m Mode) func(*Options) {
	return func(o *Options) { o.SegmentBytes, o.Policy, o.Interval, o.Mode = 640<<10, Interval, time.Hour, m }
}

// large leaves a segment with frames that are larger than the reader's window,
// none of them promised.
func large(tr *trial) {
	mode := tr.o.Mode
	tr.o.Mode = Strict
	require.NoError(tr.t, tr.open())
	require.NoError(tr.t, tr.puts(windowBytes+10, 100, windowBytes+20))
	disk := tr.fs.Crash(simfs.CrashConfig{Image: simfs.Everything})
	require.NoError(tr.t, tr.end())
	tr.fs, tr.o.FS, tr.o.Mode, tr.durable = disk, disk, mode, 0
}

// largeTorn is large with the last byte of a batch changed.
func largeTorn(lsn uint64) func(*trial) {
	return func(tr *trial) {
		large(tr)
		name := "/db/log/" + segmentName(1)
		b := bytes.Clone(tr.fs.Tree()[name].Data)
		p := payloadOf(lsn, windowBytes+10*int(lsn+1)/2)
		at := bytes.Index(b, p[:100])
		require.Positive(tr.t, at)
		b[at+len(p)-1] ^= 1
		require.NoError(tr.t, tr.fs.Put(name, b))
		if lsn == 3 {
			delete(tr.acked, 3) // never promised: it is cut
		}
	}
}

// cutBefore leaves a log whose torn tail was cut by a recovery, with frames
// behind the cut that verify and are no part of it any more.
func cutBefore(tr *trial) {
	a := newForge(1).open(nil).data(2).put(frame{kind: kindMarker, synced: 2}, nil)
	end := len(a.b)
	for range 2 {
		a.put(frame{kind: kindData, count: 1, synced: 2}, groupOf(1, 20))
	}
	a.b[end+frameHeaderBytes] ^= 1
	disk, st := forged(tr.t, a)
	o := memOptions(disk)
	rec, err := Recover(o, st, 0, ReplayFuncs{})
	require.NoError(tr.t, err)
	require.EqualValues(tr.t, 2, rec.LastLSN)
	var state [stateBytes]byte
	st.sequence = 1
	st.put(state[:])
	require.NoError(tr.t, disk.Put("/db/STATE", state[:]))
	tr.log, err = rec.Start()
	require.NoError(tr.t, err)
	for i := range uint64(2) {
		tr.issued[i] = true // what data writes
	}
	require.NoError(tr.t, tr.put(10))
	require.NoError(tr.t, tr.end())
	tr.fs, tr.o.FS = disk, disk
}

// segment is what the header of a segment says.
func (tr *trial) segment(disk *simfs.FS, no uint64) segmentHeader {
	h, err := parseSegmentHeader(disk.Tree()["/db/log/"+segmentName(no)].Data)
	require.NoError(tr.t, err)
	return h
}

// damagedDisk leaves a log of several segments with a byte that rotted in the
// middle of a promised frame, and one of whose headers nothing is left.
func damagedDisk(tr *trial) {
	mode := tr.o.Mode
	tr.o.Mode = Strict
	killed(tr)
	tr.o.Mode = mode
	var names []string
	for _, p := range tr.fs.Tree().Paths() {
		if no, seg, ok := parseName(p[max(0, len(p)-len(segmentName(1))):]); ok && seg && tr.opened(no) {
			names = append(names, p)
		}
	}
	require.GreaterOrEqual(tr.t, len(names), 4)
	slices.Sort(names)
	rot := func(name string, at, n int) {
		b := bytes.Clone(tr.fs.Tree()[name].Data)
		for i := range n {
			b[at+i] ^= 0xFF
		}
		require.NoError(tr.t, tr.fs.Put(name, b))
	}
	rot(names[2], framesOffset+openBytes+frameHeaderBytes+40, 1)
	rot(names[3], 0, framesOffset)
}

// opened says that a segment is more than a spare.
func (tr *trial) opened(no uint64) bool {
	r, err := openSegment(tr.fs, "db/log/"+segmentName(no), no, testUUID)
	require.NoError(tr.t, err)
	require.NoError(tr.t, r.close())
	return r.opened
}

func readOnly(tr *trial) error {
	o, before := tr.o, tr.fs.Tree().Digest()
	defer func() {
		require.Equal(tr.t, before, tr.fs.Tree().Digest(), "%s: read-only wrote", tr.name)
		tr.o.ReadOnly = false // for who comes next
	}()
	st, err := ReadState(tr.fs, "db")
	if err != nil {
		return err
	}
	rec, _, err := tr.recover(o, st, false)
	if err == nil {
		_, refused := rec.Start()
		require.ErrorIs(tr.t, refused, errReadOnly)
	}
	return err
}

// likeHealthy recovers, and finds exactly what it finds on a disk without
// faults, or is told of the fault. Only to a salvage, an EIO is damage like any
// other: what it reports may be missing.
func likeHealthy(tr *trial) error {
	st, err := ReadState(tr.fs, "db")
	if err != nil {
		return err
	}
	o := tr.o
	o.FS = tr.fs.Crash(simfs.CrashConfig{Image: simfs.Everything})
	want, all, err := tr.recover(o, st, false)
	require.NoError(tr.t, err, tr.name)
	rec, got, err := tr.recover(tr.o, st, false)
	if err != nil {
		return err
	}
	if rotten := slices.ContainsFunc(rec.Lost, func(l Loss) bool {
		return strings.Contains(l.What, syscall.EIO.Error())
	}); rotten && o.Mode == Salvage {
		// What the unreadable segment says of the others is gone, too.
		require.True(tr.t, slices.IsSortedFunc(got, func(a, b numbered) int { return cmp.Compare(a.lsn, b.lsn) }), tr.name)
		return nil
	}
	require.Equal(tr.t, all, got, "%s: the fault passed for damage", tr.name)
	require.Equal(tr.t, want.Lost, rec.Lost, "%s: the fault passed for damage", tr.name)
	require.Equal(tr.t, []uint64{want.LastLSN, want.NextLSN}, []uint64{rec.LastLSN, rec.NextLSN}, tr.name)
	return nil
}

// whoseLog asks the segments for the identity that STATE lost. What does not
// answer is passed over only if it is damaged.
func whoseLog(tr *trial) error {
	st, err := SalvageState(tr.fs, "db")
	if err == nil {
		require.Equal(tr.t, testUUID, st.UUID, tr.name)
	}
	return err
}

// cutAndContinue opens at the damage, writes, and leaves what strict opens.
func cutAndContinue(tr *trial) error {
	st, err := tr.enter()
	if err != nil {
		return err
	}
	rec, got, err := tr.recover(tr.o, st, false)
	if err != nil {
		return err
	}
	tr.acked = map[uint64]uint64{} // the rest is lost, and was reported
	for _, g := range got {
		tr.acked[g.lsn] = g.seed
	}
	tr.durable = rec.LastLSN
	require.NotEmpty(tr.t, rec.Lost, tr.name)
	if tr.log, err = rec.Start(); err != nil {
		return err
	}
	tr.starts[rec.NextLSN] = true
	if err := tr.put(20); err != nil {
		return err
	}
	if err := tr.end(); err != nil {
		return err
	}
	strict := tr.again(tr.fs.Crash(simfs.CrashConfig{Image: simfs.Nothing}), tr.name+", then a crash")
	strict.o.Mode = Strict
	strict.check()
	return nil
}
