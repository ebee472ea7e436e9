package mmap

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// seekableFile is the part of a pack that is a file in the public seekable format: the
// frames of a blob and their seek table.
func seekableFile(t testing.TB, dir string, ref []byte) ([]byte, Ref) {
	t.Helper()
	r, err := DecodeRef(ref)
	require.NoError(t, err)
	require.True(t, r.Codec.compressed())
	f, err := os.Open(filepath.Join(dir, packName(r.Pack)))
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, r.Stored-blobHeaderLen-(frames(r.Size, defaultFrameBytes)+1)*footerEntryLen)
	_, err = f.ReadAt(b, int64(r.Offset+blobHeaderLen))
	require.NoError(t, err)
	return b, r
}

// foreignReader is a reader of the format that is not ours.
func foreignReader(t testing.TB, file []byte) *seekable.Reader {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	require.NoError(t, err)
	t.Cleanup(dec.Close)
	r, err := seekable.NewReader(bytes.NewReader(file), dec)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// Goal: who knows the public seekable format and nothing of us reads a published blob at
// any place by its seek table, and finds there the checksum of each frame, which is the
// low half of the XXH64 of its bytes.
func TestBlob_seekableFormat(t *testing.T) {
	dec, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer dec.Close()
	rnd := rand.New(rand.NewPCG(1, 5))
	compressions, sizes := []Compression{Auto, Fast, Best}, []int{1000, defaultFrameBytes, defaultFrameBytes + 1, 3<<20 + 7, 9 << 20}
	reads := 50
	if testing.Short() {
		compressions, sizes, reads = compressions[:1], []int{1000, 400_000, soloBytes}, 10
	}
	for _, c := range compressions {
		s, dir := disk(t, func(o *Options) { o.Compression = c })
		for i, n := range sizes {
			v := value("text", n)
			if n > 1<<20 { // with a stretch that does not shrink
				copy(v[n/2:], value("random", 500_000))
			}
			var ref []byte
			if i%2 == 1 {
				ref, err = s.Write(v)
			} else { // the last one gets a pack of its own
				ref, err = streamed(s, v, 0)
			}
			require.NoError(t, err)
			file, ref2 := seekableFile(t, dir, ref)
			r := foreignReader(t, file)
			table, err := r.SeekTable()
			require.NoError(t, err)
			require.EqualValues(t, len(v), table.Size())
			require.EqualValues(t, frames(ref2.Size, defaultFrameBytes), table.NumFrames())
			require.True(t, table.HasChecksums())

			at := 0
			for id := range table.NumFrames() {
				e, ok := table.EntryByID(id)
				require.True(t, ok)
				require.EqualValues(t, at, e.DecompressedOffset)
				want := v[at : at+int(e.DecompressedSize)]
				frame, err := dec.DecodeAll(file[e.CompressedOffset:][:e.CompressedSize], nil)
				require.NoError(t, err)
				same(t, want, frame)
				require.Equal(t, uint32(xxhash.Sum64(frame)), e.Checksum, "frame %d", id)
				at += len(frame)
			}
			require.Equal(t, len(v), at)

			for range reads {
				off := rnd.IntN(len(v))
				p := make([]byte, 1+rnd.IntN(300_000))
				got, err := r.ReadAt(p, int64(off))
				if off+len(p) > len(v) {
					require.ErrorIs(t, err, io.EOF)
				} else {
					require.NoError(t, err)
				}
				same(t, v[off:min(off+len(p), len(v))], p[:got])
			}
			last := make([]byte, 1)
			_, err = r.ReadAt(last, int64(len(v)-1))
			require.NoError(t, err)
			require.Equal(t, v[len(v)-1], last[0])
		}
	}
}

// Goal: the reader above does look at the checksums, so that a wrong one is not passed
// over.
func TestBlob_seekableFormat_wrongChecksum(t *testing.T) {
	s, dir := disk(t, func(o *Options) { o.Compression = Fast })
	v := value("text", 400_000)
	file, r := seekableFile(t, dir, put(t, s, v))
	n := int(frames(r.Size, defaultFrameBytes))
	sum := file[len(file)-seekFooterLen-(n-1)*seekEntryLen+8:] // of frame 1
	binary.LittleEndian.PutUint32(sum, binary.LittleEndian.Uint32(sum)^1)
	reader := foreignReader(t, file)
	p := make([]byte, 100)
	_, err := reader.ReadAt(p, 0)
	require.NoError(t, err)
	same(t, v[:100], p)
	_, err = reader.ReadAt(p, defaultFrameBytes+5)
	require.ErrorContains(t, err, "checksum")
}
