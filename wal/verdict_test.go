package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/stretchr/testify/require"
)

// Goal: what STATE says about the log is compared with the log, and so are the
// spares behind it.
func TestRecover_stateContradicts(t *testing.T) {
	two := func() []*forge {
		a := newForge(1).open(nil).data(2)
		return []*forge{a, newForge(2).follow(a, nil).data(2)}
	}
	segs := two()
	end1, end2 := int64(len(segs[0].b)), int64(len(segs[1].b))
	spare := func(change func(*forge)) func() []*forge {
		return func() []*forge {
			s := newForge(3)
			change(s)
			return append(two(), s)
		}
	}
	// A spare that is shorter than its header says, whole or begun.
	cut := spare(func(s *forge) { s.hdr.size = 1 << 20; s.hdr.put(s.b) })
	begun := spare(func(s *forge) { s.b = append(s.b, make([]byte, openBytes)...); s.last = 4; s.data(1) })
	for _, c := range []struct {
		name, what string
		segs       func() []*forge
		change     func(*State)
	}{
		{"content of the newest", "remembers another content", two, func(s *State) { s.SegNo, s.Offset, s.ChainCRC = 2, end2, segs[1].chain+1 }},
		{"place in the newest", "remembers another content", two, func(s *State) { s.SegNo, s.Offset, s.ChainCRC = 2, end2-8, segs[1].chain }},
		{"content of an older one", "remembers another content", two, func(s *State) { s.SegNo, s.Offset, s.ChainCRC = 1, end1, segs[0].chain+1 }},
		{"later segment", "extends to segment 3", two, func(s *State) { s.SegNo = 3 }},
		{"later offset", "extends to offset", two, func(s *State) { s.SegNo, s.Offset = 2, end2+8 }},
		{"clean, elsewhere", "was closed at offset", two, func(s *State) { s.SegNo, s.Offset, s.ChainCRC, s.Clean = 2, end2, segs[1].chain, true }},
		{"clean, older", "is older than the log", two, func(s *State) { s.SegNo, s.Offset, s.ChainCRC, s.Clean = 1, end1, segs[0].chain, true }},
		{"promise", "everything up to 5 was synced", two, func(s *State) { s.Synced = 5 }},
		{"owner", "in a later open", two, func(s *State) { s.OwnerEpoch = 0 }},
		{"ceiling", "leased only up to 3", two, func(s *State) { s.IssuedCeiling = 3 }},
		{"spare was cut", "was cut to", cut, nil},
		{"spare was begun", "and segment 3 goes on", begun, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk, st := forged(t, c.segs()...)
			if c.change != nil {
				c.change(&st)
			}
			_, err := Recover(memOptions(disk), st, 0, ReplayFuncs{})
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, c.what)
			// In time before the damage there is a log.
			o := memOptions(disk)
			o.Mode = PointInTime
			rec, err := Recover(o, st, 0, ReplayFuncs{})
			require.NoError(t, err)
			require.NotEmpty(t, rec.Lost)
			l, err := rec.Start()
			require.NoError(t, err)
			require.NoError(t, l.Close())
		})
	}
}

// Goal: a log without a segment that was begun is empty only if nothing says
// that it was not.
func TestRecover_emptyOrLost(t *testing.T) {
	unborn := newForge(1)
	unborn.hdr.size = framesOffset
	unborn.hdr.put(unborn.b)
	short := newForge(1)
	short.hdr.size = 1 << 20
	short.hdr.put(short.b)
	torn := newForge(1)
	torn.b = append(torn.b, make([]byte, openBytes)...) // OPEN never arrived
	torn.last = 4
	torn.put(frame{kind: kindData, count: 1, synced: 4}, groupOf(1, 1))
	for _, c := range []struct {
		name, what string
		segs       []*forge
		change     func(*State)
		above      uint64
	}{
		{"nothing", "", nil, nil, 0},
		{"a spare", "", []*forge{unborn}, nil, 0},
		{"a lost slot", "", []*forge{unborn}, func(s *State) { s.lostSlot = true }, 0},
		{"torn, in storage", "", []*forge{torn}, nil, 4},
		{"torn, promised", "OPEN does not verify", []*forge{torn}, nil, 3},
		{"cut", "the file was cut", []*forge{short}, nil, 0},
		{"segment", "says that the log extends", nil, func(s *State) { s.SegNo = 1 }, 0},
		{"promise", "everything up to 3 was synced", nil, func(s *State) { s.Synced = 3 }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk, st := forged(t, c.segs...)
			if c.change != nil {
				c.change(&st)
			}
			rec, err := Recover(memOptions(disk), st, c.above, ReplayFuncs{})
			if c.what == "" {
				require.NoError(t, err)
				require.Equal(t, c.above, rec.LastLSN)
				require.Greater(t, rec.NextLSN, st.IssuedCeiling)
				return
			}
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, c.what)
			o := memOptions(disk)
			o.Mode = PointInTime
			rec, err = Recover(o, st, c.above, ReplayFuncs{})
			require.NoError(t, err)
			require.NotEmpty(t, rec.Lost)
		})
	}
}

