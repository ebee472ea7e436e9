package wal

import (
	"bytes"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/stretchr/testify/require"
)

// forge makes segments frame by frame, every checksum of them right, whatever
// they say.
type forge struct {
	hdr   segmentHeader
	b     []byte
	chain uint32 // of the last frame
	last  uint64 // number before the next frame
	whole uint64 // last number that has a batch
}

func newForge(no uint64) *forge {
	f := &forge{hdr: segmentHeader{uuid: testUUID, segNo: no, salt: 100 + no, ownerEpoch: 1}}
	f.b = make([]byte, framesOffset)
	f.hdr.put(f.b)
	return f
}

// put appends a frame. What is zero in fr and has one right value gets it.
func (f *forge) put(fr frame, payload []byte) *forge {
	fr.salt, fr.offset, fr.payloadLen = f.hdr.salt, int64(len(f.b)), uint32(len(payload))
	if fr.chain == 0 {
		fr.chain = f.chain
	}
	if fr.firstLSN == 0 {
		fr.firstLSN = f.last + 1
	}
	seed := seedOf(fr.salt)
	fr.payloadCRC = crc32.Update(seed, castagnoli, payload)
	b := make([]byte, fr.size())
	copy(b[frameHeaderBytes:], payload)
	f.chain = fr.put(b, seed)
	f.b = append(f.b, b...)
	if fr.kind == kindData && (fr.flags == 0 || fr.flags == flagLast) {
		f.last = fr.lastLSN()
		f.whole = f.last
	}
	return f
}

// open appends OPEN of a log that begins, or what change makes of it.
func (f *forge) open(change func(*openRecord, *frame)) *forge {
	o := openRecord{firstLSN: 1, jumpTo: 1}
	fr := frame{kind: kindOpen}
	if change != nil {
		change(&o, &fr)
	}
	if fr.firstLSN == 0 {
		fr.firstLSN = o.firstLSN
	}
	b := make([]byte, openBytes-frameHeaderBytes)
	o.put(b)
	f.last = o.firstLSN - 1
	return f.put(fr, b)
}

// follow appends the OPEN that connects to another segment.
func (f *forge) follow(p *forge, change func(*openRecord, *frame)) *forge {
	f.whole = p.whole
	return f.open(func(o *openRecord, fr *frame) {
		*o = openRecord{firstLSN: p.last + 1, prevSegNo: p.hdr.segNo, prevSalt: p.hdr.salt,
			prevEndOffset: int64(len(p.b)), prevLastLSN: p.last, prevChain: p.chain,
			jumpAfter: p.last, jumpTo: p.last + 1}
		fr.chain = p.chain
		if change != nil {
			change(o, fr)
			fr.chain = o.prevChain
		}
	})
}

// data appends a group of so many small batches.
func (f *forge) data(count int) *forge {
	return f.put(frame{kind: kindData, count: uint32(count)}, groupOf(count, 20))
}

func (f *forge) marker() *forge { return f.put(frame{kind: kindMarker}, nil) }

func groupOf(count, n int) (b []byte) {
	for i := range count {
		p := payloadOf(uint64(i), n)
		b = append(appendEntryHeader(b, len(p), i, 1, Checksum(p)), p...)
	}
	return b
}

// store is a disk with the segments on it.
func forged(t testing.TB, segs ...*forge) (*simfs.FS, State) {
	disk := simfs.New(nil)
	require.NoError(t, disk.MkdirAll("/db/log", 0o755))
	for _, s := range segs {
		// Room behind the last frame, as in a segment that goes on.
		require.NoError(t, disk.Put("/db/log/"+segmentName(s.hdr.segNo), append(bytes.Clone(s.b), make([]byte, 200)...)))
	}
	return disk, State{UUID: testUUID, OwnerEpoch: 1, IssuedCeiling: 1000}
}

