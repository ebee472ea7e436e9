package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const windowBytes = 256 << 10

// segmentReader reads one segment through a window, so that memory follows the
// largest frame and not the segment.
type segmentReader struct {
	f    vfs.File
	name string
	size int64
	hdr  segmentHeader
	seed uint32
	open openRecord
	// opened says that OPEN verified; without it the segment is a spare, or torn.
	opened bool
	// short: bytes that were synced before the file got its name are gone.
	short bool

	win    []byte
	winOff int64
}

// openSegment opens a segment for reading and verifies its identity. An error
// that is an ErrCorrupt is about the content, any other about the I/O.
func openSegment(fs vfs.FS, path string, no uint64, uuid [16]byte) (*segmentReader, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("wal: open segment: %w", err)
	}
	r := &segmentReader{f: f, name: path}
	if err := r.readIdentity(no, uuid); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

func (r *segmentReader) readIdentity(no uint64, uuid [16]byte) error {
	info, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("wal: stat segment %s: %w", r.name, err)
	}
	r.size = min(info.Size(), maxSegmentBytes)
	b, err := r.at(0, framesOffset)
	if err != nil {
		return err
	}
	r.hdr, err = parseSegmentHeader(b)
	if errors.Is(err, ErrVersion) {
		return fmt.Errorf("%w: %s", err, r.name)
	}
	if err != nil {
		return &CorruptError{File: r.name, What: "neither page of the header verifies", Err: err}
	}
	if r.hdr.uuid != uuid {
		return fmt.Errorf("%w: %s", ErrForeign, r.name)
	}
	if r.hdr.segNo != no {
		return corrupt(r.name, 0, "header says segment %d", r.hdr.segNo)
	}
	r.short = info.Size() < r.hdr.size
	r.seed = seedOf(r.hdr.salt)
	fr, payload, ok, err := r.frameAt(framesOffset)
	if err != nil {
		return err
	}
	if ok && fr.kind == kindOpen {
		r.open, r.opened = parseOpen(payload)
		r.opened = r.opened && fr.chain == r.open.prevChain
	}
	return nil
}

func (r *segmentReader) close() error { return r.f.Close() }

// at returns up to n bytes at off, fewer only at the end of the file. They are
// valid until the next call.
func (r *segmentReader) at(off int64, n int) ([]byte, error) {
	if off < r.winOff || off+int64(n) > r.winOff+int64(len(r.win)) {
		want := min(int64(max(n, windowBytes)), max(r.size-off, 0))
		if int64(cap(r.win)) < want {
			r.win = make([]byte, want)
		}
		r.win = r.win[:want]
		r.winOff = off
		m, err := readFull(r.f, r.win, off)
		r.win = r.win[:m]
		if err != nil {
			r.win = r.win[:0]
			return nil, fmt.Errorf("wal: read %s: offset %d: %w", r.name, off, err)
		}
	}
	b := r.win[off-r.winOff:]
	return b[:min(n, len(b))], nil
}

// headerAt reads a frame header; ok says that it verifies and that its payload
// lies inside the file.
func (r *segmentReader) headerAt(off int64) (f frame, ok bool, err error) {
	b, err := r.at(off, frameHeaderBytes)
	if err != nil {
		return f, false, err
	}
	f, ok = parseFrame(b, r.hdr.salt, r.seed, off)
	return f, ok && off+frameHeaderBytes+int64(f.payloadLen) <= r.size, nil
}

// frameAt reads a whole frame. f.kind is set if the header alone verifies.
func (r *segmentReader) frameAt(off int64) (f frame, payload []byte, ok bool, err error) {
	f, ok, err = r.headerAt(off)
	if err != nil || !ok {
		return f, nil, false, err
	}
	b, err := r.at(off+frameHeaderBytes, int(f.payloadLen))
	if err != nil || len(b) < int(f.payloadLen) {
		return f, nil, false, err
	}
	return f, b, crc32.Update(r.seed, castagnoli, b) == f.payloadCRC, nil
}

// later looks for frames of this incarnation behind a bad place: over a frame
// whose header is good it steps, otherwise it tries every 8 bytes (3.3.2).
type laterFrames struct {
	found  bool
	synced uint64 // the highest promise among them
	last   uint64 // the highest number among them
	end    int64  // where the last of them ends
}

func (r *segmentReader) later(off int64, badHeader bool) (l laterFrames, err error) {
	if f, ok, err := r.headerAt(off); err != nil {
		return l, err
	} else if ok && !badHeader {
		off += f.size()
	} else {
		off += 8
	}
	for off+frameHeaderBytes <= r.size {
		b, err := r.at(off, windowBytes)
		if err != nil {
			return l, err
		}
		if len(b) < frameHeaderBytes {
			break
		}
		i := 0
		for ; i+frameHeaderBytes <= len(b); i += 8 {
			if binary.LittleEndian.Uint32(b[i:]) != frameMagic {
				continue
			}
			f, ok := parseFrame(b[i:], r.hdr.salt, r.seed, off+int64(i))
			if !ok {
				continue
			}
			l.found = true
			l.synced = max(l.synced, f.synced)
			if f.kind == kindData {
				l.last = max(l.last, f.lastLSN())
			}
			i += int(f.size())
			l.end = min(off+int64(i), r.size)
			break
		}
		off += int64(i)
	}
	return l, nil
}