// Goal: an error of the owner ends a recovery in every mode and comes through,
// and so does a record that cannot be kept.
func TestRecover_ownerRefuses(t *testing.T) {
	a := newForge(1).open(nil).data(2)
	b := newForge(2).follow(a, nil).data(2).data(1)
	disk, st := forged(t, a, b)
	mine := errors.New("the owner's")
	for _, mode := range []Mode{Strict, Absolute, PointInTime, Salvage} {
		for _, bad := range []uint64{1, 2, 3, 5} {
			o := memOptions(disk)
			o.Mode = mode
			_, err := Recover(o, st, 0, ReplayFuncs{Replay: func(lsn uint64, _ []byte, _ uint32) error {
				if lsn == bad {
					return mine
				}
				return nil
			}})
			require.ErrorIs(t, err, mine, "mode %d, number %d", mode, bad)
			_, err = Recover(o, st, 0, ReplayFuncs{Check: func(lsn uint64, _ []byte, _ uint32, _ bool) error {
				if lsn == bad {
					return mine
				}
				return nil
			}})
			require.ErrorIs(t, err, mine, "mode %d, number %d", mode, bad)
			rec, err := Recover(o, st, 0, ReplayFuncs{Check: func(lsn uint64, _ []byte, _ uint32, promised bool) error {
				if lsn == bad {
					return fmt.Errorf("blob: %w", ErrCut)
				}
				return nil
			}})
			switch {
			case mode == Absolute, mode == Strict && bad < 3:
				require.ErrorIs(t, err, ErrCorrupt, "mode %d, number %d", mode, bad)
				require.ErrorIs(t, err, ErrCut)
			case mode == Strict:
				require.NoError(t, err)
				require.Equal(t, map[uint64]uint64{3: 2, 5: 4}[bad], rec.LastLSN)
			default:
				require.NoError(t, err, "mode %d, number %d", mode, bad)
				require.Equal(t, mode == Salvage || bad < 3, len(rec.Lost) > 0)
			}
		}
	}
}

// Goal: a promised record of the newest segment that cannot be kept is a loss
// that a point in time reports.
func TestRecover_promisedAndCut(t *testing.T) {
	a := newForge(1).open(nil).data(2).put(frame{kind: kindMarker, synced: 2}, nil)
	disk, st := forged(t, a)
	cut := ReplayFuncs{Check: func(lsn uint64, _ []byte, _ uint32, promised bool) error {
		if promised {
			return ErrCut
		}
		return nil
	}}
	_, err := Recover(memOptions(disk), st, 0, cut)
	require.ErrorIs(t, err, ErrCorrupt)
	o := memOptions(disk)
	o.Mode = PointInTime
	rec, err := Recover(o, st, 0, cut)
	require.NoError(t, err)
	require.NotEmpty(t, rec.Lost)
	require.Zero(t, rec.LastLSN)
}