// Goal: a frame that verifies and does not fit where it stands is corruption,
// by name, and never the end of the log.
func TestRecover_framesThatDoNotFit(t *testing.T) {
	seal := func(change func(*sealRecord)) func(*forge) {
		return func(f *forge) {
			r := sealRecord{finalLSN: f.last, endOffset: int64(len(f.b)) + sealBytes, chain: f.chain}
			change(&r)
			b := make([]byte, sealBytes-frameHeaderBytes)
			r.put(b)
			f.put(frame{kind: kindSeal}, b)
		}
	}
	data := func(fr frame, payload []byte) func(*forge) {
		return func(f *forge) { fr.kind = kindData; f.put(fr, payload) }
	}
	span := groupOf(1, 100)
	for _, c := range []struct {
		name string
		what string
		more func(*forge)
	}{
		{"open again", "OPEN is not exactly the first frame", func(f *forge) { f.open(nil) }},
		{"chain", "does not follow the one before", data(frame{count: 1, chain: 99}, groupOf(1, 1))},
		{"gap", "not consecutive", data(frame{count: 1, firstLSN: 5}, groupOf(1, 1))},
		{"promise of itself", "promise is impossible", data(frame{count: 1, synced: 3}, groupOf(1, 1))},
		{"promise taken back", "promise is impossible", func(f *forge) {
			f.put(frame{kind: kindMarker, synced: 2}, nil).marker()
		}},
		{"marker with payload", "MARKER with content", func(f *forge) { f.put(frame{kind: kindMarker}, []byte("x")) }},
		{"marker with count", "MARKER with content", func(f *forge) { f.put(frame{kind: kindMarker, count: 1}, nil) }},
		{"seal number", "SEAL contradicts", seal(func(r *sealRecord) { r.finalLSN++ })},
		{"seal end", "SEAL contradicts", seal(func(r *sealRecord) { r.endOffset++ })},
		{"seal chain", "SEAL contradicts", seal(func(r *sealRecord) { r.chain++ })},
		{"seal length", "SEAL contradicts", func(f *forge) { f.put(frame{kind: kindSeal}, nil) }},
		{"kind", "unknown kind", func(f *forge) { f.put(frame{kind: 9}, nil) }},
		{"empty group", "without a batch", data(frame{}, nil)},
		{"count wraps", "without a batch", func(f *forge) {
			f.last = 1<<64 - 3 // the jump below leads there
			f.put(frame{kind: kindData, count: 9}, groupOf(9, 1))
		}},
		{"less than counted", "header does not decode", data(frame{count: 3}, groupOf(2, 1))},
		{"more than counted", "header does not decode", data(frame{count: 1}, groupOf(2, 1))},
		{"batch sum", "checksum does not match", data(frame{count: 1}, append(appendEntryHeader(nil, 3, 0, 1, 7), "abc"...))},
		{"batch is longer", "header does not decode", data(frame{count: 1}, append(appendEntryHeader(nil, 30, 0, 1, 7), "abc"...))},
		{"batch is a little longer", "header does not decode", data(frame{count: 1}, append(appendEntryHeader(nil, 5, 0, 1, 7), "abc"...))},
		{"span is huge", "header does not decode", data(frame{count: 1, flags: flagFirst}, appendEntryHeader(nil, maxBatchBytes+1, 0, 1, 7))},
		{"batch is huge", "header does not decode", data(frame{count: 1}, appendEntryHeader(nil, maxBatchBytes+1, 0, 1, 7))},
		{"ops", "header does not decode", data(frame{count: 1}, []byte{0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0})},
		{"sum is cut", "header does not decode", data(frame{count: 1}, []byte{0, 0, 0, 0})},
		{"middle first", "out of order", data(frame{count: 1, flags: flagMiddle}, span)},
		{"two flags", "out of order", data(frame{count: 1, flags: flagFirst | flagLast}, span)},
		{"two batches span", "out of order", data(frame{count: 2, flags: flagFirst}, span)},
		{"group inside a batch", "left unfinished", func(f *forge) {
			data(frame{count: 1, flags: flagFirst}, span[:64])(f)
			f.data(1)
		}},
		{"first has no header", "header does not decode", data(frame{count: 1, flags: flagFirst}, span[:3])},
		{"span too long", "longer than it says", func(f *forge) {
			data(frame{count: 1, flags: flagFirst}, span[:64])(f)
			data(frame{count: 1, flags: flagMiddle}, span)(f)
		}},
		{"span too short", "header does not decode", func(f *forge) {
			data(frame{count: 1, flags: flagFirst}, span[:64])(f)
			data(frame{count: 1, flags: flagLast}, span[64:72])(f)
		}},
		{"span sum", "checksum does not match", func(f *forge) {
			b := bytes.Clone(span)
			b[len(b)-1] ^= 1
			data(frame{count: 1, flags: flagFirst}, b[:64])(f)
			data(frame{count: 1, flags: flagLast}, b[64:])(f)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newForge(1).open(func(o *openRecord, _ *frame) {
				if c.name == "count wraps" {
					o.jumpAfter, o.jumpTo = 2, 1<<64-2
				}
			}).data(2)
			c.more(f)
			notWhole(t, c.what, 2, f)
		})
	}
}

// Goal: an OPEN that contradicts itself or its predecessor is corruption.
func TestRecover_opensThatDoNotFit(t *testing.T) {
	for _, c := range []struct {
		name   string
		what   string
		change func(*openRecord, *frame)
	}{
		{"another number", "contradicts itself", func(o *openRecord, fr *frame) { fr.firstLSN = 7 }},
		{"jump back", "impossible jump", func(o *openRecord, _ *frame) { o.jumpAfter, o.jumpTo = 5, 5 }},
		{"jump before", "impossible jump", func(o *openRecord, _ *frame) { o.jumpAfter = 1 }},
		{"number before", "impossible jump", func(o *openRecord, _ *frame) { o.firstLSN = o.prevLastLSN }},
		{"two jumps", "two jumps", func(o *openRecord, _ *frame) { o.firstLSN, o.jumpTo = 5, 6 }},
		{"promise", "promise is impossible", func(_ *openRecord, fr *frame) { fr.synced = 3 }},
		{"numbers", "does not follow the segment", func(o *openRecord, _ *frame) { o.prevLastLSN = 1 }},
		{"goes on", "does not follow the segment", func(o *openRecord, _ *frame) { o.cont = true }},
		{"chain", "another predecessor", func(o *openRecord, _ *frame) { o.prevChain++ }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newForge(1).open(nil).data(2)
			notWhole(t, c.what, 2, a, newForge(2).follow(a, c.change).data(1))
		})
	}
	// The first of those that are read has no predecessor to be compared with.
	f := newForge(1).open(func(o *openRecord, _ *frame) { o.jumpTo = 0 }).data(1)
	notWhole(t, "impossible jump", 0, f)
}

