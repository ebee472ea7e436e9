package wal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// damaged is a log on disk, what it acknowledged, and what it must not lose.
type damaged struct {
	name     string
	fs       *vfs.MemFS
	o        Options
	acked    map[uint64][]byte
	last     uint64
	promised uint64 // the rest may be cut: at most the last group
}

func (d *damaged) files(t testing.TB) []string {
	names, err := d.fs.List("db/log")
	require.NoError(t, err)
	slices.Sort(names)
	files := []string{"db/STATE"}
	for _, n := range names {
		files = append(files, "db/log/"+n)
	}
	return files
}

func (d *damaged) data(t testing.TB, name string) []byte {
	b, err := d.fs.UnsafeGetFileDataBuffer(name)
	require.NoError(t, err)
	return b
}

// verdict is nil if the recovery is right or refuses with a typed error.
func (d *damaged) verdict(t testing.TB) (refused bool, err error) {
	s, err := tryRecover(t, d.o, 0)
	if err != nil {
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign) || errors.Is(err, ErrVersion) {
			return true, nil
		}
		return true, fmt.Errorf("untyped: %w", err)
	}
	end := uint64(0)
	for i, lsn := range s.seq {
		if !bytes.Equal(s.got[lsn], d.acked[lsn]) {
			return false, fmt.Errorf("number %d has another payload", lsn)
		}
		if lsn != uint64(i+1) {
			return false, fmt.Errorf("number %d is the %d-th", lsn, i+1)
		}
		end = lsn
	}
	if end < d.promised {
		return false, fmt.Errorf("recovered silently up to %d of %d", end, d.promised)
	}
	if s.rec.NextLSN <= d.last {
		return false, fmt.Errorf("number %d would be given again", s.rec.NextLSN)
	}
	return false, nil
}

// makeDamaged builds small logs of several segments: closed, crashed right
// after an acknowledgement, and crashed after the log had gone idle.
func makeDamaged(t testing.TB) []*damaged {
	var all []*damaged
	for _, name := range []string{"closed", "crashed", "idle"} {
		mem := vfs.NewCrashableMem()
		o := memOptions(mem)
		s := openStore(t, o)
		d := &damaged{name: name, acked: map[uint64][]byte{}}
		for i := range 26 {
			b := payloadOf(uint64(i), i*53%900)
			if i == 9 {
				b = payloadOf(9, 9000) // spans frames and segments
			}
			d.last = s.put(b)
			d.acked[d.last] = b
		}
		d.promised = d.last
		switch name {
		case "crashed":
			d.promised--
			mem = mem.CrashClone(vfs.CrashCloneCfg{})
		case "idle":
			require.NoError(t, s.log.writeState(nil))
			mem = mem.CrashClone(vfs.CrashCloneCfg{})
		}
		s.close()
		d.fs = mem
		d.o = o
		d.o.FS = mem
		all = append(all, d)
	}
	return all
}

// promisedOutside is the promise that survives the loss of some bytes of one
// file: a sector that takes a group together with every promise about it
// cannot be told from a torn tail by any local format.
func (d *damaged) promisedOutside(t testing.TB, name string, from, to int64) uint64 {
	if d.name != "crashed" || !strings.HasPrefix(name, "db/log/") {
		return d.promised
	}
	no, _, _ := parseName(name[len("db/log/"):])
	var promised uint64
	for _, file := range d.files(t)[1:] {
		n, _, _ := parseName(file[len("db/log/"):])
		r, err := openSegment(d.fs, file, n, testUUID)
		require.NoError(t, err)
		for off := int64(framesOffset); ; {
			f, ok, err := r.headerAt(off)
			require.NoError(t, err)
			if !ok {
				break
			}
			if n != no || off+frameHeaderBytes <= from || off >= to {
				promised = max(promised, f.synced)
			}
			off += f.size()
		}
		require.NoError(t, r.close())
	}
	return promised
}

var everyByte = flag.Bool("every-byte", false, "flip every byte instead of every third")

