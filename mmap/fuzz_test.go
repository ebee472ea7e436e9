package mmap

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func FuzzRef(f *testing.F) {
	f.Add(Ref{Pack: 1, Offset: 4096, Stored: 200, Size: 100}.append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRef(b)
		if err != nil {
			if !typed(err) {
				t.Fatal(err)
			}
			if len(b) < 44 {
				return
			}
			// Behind the checksum the fields must hold on their own.
			b = binary.LittleEndian.AppendUint32(bytes.Clone(b[:44]), checksum(b[:44]))
			if r, err = DecodeRef(b); err != nil {
				return
			}
		}
		if !bytes.Equal(r.append(nil), b) {
			t.Fatal("not canonical")
		}
	})
}

func FuzzBlob(f *testing.F) {
	im := makeImage(f)
	for i, ref := range im.refs {
		r, _ := DecodeRef(ref)
		f.Add(im.pack[r.Offset:][:r.Stored], uint32(r.Size), i == 1)
	}
	f.Fuzz(func(t *testing.T, blob []byte, size uint32, compressed bool) {
		if len(blob) < blobHeaderLen+4 || size > 1<<24 {
			return
		}
		// The checksums are made right, so that the decoders behind them are
		// reached with hostile bytes.
		r := Ref{Pack: 1, Offset: packHeaderLen, Stored: uint64(len(blob)), Size: uint64(size), Hash: 1}
		if compressed {
			r.Codec = Zstd
		}
		const frameBytes = minFrameBytes
		n := frames(r.Size, frameBytes)
		tail := tailLen(r.Codec, n)
		blob = bytes.Clone(blob)
		if uint64(len(blob)) >= blobHeaderLen+tail {
			footer := blob[uint64(len(blob))-(n+1)*4:]
			if compressed {
				table := blob[uint64(len(blob))-tail:][:seekTableLen(n)]
				binary.LittleEndian.PutUint32(footer[n*4:], checksum(table))
				var at uint64 = blobHeaderLen
				for i := range n {
					stored := uint64(binary.LittleEndian.Uint32(table[seekHeaderLen+i*seekEntryLen:]))
					if at+stored > uint64(len(blob))-tail {
						break
					}
					binary.LittleEndian.PutUint32(footer[i*4:], checksum(blob[at:at+stored]))
					at += stored
				}
			}
			copy(blob, encodeBlobHeader(testUUID, r, frameBytes, footer))
		}
		pack := append(encodePackHeader(testUUID, 1, 0), blob...)
		s := memStore(t, pack, 1)
		defer s.Close()
		for _, read := range []func() error{
			func() error { _, err := get(s, r.append(nil)); return err },
			func() error { return s.Exists(r.append(nil)) },
			func() error { return s.Verify(r.append(nil)) },
		} {
			if err := read(); err != nil && !typed(err) {
				t.Fatal(err)
			}
		}
	})
}