// notWhole is the verdict on a log that holds so many good batches and then
// what is no log.
func notWhole(t *testing.T, what string, good int, segs ...*forge) {
	disk, st := forged(t, segs...)
	for _, mode := range []Mode{Strict, Absolute} {
		o := memOptions(disk)
		o.Mode = mode
		_, err := Recover(o, st, 0, ReplayFuncs{})
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, what)
		var ce *CorruptError
		require.ErrorAs(t, err, &ce)
		require.NotEmpty(t, ce.File)
	}
	for _, mode := range []Mode{PointInTime, Salvage} {
		o := memOptions(disk)
		o.Mode = mode
		n := 0
		rec, err := Recover(o, st, 0, ReplayFuncs{Replay: func(lsn uint64, _ []byte, _ uint32) error {
			if n++; lsn != uint64(n) && mode == PointInTime {
				return errors.New("not a prefix")
			}
			return nil
		}})
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, good, "mode %d", mode)
		if mode == PointInTime {
			require.Equal(t, good, n)
			require.NotEmpty(t, rec.Lost)
			strictAfter(t, rec, st, good)
		}
	}
}

// strictAfter is what a point in time leaves: a log of so many batches that
// strict opens, and no segment gone that was not read to its end.
func strictAfter(t *testing.T, rec *Recovery, st State, good int) {
	disk := rec.o.FS.(*simfs.FS)
	before := disk.Tree()
	l, err := startWith(rec, st)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	st, err = ReadState(disk, "db")
	require.NoError(t, err)
	_, seq, err := recoverOnce(t, memOptions(disk), st)
	require.NoError(t, err)
	require.Len(t, seq, good)
	after := disk.Tree()
	for name, e := range before {
		if _, still := after[name]; e.Dir || still || name == "/db/log/"+segmentName(rec.tailNo) ||
			name == "/db/log/"+segmentName(rec.from.segNo) {
			continue // what was kept is written again, or was read and is in storage
		}
		require.Contains(t, after.Paths(), "/db/log/"+asidePrefix+name[len("/db/log/"):])
	}
}

// Goal: segments that are whole, each for itself, and do not make one log, are
// corruption.
func TestRecover_segmentsThatDoNotFit(t *testing.T) {
	a := func() *forge { return newForge(1).open(nil).data(2) }
	for _, c := range []struct {
		name, what string
		segs       func() []*forge
	}{
		{"starts too late", "starts above 4", func() []*forge {
			return []*forge{newForge(1).open(func(o *openRecord, _ *frame) {
				o.prevLastLSN, o.jumpAfter, o.firstLSN, o.jumpTo = 4, 4, 5, 5
			}).data(1)}
		}},
		{"later predecessor", "a later predecessor", func() []*forge {
			return []*forge{newForge(1).follow(a(), func(o *openRecord, _ *frame) { o.prevSegNo = 1 }).data(1)}
		}},
		{"another incarnation", "not the incarnation", func() []*forge {
			p := a()
			return []*forge{p, newForge(2).follow(p, func(o *openRecord, _ *frame) { o.prevSalt++ }).data(1)}
		}},
		{"an older owner", "owner that had been replaced", func() []*forge {
			p, n := a(), newForge(2)
			n.hdr.ownerEpoch = 0
			n.hdr.put(n.b)
			return []*forge{p, n.follow(p, nil).data(1)}
		}},
		{"ends behind the end", "says that it ends at", func() []*forge {
			p := a()
			return []*forge{p, newForge(2).follow(p, func(o *openRecord, _ *frame) { o.prevEndOffset += 1 << 20 }).data(1)}
		}},
		{"ends inside a frame", "crosses the declared end", func() []*forge {
			p := a()
			return []*forge{p, newForge(2).follow(p, func(o *openRecord, _ *frame) { o.prevEndOffset -= 8 }).data(1)}
		}},
		{"predecessor is missing", "segment is missing", func() []*forge {
			return []*forge{newForge(2).follow(a(), nil).data(1)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk, st := forged(t, c.segs()...)
			_, err := Recover(memOptions(disk), st, 0, ReplayFuncs{})
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, c.what)
			o := memOptions(disk)
			o.Mode = PointInTime
			rec, seq, err := recoverOnce(t, o, st)
			require.NoError(t, err)
			require.NotEmpty(t, rec.Lost)
			strictAfter(t, rec, st, len(seq))
		})
	}
	// And two that do fit do.
	p := a()
	disk, st := forged(t, p, newForge(2).follow(p, nil).data(1))
	rec, err := Recover(memOptions(disk), st, 0, ReplayFuncs{})
	require.NoError(t, err)
	require.EqualValues(t, 3, rec.LastLSN)
}
