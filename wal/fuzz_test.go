package wal

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal: no header makes the decoder panic, and what decodes encodes to the same
// bytes.
func FuzzFrame(f *testing.F) {
	var b [frameHeaderBytes]byte
	fr := frame{kind: kindData, payloadLen: 10, salt: 7, offset: 8192, firstLSN: 3, count: 2, synced: 2}
	fr.put(b[:], seedOf(7))
	f.Add(b[:], uint64(7), int64(8192))
	f.Add(appendEntryHeader(nil, 5, 0, 1, 9), uint64(0), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, salt uint64, off int64) {
		if fr, ok := parseFrame(b, salt, seedOf(salt), off); ok && allZero(b[10:12]) && allZero(b[60:64]) {
			var again [frameHeaderBytes]byte
			fr.put(again[:], seedOf(salt))
			if !bytes.Equal(again[:], b[:frameHeaderBytes]) {
				t.Fatalf("%+v encodes differently", fr)
			}
		}
		if o, ok := parseOpen(b); ok {
			var again [openBytes - frameHeaderBytes]byte
			o.put(again[:])
			if o2, ok := parseOpen(again[:]); !ok || o2 != o {
				t.Fatalf("%+v encodes differently", o)
			}
		}
		if r, ok := parseSeal(b); ok {
			var again [sealBytes - frameHeaderBytes]byte
			r.put(again[:])
			if r2, ok := parseSeal(again[:]); !ok || r2 != r {
				t.Fatalf("%+v encodes differently", r)
			}
		}
	})
}

// Goal: a group is split into batches that verify and lie inside it, or
// refused; and every group comes back.
func FuzzEntries(f *testing.F) {
	f.Add(groupOf(3, 10), 3)
	f.Add(groupOf(1, 0), 1)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		count %= 1 << 20
		es, err := parseEntries(b, count, nil)
		if err == nil {
			n := 0
			for _, e := range es {
				if n += len(e.payload); Checksum(e.payload) != e.sum {
					t.Fatal("a batch that does not verify")
				}
			}
			if len(es) != max(count, 0) || n > len(b) {
				t.Fatalf("%d batches of %d bytes in %d", len(es), n, len(b))
			}
		}
		// The bytes as batches of their own, cut where they say.
		var parts [][]byte
		for rest := b; len(rest) > 0; {
			n := min(int(rest[0])+1, len(rest))
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		var g []byte
		for i, p := range parts {
			g = append(appendEntryHeader(g, len(p), i, uint32(len(p)*7), Checksum(p)), p...)
		}
		es, err = parseEntries(g, len(parts), nil)
		if err != nil || !slices.EqualFunc(es, parts, func(e entry, p []byte) bool {
			return bytes.Equal(e.payload, p) && e.ops == uint32(len(p)*7)
		}) {
			t.Fatalf("%d batches came back as %d: %v", len(parts), len(es), err)
		}
	})
}

// Goal: no bytes make the decoder of a segment's header panic, and what decodes
// encodes to the same.
func FuzzHeader(f *testing.F) {
	b := newForge(7).b
	f.Add(b[:segmentHdrBytes])
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseSegmentHeader(b)
		if err != nil {
			if err != errHeader && !errors.Is(err, ErrVersion) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		again := make([]byte, framesOffset)
		h.put(again)
		if h2, err := parseSegmentHeader(again); err != nil || h2 != h {
			t.Fatalf("%+v encodes differently: %v", h, err)
		}
	})
}

// Goal: no bytes make the decoder of STATE panic, what decodes encodes to the
// same, and the newer slot wins.
func FuzzState(f *testing.F) {
	if b, err := os.ReadFile("testdata/state.golden"); err == nil {
		f.Add(b)
		f.Add(slices.Concat(b[pageBytes:], b[:pageBytes]))
		f.Add(b[:pageBytes+7])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState("STATE", b)
		if err != nil {
			if !typed(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		two := make([]byte, stateBytes)
		older := st
		older.sequence--
		older.put(two)
		st.put(two[pageBytes:])
		again, err := parseState("STATE", two)
		st.lostSlot = false
		if err != nil || st.sequence > 0 && again != st {
			t.Fatalf("%+v came back as %+v: %v", st, again, err)
		}
	})
}

func typed(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign) || errors.Is(err, ErrVersion)
}

