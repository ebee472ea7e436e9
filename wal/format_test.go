package wal

import (
	"bytes"
	"context"
	"flag"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files")

// The bytes on disk are those of format 1: one frame of each kind, a spanning
// batch, a clean STATE.
func TestFormat_golden(t *testing.T) {
	mem := vfs.NewMem()
	o := memOptions(mem)
	o.salt = func() uint64 { return 0x0123456789abcdef }
	s := openStore(t, o)
	s.put([]byte("one"))
	s.log.groupCap = 1024
	s.put(bytes.Repeat([]byte("spanning "), 300))
	s.log.syncMu.Lock()
	s.log.mu.Lock()
	pos := s.log.pos
	s.log.mu.Unlock()
	s.log.syncMu.Unlock()
	require.True(t, s.log.writeMarker(pos))
	// Nobody else may write a MARKER now, whatever the clock does.
	s.put([]byte("three"))
	require.NoError(t, s.log.Sync(context.Background()))
	s.close()
	for name, golden := range map[string]string{
		"db/log/" + segmentName(1): "testdata/segment.golden",
		"db/STATE":                 "testdata/state.golden",
	} {
		b, err := mem.UnsafeGetFileDataBuffer(name)
		require.NoError(t, err)
		if name == "db/STATE" {
			// How often it was written depends on the clock: keep the newest slot.
			st, err := parseState(name, b)
			require.NoError(t, err)
			st.sequence = 9
			b = make([]byte, stateBytes)
			st.put(b[pageBytes:])
			require.True(t, st.Clean)
		}
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(golden, b, 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, b), "%s changed: old stores would not open", golden)
	}
	// And the golden files are a store that opens.
	back := vfs.NewMem()
	require.NoError(t, back.MkdirAll("db/log", 0o755))
	for golden, name := range map[string]string{
		"testdata/segment.golden": "db/log/" + segmentName(1),
		"testdata/state.golden":   "db/STATE",
	} {
		b, err := os.ReadFile(golden)
		require.NoError(t, err)
		f, err := back.Create(name, writeCategory)
		require.NoError(t, err)
		_, err = f.Write(b)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	r, err := tryRecover(t, memOptions(back), 0)
	require.NoError(t, err)
	require.True(t, r.rec.Clean)
	require.Equal(t, []uint64{1, 2, 3}, r.seq)
	require.Equal(t, "one", string(r.got[1]))
	require.Len(t, r.got[2], 2700)
}

// A newer format is refused by name.
func TestReadState_newerFormat(t *testing.T) {
	mem := vfs.NewMem()
	_, err := CreateState(mem, "db", testUUID)
	require.NoError(t, err)
	b, err := mem.UnsafeGetFileDataBuffer("db/STATE")
	require.NoError(t, err)
	b[8] = 2
	sum := Checksum(b[:pageBytes-4])
	b[pageBytes-4], b[pageBytes-3], b[pageBytes-2], b[pageBytes-1] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	_, err = ReadState(mem, "db")
	require.ErrorIs(t, err, ErrVersion)
	copy(b, "something else entirely")
	copy(b[pageBytes:], "something else entirely")
	_, err = ReadState(mem, "db")
	require.ErrorIs(t, err, ErrForeign)
}

// No header makes the decoder panic, and what decodes encodes to the same bytes.
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
		_, _ = parseOpen(b)
		_, _ = parseSeal(b)
		es, err := parseEntries(b, int(salt%8), nil)
		for _, e := range es {
			if err == nil && Checksum(e.payload) != e.sum {
				t.Fatal("an entry that does not verify")
			}
		}
	})
}

// No bytes under a segment's name make recovery panic or return anything but
// batches that verify, in any mode.
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
		for _, mode := range []Mode{Strict, Absolute, PointInTime, Salvage} {
			mem := vfs.NewMem()
			if err := mem.MkdirAll("db/log", 0o755); err != nil {
				t.Fatal(err)
			}
			w, err := mem.Create("db/log/"+segmentName(1), writeCategory)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(bytes.Clone(b)); err != nil {
				t.Fatal(err)
			}
			o := memOptions(mem)
			o.Mode = mode
			last := uint64(0)
			_, _ = Recover(o, st, 0, ReplayFuncs{Replay: func(lsn uint64, p []byte, _ uint32) error {
				if lsn <= last {
					t.Fatalf("number %d after %d", lsn, last)
				}
				last = lsn
				return nil
			}})
		}
	})
}

// No bytes make the decoder of STATE panic, and what decodes encodes to the same.
func FuzzState(f *testing.F) {
	if b, err := os.ReadFile("testdata/state.golden"); err == nil {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState("STATE", b)
		if err != nil {
			return
		}
		var again [pageBytes]byte
		st.put(again[:])
		if _, err := parseStateSlot(again[:]); err != nil {
			t.Fatal(err)
		}
	})
}