// One bit of every byte (every third, unless asked) of every file: right, refused, or (crashed only)
// without the last group; never wrong and never silently shorter.
func TestRecover_everyByteFlipped(t *testing.T) {
	step := 3
	if testing.Short() {
		step = 23
	}
	if *everyByte {
		step = 1
	}
	for _, d := range makeDamaged(t) {
		t.Run(d.name, func(t *testing.T) {
			refused, err := d.verdict(t)
			require.NoError(t, err)
			require.False(t, refused)
			n, no := 0, 0
			for _, name := range d.files(t) {
				b := d.data(t, name)
				end := len(bytes.TrimRight(b, "\x00"))
				for i := 0; i < len(b); i += step {
					if i > end+128 && i%97 != 0 {
						continue // zeros far from anything are all the same
					}
					old := b[i]
					b[i] ^= 1 << (i % 8)
					refused, err := d.verdict(t)
					b[i] = old
					n++
					if refused {
						no++
					}
					require.NoError(t, err, "%s: byte %d", name, i)
				}
			}
			t.Logf("%d flips, %d refused, 0 wrong", n, no)
		})
	}
}

// Every file cut short at every 8 bytes, and every 512 byte sector zeroed or
// filled with garbage.
func TestRecover_truncatedAndZeroed(t *testing.T) {
	for _, d := range makeDamaged(t) {
		t.Run(d.name, func(t *testing.T) {
			for _, name := range d.files(t) {
				b := bytes.Clone(d.data(t, name))
				put := func(b []byte) {
					f, err := d.fs.Create(name, writeCategory)
					require.NoError(t, err)
					_, err = f.Write(bytes.Clone(b))
					require.NoError(t, err)
					require.NoError(t, f.Close())
				}
				end := len(bytes.TrimRight(b, "\x00"))
				step := 8
				if testing.Short() {
					step = 56
				}
				for n := 0; n < min(len(b), end+64); n += step {
					put(b[:n])
					_, err := d.verdict(t)
					require.NoError(t, err, "%s cut at %d", name, n)
				}
				put(append(bytes.Clone(b), bytes.Repeat([]byte{0xA5}, 1000)...))
				_, err := d.verdict(t)
				require.NoError(t, err, "%s extended", name)
				put(b)
				live := d.data(t, name)
				promised := d.promised
				defer func() { d.promised = promised }()
				for _, size := range []int{512, 4096} {
					for off := 0; off < len(b); off += size {
						d.promised = d.promisedOutside(t, name, int64(off), int64(off+size))
						for _, fill := range []byte{0, 0xFF, 0xA5} {
							for i := range live[off : off+size] {
								live[off+i] = fill
							}
							_, err := d.verdict(t)
							require.NoError(t, err, "%s: %d bytes of %x at %d", name, size, fill, off)
							copy(live[off:off+size], b[off:])
						}
						d.promised = promised
					}
				}
			}
		})
	}
}

// Files removed, swapped, put back from the past, or taken from another store.
func TestRecover_wrongFiles(t *testing.T) {
	for _, d := range makeDamaged(t) {
		t.Run(d.name, func(t *testing.T) {
			files := d.files(t)
			set := func(name string, b []byte) {
				f, err := d.fs.Create(name, writeCategory)
				require.NoError(t, err)
				_, err = f.Write(bytes.Clone(b))
				require.NoError(t, err)
				require.NoError(t, f.Close())
			}
			copies := map[string][]byte{}
			for _, name := range files {
				copies[name] = bytes.Clone(d.data(t, name))
			}
			for i, a := range files[1:] {
				require.NoError(t, d.fs.Remove(a))
				_, err := d.verdict(t)
				require.NoError(t, err, "%s removed", a)
				set(a, copies[a])
				for _, b := range files[1:][i+1:] {
					set(a, copies[b])
					_, err := d.verdict(t)
					require.NoError(t, err, "%s under the name %s", b, a)
					set(b, copies[a])
					refused, err := d.verdict(t)
					require.NoError(t, err)
					require.True(t, refused, "%s and %s swapped", a, b)
					set(a, copies[a])
					set(b, copies[b])
				}
			}
			// Two sectors of one segment swapped, and one doubled.
			seg := files[1]
			live := d.data(t, seg)
			for off := framesOffset; off+1024 <= len(live); off += 512 {
				for _, double := range []bool{false, true} {
					copy(live[off:], copies[seg][off+512:off+1024])
					if !double {
						copy(live[off+512:], copies[seg][off:off+512])
					}
					_, err := d.verdict(t)
					require.NoError(t, err, "sectors at %d", off)
					copy(live, copies[seg])
				}
			}
			// The same name in another store.
			other := vfs.NewMem()
			_, err := CreateState(other, "db", [16]byte{9})
			require.NoError(t, err)
			oo := memOptions(other)
			s := openStore(t, oo)
			s.close()
			b, err := other.UnsafeGetFileDataBuffer(seg)
			require.NoError(t, err)
			set(seg, bytes.Clone(b))
			_, err = tryRecover(t, d.o, 0)
			require.ErrorIs(t, err, ErrForeign)
			set(seg, copies[seg])
		})
	}
}

