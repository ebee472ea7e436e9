package mmap

import (
	"bytes"
	"encoding/binary"
	"os"
	"runtime/metrics"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// golden returns the pack and the references of testdata.
func golden(f *testing.F) (pack []byte, refs [][]byte) {
	pack, err := os.ReadFile("testdata/pack.golden")
	if err != nil {
		f.Fatal(err)
	}
	all, err := os.ReadFile("testdata/refs.golden")
	if err != nil {
		f.Fatal(err)
	}
	for ; len(all) > 0; all = all[RefLen:] {
		refs = append(refs, all[:RefLen:RefLen])
	}
	return pack, refs
}

// frugal fails the test if f allocates more than a small multiple of what it was
// given: sizes that bytes declare are not to be believed.
func frugal(t *testing.T, given int, f func()) {
	t.Helper()
	allocated := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	decoder() // made once, for all
	before := allocated()
	f()
	if n := allocated() - before; n > 8<<20+64*uint64(given) {
		t.Fatalf("%d bytes allocated for %d given", n, given)
	}
}

func FuzzRef(f *testing.F) {
	f.Add(Ref{Pack: 1, Offset: 4096, Stored: 200, Size: 100}.append(nil))
	f.Add([]byte{})
	_, refs := golden(f)
	for _, r := range refs {
		f.Add(r)
	}
	f.Add(Ref{Pack: 1, Offset: 4096, Stored: maxOffset + 1, Size: MaxValue + 1, Codec: 9}.append(nil))
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
		frugal(t, len(pack), func() { readAll(t, s, r) })
	})
}

// readAll reads a blob in every way: each gives the same bytes, of the size that the
// reference says, or a typed error.
func readAll(t *testing.T, s *Store, r Ref) {
	ref := r.append(nil)
	v, err := get(s, ref)
	if err == nil && uint64(len(v)) != r.Size {
		t.Fatalf("%d bytes, want %d", len(v), r.Size)
	}
	seen, verr := view(s, ref)
	if (err == nil) != (verr == nil) || !bytes.Equal(v, seen) {
		t.Fatalf("AppendTo and View differ: %v, %v", err, verr)
	}
	for _, err := range []error{err, verr, s.Exists(ref), s.Verify(ref)} {
		if err != nil && !typed(err) {
			t.Fatal(err)
		}
	}
	if s.Verify(ref) == nil && (err != nil || r.Size > 0 && xxhash.Sum64(v) != r.Hash) {
		t.Fatal("Verify approves of what Get does not give: ", err)
	}
}

// Whatever the bytes of a blob's header, it is refused with a typed error, or what it
// says fits the reference and itself.
func FuzzHeader(f *testing.F) {
	pack, refs := golden(f)
	for _, ref := range refs {
		r, _ := DecodeRef(ref)
		f.Add(pack[r.Offset:][:blobHeaderLen], ref)
	}
	f.Add(make([]byte, blobHeaderLen), refs[0])
	f.Add([]byte(blobMagic), refs[1])
	f.Fuzz(func(t *testing.T, head, ref []byte) {
		if len(ref) != RefLen {
			return
		}
		r, err := DecodeRef(resealed(bytes.Clone(ref)))
		if err != nil {
			return
		}
		check := func(head []byte) {
			frameBytes, _, err := decodeBlobHeader(head, testUUID, r)
			if err != nil {
				if !typed(err) {
					t.Fatal(err)
				}
				return
			}
			n := frames(r.Size, frameBytes)
			if frameBytes < minFrameBytes || frameBytes > maxFrameBytes || tailLen(r.Codec, n)+blobHeaderLen > r.Stored {
				t.Fatalf("%d bytes in a frame, %d frames, %d stored", frameBytes, n, r.Stored)
			}
			footer := binary.LittleEndian.Uint32(head[56:])
			if again := encodeBlobHeader(testUUID, r, frameBytes, nil); footer == 0 && !bytes.Equal(again[:56], head[:56]) {
				t.Fatal("not canonical")
			}
		}
		check(head)
		if len(head) == blobHeaderLen {
			head = bytes.Clone(head)
			copy(head, blobMagic)
			for i, v := range []uint64{r.Pack, r.Offset, r.Size, r.Stored, r.Hash} {
				binary.LittleEndian.PutUint64(head[8+8*i:], v)
			}
			head[4] = byte(r.Codec)
			binary.LittleEndian.PutUint32(head[60:], headerSum(testUUID, head))
			check(head)
		}
	})
}