// Goal: no bytes under a segment's name make recovery panic, hang, take much
// memory, or answer with anything but a log or a typed error, in any mode.
func FuzzSegment(f *testing.F) {
	if b, err := os.ReadFile("testdata/segment.golden"); err == nil {
		f.Add(b, 9000, byte(1), true)
		f.Add(b[:9000], 0, byte(0), false)
	}
	f.Add([]byte{}, 0, byte(0), false)
	state, _ := os.ReadFile("testdata/state.golden")
	st, err := parseState("STATE", state)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, at int, x byte, reseal bool) {
		if len(b) > 1<<16 {
			return
		}
		b = bytes.Clone(b)
		if len(b) > 0 {
			b[max(at, -at-1)%len(b)] ^= x
		}
		if h, err := parseSegmentHeader(b); err == nil && reseal {
			// Get past the checksums, so that the rest is reached, too.
			for off := framesOffset; off+frameHeaderBytes <= len(b); off += 8 {
				fr := frame{kind: b[off+8], flags: b[off+9], payloadLen: uint32(b[off+12]) | uint32(b[off+13])<<8,
					salt: h.salt, offset: int64(off), firstLSN: uint64(b[off+32]), count: uint32(b[off+40]),
					synced: uint64(b[off+48])}
				if b[off] == 0x61 && b[off+1] == 0x48 {
					fr.put(b[off:], seedOf(h.salt))
				}
			}
		}
		recoverAny(t, st, map[uint64][]byte{1: b})
	})
}

// Goal: segments that a program of bytes puts together, with every checksum
// right, are a log or corruption, and what opens opens again the same.
func FuzzWalk(f *testing.F) {
	for _, p := range walkPrograms {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 400 {
			return
		}
		segs := map[uint64][]byte{}
		for _, s := range forgeProgram(program) {
			segs[s.hdr.segNo] = append(s.b, make([]byte, 100)...)
		}
		recoverAny(t, State{UUID: testUUID, OwnerEpoch: 1, IssuedCeiling: 1000}, segs)
	})
}

// walkPrograms are logs that the steps of forgeProgram make.
var walkPrograms = [][]byte{
	{}, {2}, {2, 3, 5}, {2, 3, 5, 1}, {3, 0, 0, 2, 3}, {4, 5, 5, 6, 0, 5, 6, 2},
	{4, 1, 5, 2, 6, 1}, {2, 7, 9, 3}, {3, 8, 1, 2}, {2, 0x12, 0x23, 0x35, 1, 2}, {2, 1, 2, 1, 2}, {4, 1, 1, 6, 2},
	{2, 3, 0x20, 2}, {9, 200, 2, 3, 2}, {2, 10, 1, 2}, {4, 11, 6, 2},
}

