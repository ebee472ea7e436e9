package damage

import (
	"bytes"
	"encoding/binary"
	"path"
	"strings"
)

// Class is the kind of file: "log", "STATE", "table".
func Class(name string) string {
	switch base := path.Base(name); {
	case strings.HasSuffix(name, "/"):
		return "folder"
	case strings.HasSuffix(name, ".wal"):
		return "log"
	case strings.HasSuffix(name, ".pack"):
		return "pack"
	case strings.HasSuffix(name, ".sst"):
		return "table"
	case strings.HasPrefix(base, "MANIFEST-"):
		return "MANIFEST"
	case strings.HasPrefix(base, "OPTIONS-"):
		return "OPTIONS"
	case strings.HasPrefix(base, "marker."):
		return "marker"
	case strings.HasSuffix(name, ".log"):
		return "L3's log"
	default:
		return base
	}
}

// span is a part of a file that was written as one.
type span struct {
	off, size int
	kind      byte
}

// lastLSN is the number of the last batch in a DATA frame.
func (s span) lastLSN(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b[s.off+32:]) + uint64(binary.LittleEndian.Uint32(b[s.off+40:])) - 1
}

func (s span) of(b []byte) []byte { return b[s.off : s.off+s.size] }

const (
	page         = 4 << 10
	sector       = 512
	framesAt     = 2 * page
	frameHeader  = 64
	kindOpen     = 1
	kindData     = 2
	kindMarker   = 3
	kindSeal     = 4
	blobHeader   = 64
	segmentBytes = 68 // of a header's page
	stateBytes   = 104
)

var (
	frameMagic = binary.LittleEndian.AppendUint32(nil, 0x6c664861)
	blobMagic  = []byte("HFB1")
)

// frames of a log segment; it believes the bytes.
func frames(b []byte) (out []span) {
	for off := framesAt; off+frameHeader <= len(b) && bytes.Equal(b[off:off+4], frameMagic); {
		n := frameHeader + int(binary.LittleEndian.Uint32(b[off+12:])+7)&^7
		if n > len(b)-off {
			break
		}
		out = append(out, span{off, n, b[off+8]})
		off += n
	}
	return out
}

// blobs of a pack.
func blobs(b []byte) (out []span) {
	for off := page; off+blobHeader <= len(b) && bytes.Equal(b[off:off+4], blobMagic); {
		n := int(binary.LittleEndian.Uint64(b[off+32:]))
		if n <= 0 || n > len(b)-off {
			break
		}
		out = append(out, span{off, n, b[off+4]})
		off += (n + 7) &^ 7
	}
	return out
}

// units are what a misdirected write would bring elsewhere: frames, blobs, slots.
func units(name string, b []byte) []span {
	switch Class(name) {
	case "log":
		return append([]span{{0, page, 0}, {page, page, 0}}, frames(b)...)
	case "pack":
		return append([]span{{0, page, 0}}, blobs(b)...)
	}
	var out []span
	for off := 0; off < len(b); off += sector {
		out = append(out, span{off, min(sector, len(b)-off), 0})
	}
	if Class(name) == "STATE" {
		out = append(out, span{0, page, 0}, span{page, page, 0})
	}
	return out
}

// headers are the bytes that say what the rest means.
func headers(name string, b []byte) (out []span) {
	add := func(off, n int) {
		if off >= 0 && off+n <= len(b) {
			out = append(out, span{off: off, size: n})
		}
	}
	switch Class(name) {
	case "log":
		add(0, segmentBytes)
		add(page, segmentBytes)
		fr := frames(b)
		for i, s := range fr {
			switch {
			case s.kind == kindOpen, s.kind == kindSeal, s.kind == kindMarker:
				add(s.off, s.size)
			case i == 1 || i == len(fr)-1 || fr[i+1].kind == kindSeal:
				add(s.off, frameHeader)
			}
		}
	case "pack":
		add(0, 52)
		add(page-4, 4)
		for _, s := range blobs(b) {
			add(s.off, blobHeader)
		}
	case "STATE":
		for _, at := range []int{0, page} {
			add(at, stateBytes)
			add(at+page-4, 4)
		}
	case "table":
		add(len(b)-sstFooter, sstFooter)
	case "MANIFEST":
		add(0, min(len(b), 256))
	}
	return out
}

const sstFooter = 61