// Whatever the bytes of footer and seek table, they are refused, or every frame lies
// inside the blob, one behind the other.
func FuzzSeekTable(f *testing.F) {
	pack, refs := golden(f)
	for _, ref := range refs {
		r, _ := DecodeRef(ref)
		n := frames(r.Size, minFrameBytes)
		f.Add(pack[r.Offset+r.Stored-tailLen(r.Codec, n):][:tailLen(r.Codec, n)], r.Size, r.Stored, r.Codec == Zstd)
	}
	f.Add([]byte{}, uint64(0), uint64(blobHeaderLen+4), false)
	f.Fuzz(func(t *testing.T, tail []byte, size, stored uint64, compressed bool) {
		r := Ref{Pack: 1, Offset: packHeaderLen, Stored: stored, Size: size}
		if compressed {
			r.Codec = Zstd
		}
		n := frames(size, minFrameBytes)
		// What the header vouched for before the tail is read.
		if size > MaxValue || uint64(len(tail)) != tailLen(r.Codec, n) || stored > maxOffset ||
			stored < blobHeaderLen+uint64(len(tail)) || !compressed && stored != blobHeaderLen+uint64(len(tail))+size {
			return
		}
		tail = bytes.Clone(tail)
		footer := tail[uint64(len(tail))-(n+1)*footerEntryLen:]
		check := func() {
			l, err := decodeTail(tail, r, minFrameBytes, checksum(footer))
			if err != nil {
				if !typed(err) {
					t.Fatal(err)
				}
				return
			}
			at := uint64(0)
			for i := range n {
				from, to := l.stored(i, size)
				if from != at || to < from || to > stored-blobHeaderLen-uint64(len(tail)) {
					t.Fatalf("frame %d from %d to %d of %d", i, from, to, stored)
				}
				at = to
			}
		}
		check()
		if compressed {
			binary.LittleEndian.PutUint32(footer[n*footerEntryLen:], checksum(tail[:seekTableLen(n)]))
			check()
		}
	})
}

// Whatever the bytes of a frame, decoding fills its place exactly or fails, writes
// nowhere else, and allocates no more than the place.
func FuzzFrame(f *testing.F) {
	pack, refs := golden(f)
	r, _ := DecodeRef(refs[1])
	f.Add(pack[r.Offset+blobHeaderLen:][:r.Stored-blobHeaderLen], uint16(minFrameBytes))
	f.Add([]byte{0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0}, uint16(100)) // 1 TiB declared
	f.Add(fastEncoder().EncodeAll(make([]byte, 1<<20), nil), uint16(4096))
	f.Add(fastEncoder().EncodeAll([]byte("ten bytes."), nil), uint16(10))
	f.Add(append(skippable(20), fastEncoder().EncodeAll([]byte("ten bytes."), nil)...), uint16(10))
	f.Add([]byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, stored []byte, size uint16) {
		place := bytes.Repeat([]byte{0xa5}, int(size)+64)
		before := bytes.Clone(stored)
		frugal(t, len(stored)+len(place), func() {
			dst := place[:size]
			if decodeFrame(dst, stored) != nil {
				return
			}
			again := make([]byte, size)
			if err := decodeFrame(again, stored); err != nil || !bytes.Equal(dst, again) {
				t.Fatal("decoded twice, not the same: ", err)
			}
		})
		if !bytes.Equal(before, stored) {
			t.Fatal("the frame was changed")
		}
		if !bytes.Equal(place[size:], bytes.Repeat([]byte{0xa5}, 64)) {
			t.Fatal("wrote past its place")
		}
	})
}

// Whatever the bytes of a pack and of a reference into it, what is read is right by the
// blob's own hash or a typed error, and the neighbours stay readable or typed.
func FuzzPack(f *testing.F) {
	pack, refs := golden(f)
	f.Add(pack[packHeaderLen:], refs[0], true)
	f.Add(pack[packHeaderLen:], refs[1], false)
	f.Add(pack[packHeaderLen:len(pack)-100], refs[2], true)
	f.Add(pack[:packHeaderLen], refs[0], true)
	f.Add([]byte{}, refs[0], true)
	f.Fuzz(func(t *testing.T, body, ref []byte, header bool) {
		if len(ref) != RefLen {
			return
		}
		r, err := DecodeRef(resealed(bytes.Clone(ref)))
		if err != nil {
			if !typed(err) {
				t.Fatal(err)
			}
			return
		}
		pack := body
		if header { // or the bytes have to have one of their own
			pack = append(encodePackHeader(testUUID, r.Pack, 0), body...)
		}
		if r.Pack == ^uint64(0) {
			return // no store makes it
		}
		s := memStore(t, pack, r.Pack)
		defer s.Close()
		frugal(t, len(pack), func() { readAll(t, s, r) })
	})
}