// A store's own past is refused: STATE, or a segment, from before.
func TestRecover_staleFiles(t *testing.T) {
	mem := vfs.NewMem()
	o := memOptions(mem)
	s := openStore(t, o)
	s.put(payloadOf(1, 100))
	s.close()
	read := func(name string) []byte {
		b, err := mem.UnsafeGetFileDataBuffer(name)
		require.NoError(t, err)
		return bytes.Clone(b)
	}
	write := func(name string, b []byte) {
		f, err := mem.Create(name, writeCategory)
		require.NoError(t, err)
		_, err = f.Write(bytes.Clone(b))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	oldState := read("db/STATE")
	s = openStore(t, o)
	seg := "db/log/" + segmentName(s.log.cur.no)
	oldSeg := read(seg)
	s.put(payloadOf(2, 100))
	s.put(payloadOf(3, 100))
	s.close()
	newState, newSeg := read("db/STATE"), read(seg)
	write("db/STATE", oldState)
	_, err := tryRecover(t, o, 0)
	require.ErrorIs(t, err, ErrCorrupt)
	write("db/STATE", newState)
	write(seg, oldSeg)
	_, err = tryRecover(t, o, 0)
	require.ErrorIs(t, err, ErrCorrupt)
	write(seg, newSeg)
	_, err = tryRecover(t, o, 0)
	require.NoError(t, err)
}

// Frames of an earlier incarnation of the same file are never taken for the
// log's own, even where they connect in every other respect.
func TestRecover_recycledBytes(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := memOptions(mem)
	s := openStore(t, o)
	for i := range 200 {
		s.put(payloadOf(uint64(i), 500))
		if i%10 == 0 {
			require.NoError(t, s.log.SetFlushed(s.log.Last(), 1, 1))
		}
	}
	require.Positive(t, s.log.Metrics().SegmentsRecycled)
	st := s.log.State()
	crash := mem.CrashClone(vfs.CrashCloneCfg{})
	s.close()
	o.FS = crash
	r, err := tryRecover(t, o, st.Flushed)
	require.NoError(t, err)
	require.EqualValues(t, 200, r.rec.LastLSN)
	require.Zero(t, r.rec.CutBytes, "old bytes are no torn tail")
	o.Mode = Absolute
	_, err = tryRecover(t, o, st.Flushed)
	require.NoError(t, err)
}

// A torn tail is cut and written again elsewhere; what is written after it
// survives the next crash, and the one after that.
func TestRecovery_Start_afterTornTail(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := memOptions(mem)
	o.Policy = Interval
	o.Interval = 1 << 40
	var want []uint64
	for round := range 5 {
		s := openStore(t, o)
		require.Equal(t, want, append([]uint64(nil), s.seq...), "round %d", round)
		for i := range 5 {
			want = append(want, s.put(payloadOf(uint64(i), 700)))
		}
		require.NoError(t, s.log.Sync(context.Background()))
		s.put(payloadOf(10, 700))
		at := s.log.pos.off
		no := s.log.cur.no
		s.put(payloadOf(11, 700)) // torn
		s.put(payloadOf(12, 700)) // there, but never promised
		b, err := mem.UnsafeGetFileDataBuffer("db/log/" + segmentName(no))
		require.NoError(t, err)
		b[at+200] ^= 1
		want = append(want, s.log.Last()-2)
		crash := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		b[at+200] ^= 1
		s.close()
		mem = crash
		o.FS = mem
		if round == 2 {
			abs := o
			abs.Mode = Absolute
			_, err := tryRecover(t, abs, 0)
			require.ErrorIs(t, err, ErrCorrupt)
		}
		r, err := tryRecover(t, o, 0)
		require.NoError(t, err)
		require.Equal(t, segmentName(no), r.rec.CutFile[len("db/log/"):])
		require.Equal(t, at, r.rec.CutOffset)
		require.Greater(t, r.rec.CutBytes, int64(1400))
	}
}

// A record that names something missing is cut if it was never promised, and
// corruption if it was.
func TestRecover_checkCuts(t *testing.T) {
	for _, big := range []bool{false, true} {
		mem := vfs.NewCrashableMem()
		o := memOptions(mem)
		o.Policy, o.Interval = Interval, 1<<40
		s := openStore(t, o)
		for i := range 5 {
			s.put(payloadOf(uint64(i), 100))
		}
		require.NoError(t, s.log.Sync(context.Background()))
		s.put(payloadOf(5, 100))
		n := 100
		if big {
			n = 4000
			s.log.groupCap = 1024
		}
		s.put(payloadOf(6, n)) // the one that cannot be kept
		s.put(payloadOf(7, 100))
		crash := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		s.close()
		o.FS = crash
		st, err := ReadState(crash, "db")
		require.NoError(t, err)
		run := func(bad uint64) (*Recovery, []uint64, error) {
			var seq []uint64
			r, err := Recover(o, st, 0, ReplayFuncs{
				Check: func(lsn uint64, _ []byte, _ uint32, _ bool) error {
					if lsn == bad {
						return fmt.Errorf("blob: %w", ErrCut)
					}
					return nil
				},
				Replay: func(lsn uint64, _ []byte, _ uint32) error { seq = append(seq, lsn); return nil },
			})
			return r, seq, err
		}
		_, _, err = run(3)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorIs(t, err, ErrCut)
		r, seq, err := run(7)
		require.NoError(t, err)
		require.Equal(t, []uint64{1, 2, 3, 4, 5, 6}, seq)
		l, err := r.Start()
		require.NoError(t, err)
		require.NoError(t, l.Close())
		s = openStore(t, o)
		require.Equal(t, seq, s.seq)
		s.close()
	}
}

// PointInTime opens whatever strict refuses, keeps a prefix, says what it
// lost, and leaves a log that strict opens. Salvage keeps at least as much.
func TestRecover_pointInTimeAndSalvage(t *testing.T) {
	for _, d := range makeDamaged(t) {
		t.Run(d.name, func(t *testing.T) {
			n := 0
			for _, name := range d.files(t)[1:] {
				b := d.data(t, name)
				end := len(bytes.TrimRight(b, "\x00"))
				step := 61
				if testing.Short() {
					step = 181
				}
				for i := 0; i < end; i += step {
					b[i] ^= 0x10
					pages := i < framesOffset && i%2 == 0
					if pages { // both copies, or nothing happens
						b[(i+pageBytes)%framesOffset] ^= 0x10
					}
					refused, err := d.verdict(t)
					require.NoError(t, err)
					if refused {
						n++
						d.checkModes(t, fmt.Sprintf("%s byte %d", name, i))
					}
					b[i] ^= 0x10
					if pages {
						b[(i+pageBytes)%framesOffset] ^= 0x10
					}
				}
			}
			require.Greater(t, n, 10)
		})
	}
}

func (d *damaged) checkModes(t *testing.T, at string) {
	o := d.o
	o.Mode = Salvage
	salvaged, err := tryRecover(t, o, 0)
	require.NoError(t, err, at)
	for lsn, b := range salvaged.got {
		require.Equal(t, d.acked[lsn], b, at)
	}
	require.True(t, len(salvaged.rec.Lost) > 0 || len(salvaged.got) == len(d.acked), at)
	// What is missing is reported.
	_, err = salvaged.rec.Start()
	require.Error(t, err)

	fs := d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	o.FS, o.Mode = fs, PointInTime
	s, err := tryOpen(t, o, 0)
	require.NoError(t, err, at)
	require.NotEmpty(t, s.rec.Lost, at)
	require.GreaterOrEqual(t, len(salvaged.got), len(s.got), at)
	kept := slices.Clone(s.seq)
	for i, lsn := range kept {
		require.Equal(t, uint64(i+1), lsn, at)
		require.Equal(t, d.acked[lsn], s.got[lsn], at)
	}
	next := s.put(payloadOf(1000, 10))
	require.Greater(t, next, d.last, at)
	crash := fs.CrashClone(vfs.CrashCloneCfg{})
	s.close()
	for _, fs := range []*vfs.MemFS{fs, crash} {
		o.FS, o.Mode = fs, Strict
		s, err = tryOpen(t, o, 0)
		require.NoError(t, err, at)
		require.Equal(t, append(slices.Clone(kept), next), s.seq, at)
		s.close()
	}
	names, err := fs.List("db/log")
	require.NoError(t, err)
	for _, n := range names {
		require.False(t, strings.HasPrefix(n, sparePrefix), at)
	}
}

// A frame that was replaced by another valid one breaks the chain behind it.
func TestRecover_splicedFrame(t *testing.T) {
	d := makeDamaged(t)[0]
	name := d.files(t)[1]
	r, err := openSegment(d.fs, name, 1, testUUID)
	require.NoError(t, err)
	f, ok, err := r.headerAt(framesOffset + openBytes)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, r.close())
	b := d.data(t, name)[f.offset:]
	old := bytes.Clone(b[:f.size()])
	f.put(b, r.seed)
	require.Equal(t, old, b[:f.size()])
	refused, err := d.verdict(t)
	require.NoError(t, err)
	require.False(t, refused, "the same frame again changes nothing")
	// Another payload with every checksum of its own right: only the chain can tell.
	other := payloadOf(777, len(d.acked[1])-12)
	e := appendEntryHeader(nil, len(other), 0, 1, Checksum(other))
	copy(b[frameHeaderBytes:], append(e, other...))
	f.payloadCRC = crc32.Update(r.seed, castagnoli, b[frameHeaderBytes:frameHeaderBytes+int(f.payloadLen)])
	f.put(b, r.seed)
	refused, err = d.verdict(t)
	require.NoError(t, err)
	require.True(t, refused)
}

