package mmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// resealed puts the right checksum at the end.
func resealed(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[len(b)-4:], checksum(b[:len(b)-4]))
	return b
}

// Goal (M5): behind a right checksum each field of a reference is looked at: what no
// store writes is refused.
func TestDecodeRef_fields(t *testing.T) {
	good := Ref{Pack: 1, Offset: packHeaderLen, Stored: 200, Size: 100, Hash: 7, Codec: Raw}
	_, err := DecodeRef(good.append(nil))
	require.NoError(t, err)
	for name, change := range map[string]func(*Ref){
		"size":   func(r *Ref) { r.Size = MaxValue + 1 },
		"offset": func(r *Ref) { r.Offset = packHeaderLen - blobAlign },
		"align":  func(r *Ref) { r.Offset++ },
		"far":    func(r *Ref) { r.Offset = maxOffset + blobAlign },
		"short":  func(r *Ref) { r.Stored = blobHeaderLen + 3 },
		"long":   func(r *Ref) { r.Stored = maxOffset + 1 },
	} {
		bad := good
		change(&bad)
		_, err := DecodeRef(bad.append(nil))
		require.ErrorIs(t, err, ErrCorrupt, name)
		var ce *CorruptError
		require.ErrorAs(t, err, &ce)
		require.Empty(t, ce.File)
		require.Contains(t, err.Error(), "mmap: corrupt: reference: ")
	}
	for _, at := range []int{40, 41, 42, 43} {
		b := good.append(nil)
		b[at] = 9
		_, err := DecodeRef(resealed(b))
		require.ErrorIs(t, err, ErrVersion)
	}
	b := good.append(nil)
	b[0] ^= 1
	_, err = DecodeRef(b)
	require.ErrorIs(t, err, ErrCorrupt)
	require.Equal(t, "raw zstd zstd-best codec(9)", Raw.String()+" "+Zstd.String()+" "+ZstdBest.String()+" "+Codec(9).String())
}

// Goal: an error of corruption names its place and carries its cause.
func TestCorruptError(t *testing.T) {
	cause := errors.New("cause")
	err := &CorruptError{File: packName(7), Offset: 4096, What: "frame 3", Err: cause}
	require.Equal(t, "mmap: corrupt: 00000000000000000007.pack: offset 4096: frame 3: cause", err.Error())
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal (M5): behind right checksums each field of a blob's header, footer and seek table
// is looked at; nothing is allocated for what they declare.
func TestDecodeBlob_fields(t *testing.T) {
	im := makeImage(t)
	le := binary.LittleEndian
	raw, err := DecodeRef(im.refs[0])
	require.NoError(t, err)
	zstd, err := DecodeRef(im.refs[1])
	require.NoError(t, err)
	require.Equal(t, Zstd, zstd.Codec)
	n := frames(zstd.Size, minFrameBytes)
	tableAt := zstd.Offset + zstd.Stored - tailLen(Zstd, n)
	for name, c := range map[string]struct {
		r     Ref
		spoil func(header, tail []byte)
		want  error
	}{
		"reserved":       {raw, func(h, _ []byte) { h[6] = 1 }, ErrVersion},
		"codec":          {raw, func(h, _ []byte) { h[4] = 7 }, ErrVersion},
		"frame bytes":    {raw, func(h, _ []byte) { le.PutUint32(h[48:], minFrameBytes-1) }, ErrCorrupt},
		"huge frames":    {raw, func(h, _ []byte) { le.PutUint32(h[48:], maxFrameBytes+1) }, ErrCorrupt},
		"fewer frames":   {raw, func(h, _ []byte) { le.PutUint32(h[52:], 1) }, ErrCorrupt},
		"larger frames":  {raw, func(h, _ []byte) { le.PutUint32(h[48:], 2*minFrameBytes); le.PutUint32(h[52:], 1) }, ErrCorrupt},
		"frame's size":   {zstd, func(_, tail []byte) { le.PutUint32(tail[seekHeaderLen+4:], 1<<31) }, ErrCorrupt},
		"frame's stored": {zstd, func(_, tail []byte) { le.PutUint32(tail[seekHeaderLen:], 1<<31) }, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			pack := bytes.Clone(im.pack)
			header := pack[c.r.Offset:][:blobHeaderLen]
			if c.r.Codec == Zstd {
				tail := pack[tableAt:][:tailLen(Zstd, n)]
				c.spoil(header, tail)
				footer := tail[seekTableLen(n):]
				le.PutUint32(footer[n*footerEntryLen:], checksum(tail[:seekTableLen(n)]))
				le.PutUint32(header[56:], checksum(footer))
			} else {
				c.spoil(header, nil)
			}
			le.PutUint32(header[60:], headerSum(testUUID, header))
			s := memStore(t, pack, 1)
			ref := c.r.append(nil)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := get(s, ref)
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, c.want)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
			require.ErrorIs(t, s.Verify(ref), c.want)
			require.ErrorIs(t, s.Exists(ref), c.want)
			require.NoError(t, s.Verify(im.refs[2]), "its neighbour is whole")
			require.NoError(t, s.Close())
		})
	}

	// A frame whose checksum is right and whose bytes are no frame, or another's.
	first := uint64(le.Uint32(im.pack[tableAt+seekHeaderLen:]))
	for name, frame := range map[string][]byte{
		"not zstd": bytes.Repeat([]byte{0xaa}, int(first)),
		"shorter":  append(fastEncoder().EncodeAll(make([]byte, 10), nil), skippable(int(first)-23)...),
	} {
		pack := bytes.Clone(im.pack)
		frame = frame[:min(len(frame), int(first))]
		copy(pack[zstd.Offset+blobHeaderLen:][:first], frame)
		footer := pack[tableAt+seekTableLen(n):][:(n+1)*footerEntryLen]
		le.PutUint32(footer, checksum(pack[zstd.Offset+blobHeaderLen:][:first]))
		header := pack[zstd.Offset:][:blobHeaderLen]
		le.PutUint32(header[56:], checksum(footer))
		le.PutUint32(header[60:], headerSum(testUUID, header))
		s := memStore(t, pack, 1)
		require.NoError(t, s.Exists(im.refs[1]), name)
		require.ErrorIs(t, s.Verify(im.refs[1]), ErrCorrupt, name)
		_, err := get(s, im.refs[1])
		require.ErrorContains(t, err, "frame 0", name)
		b, err := s.Open(im.refs[1])
		require.NoError(t, err)
		p := make([]byte, 100)
		_, err = b.ReadAt(p, int64(zstd.Size)-100)
		require.NoError(t, err, "another frame is whole")
		same(t, im.values[1][len(im.values[1])-100:], p)
		_, err = b.ReadAt(p, int64(zstd.Size))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, b.Close())
		require.NoError(t, s.Close())
	}
}

// skippable is a frame that a decoder passes over, n bytes long.
func skippable(n int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, seekSkipMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(max(n-8, 0)))
	return append(b, make([]byte, max(n-8, 0))...)
}
