package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // disks in memory that live for a moment: a quarter of the time
	goleak.VerifyTestMain(m)
}

var testUUID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

var policies = []Policy{Always, Interval, Never}

func (p Policy) String() string { return [...]string{"always", "interval", "never"}[p] }

// payloadOf is self-describing: whoever reads it knows which number it is the
// seed of, and whether a byte of it changed.
func payloadOf(seed uint64, n int) []byte {
	b := make([]byte, 12+n)
	binary.LittleEndian.PutUint64(b, seed)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := 12; i < len(b); i++ {
		b[i] = byte(r.Uint32())
	}
	binary.LittleEndian.PutUint32(b[8:], Checksum(b[12:]))
	return b
}

func seedOfPayload(b []byte) (uint64, error) {
	if len(b) < 12 || Checksum(b[12:]) != binary.LittleEndian.Uint32(b[8:]) {
		return 0, fmt.Errorf("payload of %d bytes is not what was written", len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

// store is a log and what it should hold.
type store struct {
	t    testing.TB
	o    Options
	log  *Log
	got  map[uint64][]byte // by number, recovered
	seq  []uint64
	rec  *Recovery
	next uint64 // seed of the next payload
}

func memOptions(fs vfs.FS) Options { return Options{FS: fs, Dir: "db", SegmentBytes: 16 << 10} }

// openStore creates the store if there is none, recovers it and starts it.
func openStore(t testing.TB, o Options) *store {
	s, err := tryOpen(t, o, 0)
	require.NoError(t, err)
	return s
}

func tryRecover(t testing.TB, o Options, above uint64) (*store, error) {
	s := &store{t: t, o: o, got: map[uint64][]byte{}}
	st, err := ReadState(o.FS, o.Dir)
	if err != nil {
		return s, err
	}
	s.rec, err = Recover(o, st, above, ReplayFuncs{Replay: func(lsn uint64, p []byte, ops uint32) error {
		if _, dup := s.got[lsn]; dup {
			return fmt.Errorf("number %d came twice", lsn)
		}
		if n := len(s.seq); n > 0 && s.seq[n-1] >= lsn {
			return fmt.Errorf("number %d came after %d", lsn, s.seq[n-1])
		}
		s.got[lsn] = bytes.Clone(p)
		s.seq = append(s.seq, lsn)
		return nil
	}})
	return s, err
}

func tryOpen(t testing.TB, o Options, above uint64) (*store, error) {
	if _, err := ReadState(o.FS, o.Dir); err != nil {
		if _, err := CreateState(o.FS, o.Dir, testUUID); err != nil {
			return nil, err
		}
	}
	s, err := tryRecover(t, o, above)
	if err != nil {
		return s, err
	}
	s.log, err = s.rec.Start()
	return s, err
}

func (s *store) put(p []byte) uint64 {
	s.t.Helper()
	lsn, err := s.log.Commit(context.Background(), p, 1, Checksum(p), nil)
	require.NoError(s.t, err)
	return lsn
}

func (s *store) close() {
	s.t.Helper()
	require.NoError(s.t, s.log.Close())
}