// STATE's slots take turns: whichever write is torn, the one before stands.
func TestLog_writeState_slots(t *testing.T) {
	mem := vfs.NewMem()
	s := openStore(t, memOptions(mem))
	for i := range 6 {
		require.NoError(t, s.log.writeState(func(s *State) { s.PackHigh = uint64(100 + i) }))
		b, err := mem.UnsafeGetFileDataBuffer("db/STATE")
		require.NoError(t, err)
		before, err := parseState("STATE", b)
		require.NoError(t, err)
		require.EqualValues(t, 100+i, before.PackHigh)
		torn := bytes.Clone(b)
		newest := 0
		if x, err := parseStateSlot(torn); err != nil || x.sequence != before.sequence {
			newest = pageBytes
		}
		torn[newest+50] ^= 1
		older, err := parseState("STATE", torn)
		require.NoError(t, err)
		require.True(t, older.lostSlot)
		require.Equal(t, before.sequence-1, older.sequence)
	}
	s.close()
}

// A store whose newest slot of STATE is lost opens, and gives no number twice
// even if the lost slot had leased more.
func TestRecover_lostStateSlot(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := memOptions(mem)
	o.lease = 10
	s := openStore(t, o)
	for i := range 25 {
		s.put(payloadOf(uint64(i), 10))
	}
	st := s.log.State()
	crash := mem.CrashClone(vfs.CrashCloneCfg{})
	s.close()
	b, err := crash.UnsafeGetFileDataBuffer("db/STATE")
	require.NoError(t, err)
	x, err := parseStateSlot(b)
	require.NoError(t, err)
	off := 0
	if x.sequence != st.sequence {
		off = pageBytes
	}
	clear(b[off : off+512])
	o.FS = crash
	s = openStore(t, o)
	require.Len(t, s.got, 25)
	require.Greater(t, s.rec.NextLSN, st.IssuedCeiling)
	s.close()
}
