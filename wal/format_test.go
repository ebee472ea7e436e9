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

// golden names the files of the store that goldenStore makes.
var golden = map[string]string{
	"testdata/segment.golden": "db/log/" + segmentName(1),
	"testdata/state.golden":   "db/STATE",
}

// goldenStore makes one frame of each kind, a spanning batch, a clean STATE. It is
// false if the log's clock got in between with a MARKER of its own.
func goldenStore(t *testing.T) (files map[string][]byte, ok bool) {
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
	ok = s.log.writeMarker(pos)
	s.put([]byte("three"))
	require.NoError(t, s.log.Sync(context.Background()))
	s.close()
	ok = ok && s.log.Metrics().Markers == 1
	files = make(map[string][]byte)
	for file, name := range golden {
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
		files[file] = b
	}
	return files, ok
}

// The bytes on disk are those of format 1.
func TestFormat_golden(t *testing.T) {
	files, ok := goldenStore(t)
	for tries := 0; !ok && tries < 100; tries++ {
		files, ok = goldenStore(t)
	}
	require.True(t, ok, "the clock always gets in between")
	for file, b := range files {
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(file, b, 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, b), "%s changed: old stores would not open", file)
	}
	// And the golden files are a store that opens.
	back := vfs.NewMem()
	require.NoError(t, back.MkdirAll("db/log", 0o755))
	for file, name := range golden {
		b, err := os.ReadFile(file)
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