// Goal: the headers of a segment say whose it is and what it is.
func TestRecover_headers(t *testing.T) {
	for _, c := range []struct {
		name   string
		is     error
		change func([]byte)
	}{
		{"newer", ErrVersion, func(b []byte) { b[8] = 9 }},
		{"number", ErrCorrupt, func(b []byte) { b[32] = 9 }},
		{"store", ErrForeign, func(b []byte) { b[16] = 99 }},
		{"length", ErrCorrupt, func(b []byte) { b[12] = 8 }},
		{"longer than a page", ErrCorrupt, func(b []byte) { b[13] = 0x20 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newForge(1).open(nil).data(1)
			c.change(f.b)
			le := func(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }
			copy(f.b[64:], le(Checksum(f.b[:64])))
			copy(f.b[pageBytes:], f.b[:pageBytes])
			disk, st := forged(t, f)
			_, err := Recover(memOptions(disk), st, 0, ReplayFuncs{})
			require.ErrorIs(t, err, c.is)
		})
	}
	// Names that are not ours are left alone.
	disk, st := forged(t, newForge(1).open(nil).data(1))
	for _, name := range []string{"readme.txt", "1.wal", "0000000000000000000x.wal", "00000000000000000000.wal"} {
		require.NoError(t, disk.Put("/db/log/"+name, []byte("x")))
	}
	rec, err := Recover(memOptions(disk), st, 0, ReplayFuncs{})
	require.NoError(t, err)
	l, err := rec.Start()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Contains(t, disk.Tree().Paths(), "/db/log/readme.txt")
	_, err = rec.Start()
	require.Error(t, err, "a recovery starts once")
}

// Goal: two slots of STATE that name two stores are corruption.
func TestReadState_twoStores(t *testing.T) {
	b := make([]byte, stateBytes)
	(&State{UUID: testUUID, sequence: 1}).put(b)
	(&State{UUID: [16]byte{9}, sequence: 2}).put(b[pageBytes:])
	_, err := parseState("STATE", b)
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal: a tail that changes between Recover and Start is not written again.
func TestRecovery_Start_tailChanged(t *testing.T) {
	f := newForge(1).open(nil).data(2).data(2)
	disk, st := forged(t, f)
	rec, err := Recover(memOptions(disk), st, 0, ReplayFuncs{})
	require.NoError(t, err)
	var state [stateBytes]byte
	st.put(state[:])
	require.NoError(t, disk.Put("/db/STATE", state[:]))
	b := bytes.Clone(disk.Tree()["/db/log/"+segmentName(1)].Data)
	b[len(f.b)-10] ^= 1
	require.NoError(t, disk.Put("/db/log/"+segmentName(1), b))
	_, err = rec.Start()
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal: a salvage says what of a batch over frames is gone.
func TestRecover_salvageBeheaded(t *testing.T) {
	span := groupOf(1, 200)
	a := newForge(1).open(nil).data(1).put(frame{kind: kindData, count: 1, flags: flagFirst}, span[:96])
	b := newForge(2).follow(a, func(o *openRecord, _ *frame) { o.cont = true })
	b.put(frame{kind: kindData, count: 1, flags: flagLast}, span[96:]).data(1)
	disk, st := forged(t, a, b)
	s, err := tryRecoverState(t, disk, st, Strict)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3}, s)
	require.NoError(t, disk.Remove("/db/log/"+segmentName(1)))
	s, err = tryRecoverState(t, disk, st, Salvage)
	require.NoError(t, err)
	require.Equal(t, []uint64{3}, s)
}

func tryRecoverState(t *testing.T, disk *simfs.FS, st State, mode Mode) (got []uint64, err error) {
	o := memOptions(disk)
	o.Mode = mode
	_, err = Recover(o, st, 0, ReplayFuncs{Replay: func(lsn uint64, _ []byte, _ uint32) error {
		got = append(got, lsn)
		return nil
	}})
	return got, err
}

// stuckFile reads nothing and says nothing.
type stuckFile struct{ vfs.File }

func (stuckFile) ReadAt([]byte, int64) (int, error) { return 0, nil }

// Goal: a file that reads nothing ends in an error, a folder that cannot be
// looked at too, and a root that does not exist is no endless climb.
func TestFiles_oddities(t *testing.T) {
	_, err := readFull(stuckFile{}, make([]byte, 1), 0)
	require.ErrorIs(t, err, io.ErrNoProgress)
	disk := simfs.New(nil)
	disk.Inject(simfs.Rule{Ops: simfs.OpStat, Every: 1, Err: fs.ErrNotExist})
	require.NoError(t, makeDirs(disk, "a/b"))
	require.True(t, isTransient(syscall.EMFILE))
}