// forgeProgram runs a program: a low nibble is a step, a high one bends it.
func forgeProgram(program []byte) (segs []*forge) {
	f := newForge(1).open(nil)
	segs = []*forge{f}
	span := groupOf(1, 150)
	at := 0 // of what was written of the spanning batch
	var synced uint64
	for i := 0; i < len(program) && len(segs) < 6; i++ {
		step, bend := program[i]&15, uint64(program[i]>>4)
		data := frame{kind: kindData, synced: synced}
		if bend&1 != 0 {
			data.firstLSN = f.last + bend
		}
		if bend&2 != 0 {
			// Of numbers that are there: only storage ahead of the log makes
			// other promises, and then this part of the log is not read.
			synced = f.whole
			data.synced = synced
		}
		if bend&8 != 0 {
			data.chain = uint32(i + 1)
		}
		switch step {
		case 0, 1: // go on in a new segment
			next := newForge(f.hdr.segNo + 1 + bend&1)
			next.follow(f, func(o *openRecord, fr *frame) {
				o.cont, fr.synced = at > 0, synced
				if step == 0 {
					o.jumpTo = o.jumpAfter + 1 + bend
					o.firstLSN = o.jumpTo
				}
				if bend&4 != 0 {
					o.prevSegNo, o.prevLastLSN = bend, o.prevLastLSN+bend
				}
			})
			f = next
			segs = append(segs, f)
		case 2, 3: // a group
			data.count = uint32(step - 1)
			f.put(data, groupOf(int(step-1), 10))
		case 4, 5, 6: // a batch that spans frames
			data.flags = uint8(1 << (step - 4))
			data.count = 1
			n := 64
			if step == 6 {
				n = len(span)
			}
			end := min(at+n, len(span))
			f.put(data, span[at:end])
			if at = end; step == 6 {
				at = 0
			}
		case 7:
			f.put(frame{kind: kindMarker, synced: f.whole - min(f.whole, bend)}, nil)
		case 8:
			r := sealRecord{finalLSN: f.last, endOffset: int64(len(f.b)) + sealBytes, nextSegNo: bend, chain: f.chain}
			b := make([]byte, sealBytes-frameHeaderBytes)
			r.put(b)
			f.put(frame{kind: kindSeal, synced: synced}, b)
		case 9: // far away
			f.last += uint64(program[min(i+1, len(program)-1)]) << (bend * 4)
			i++
		case 10: // torn
			f.b[len(f.b)-1-int(bend)] ^= 1
		case 11: // a frame behind a hole
			f.b = append(f.b, make([]byte, 8*(bend+1))...)
		default:
			f.put(frame{kind: step, flags: uint8(bend), count: uint32(bend)}, span[:bend])
		}
	}
	return segs
}

// recoverAny recovers what lies under the names of segments in every mode, and
// holds the answer to what recovery promises.
func recoverAny(t *testing.T, st State, segs map[uint64][]byte) {
	size := 0
	for _, b := range segs {
		size += len(b)
	}
	for _, mode := range []Mode{Strict, Absolute, PointInTime, Salvage} {
		disk := simfs.New(nil)
		if err := disk.MkdirAll("/db/log", 0o755); err != nil {
			t.Fatal(err)
		}
		for no, b := range segs {
			if err := disk.Put("/db/log/"+segmentName(no), b); err != nil {
				t.Fatal(err)
			}
		}
		o := memOptions(disk)
		o.Mode = mode
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rec, seq, err := recoverOnce(t, o, st)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20+uint64(40*size) {
			t.Fatalf("mode %d: %d bytes for a log of %d", mode, took, size)
		}
		if err != nil {
			if !typed(err) || mode == PointInTime && errors.Is(err, ErrCorrupt) {
				t.Fatalf("mode %d: %v", mode, err)
			}
			continue
		}
		if len(seq) > 0 && rec.NextLSN <= seq[len(seq)-1] {
			t.Fatalf("mode %d: %d would be given again: %v", mode, rec.NextLSN, seq)
		}
		if mode == Salvage {
			continue
		}
		// What was recovered is a log, and opens again as it is.
		l, err := startWith(rec, st)
		if err != nil {
			t.Fatalf("mode %d: start: %v", mode, err)
		}
		if err := l.Close(); err != nil {
			t.Fatalf("mode %d: close: %v", mode, err)
		}
		st2, err := ReadState(disk, "db")
		if err != nil {
			t.Fatal(err)
		}
		o.Mode = Strict
		_, again, err := recoverOnce(t, o, st2)
		if err != nil || !slices.Equal(seq, again) {
			t.Fatalf("mode %d: %v came back as %v: %v", mode, seq, again, err)
		}
	}
}

// startWith starts a recovery whose STATE was never on the disk.
func startWith(rec *Recovery, st State) (*Log, error) {
	b := make([]byte, stateBytes)
	st.put(b)
	if err := rec.o.FS.(*simfs.FS).Put("/db/STATE", b); err != nil {
		return nil, err
	}
	return rec.Start()
}

func recoverOnce(t *testing.T, o Options, st State) (*Recovery, []uint64, error) {
	var seq []uint64
	rec, err := Recover(o, st, 0, ReplayFuncs{Replay: func(lsn uint64, p []byte, _ uint32) error {
		if n := len(seq); n > 0 && lsn <= seq[n-1] {
			t.Fatalf("number %d after %d", lsn, seq[n-1])
		}
		seq = append(seq, lsn)
		return nil
	}})
	return rec, seq, err
}
