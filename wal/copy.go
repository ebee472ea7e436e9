package wal

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// CopyTo writes the records in (above, upTo], one by one, into a fresh log and
// STATE under dir, all of it synced, folders included. A store opened from it
// with the watermark above recovers to exactly upTo. The generation is the
// watermark's: the log's own may have gone on since storage was copied.
func (l *Log) CopyTo(fs vfs.FS, dir string, above, generation, upTo uint64) error {
	if last := l.last.Load(); upTo > last || above > upTo {
		return fmt.Errorf("wal: copy (%d, %d]: the last commit is %d", above, upTo, last)
	}
	if err := l.syncTo(upTo); err != nil {
		return err
	}
	defer l.Pin()()
	l.mu.Lock()
	st := l.state
	st.Generation = generation
	var segs []segment
	for _, s := range l.segs {
		if s.maxLSN > above {
			segs = append(segs, *s)
		}
	}
	cur := *l.cur
	cur.end, cur.known = l.synced.off, true
	if l.synced.segNo == cur.no {
		segs = append(segs, cur)
	}
	l.mu.Unlock()

	c := &copier{
		files: newFiles(fs, dir), salt: l.o.salt, groupCap: l.groupCap,
		hdr: segmentHeader{uuid: st.UUID, ownerEpoch: st.OwnerEpoch},
		pos: position{last: above, next: above + 1},
	}
	err := c.begin()
	if err == nil {
		err = l.copyRecords(c, segs, above, upTo)
	}
	if err == nil && c.pos.last != upTo {
		err = fmt.Errorf("record %d is not in the log", upTo)
	}
	if err == nil {
		err = c.seal(0)
	}
	if c.f != nil {
		err = errors.Join(err, c.f.Close())
	}
	if err == nil {
		err = syncDir(fs, c.files.logDir)
	}
	if err == nil {
		st.Flushed, st.Synced, st.IssuedCeiling = above, upTo, upTo
		st.SegNo, st.Offset, st.ChainCRC = c.pos.segNo, c.pos.off, c.pos.chain
		st.Clean, st.sequence = true, 1
		err = createState(fs, dir, &st)
	}
	if err != nil {
		return fmt.Errorf("wal: copy to %s: %w", dir, err)
	}
	return nil
}

var errCopied = errors.New("copied")

func (l *Log) copyRecords(c *copier, segs []segment, above, upTo uint64) error {
	w := &walker{above: above}
	for i := range segs {
		s := &segs[i]
		if !s.known {
			return fmt.Errorf("records above %d are no longer in the log", above)
		}
		r, err := openSegment(l.files.fs, l.files.path(segmentName(s.no)), s.no, c.hdr.uuid)
		if err != nil {
			return err
		}
		if i == 0 {
			if !r.opened || r.open.lastBefore() > above {
				return errors.Join(fmt.Errorf("records above %d are no longer in the log", above), r.close())
			}
		}
		var at stop
		at, err = w.walk(r, s.end, func(_ frame, batches []batch) error {
			for _, b := range batches {
				if b.lsn > upTo {
					return errCopied
				}
				if err := c.add(b); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil && at.off != s.end {
			err = corrupt(r.name, at.off, "%s", at.what)
		}
		if err = errors.Join(err, r.close()); errors.Is(err, errCopied) {
			break
		}
		if err != nil {
			return err
		}
	}
	return c.flush()
}

// copier writes a log that nobody will append to: no zeros, no spare.
type copier struct {
	files    files
	hdr      segmentHeader
	salt     func() uint64
	groupCap int

	f       vfs.File
	seed    uint32
	pos     position
	no      uint64
	buf     []byte // header room, batches
	first   uint64
	count   int
	promise uint64
}

const copyFrameBytes = 1 << 20

// begin starts the first segment, before the first number is known: that is
// settled when OPEN is written, by the first record or by the end.
func (c *copier) begin() error {
	if err := makeDirs(c.files.fs, c.files.logDir); err != nil {
		return err
	}
	c.buf = append(c.buf[:0], headerRoom[:]...)
	c.promise = c.pos.last
	return nil
}

// open begins a segment at c.pos. A jump of the numbers is declared in OPEN,
// so each one begins a segment of its own.
func (c *copier) open() error {
	c.no++
	h := c.hdr
	h.segNo, h.salt = c.no, c.salt()
	f, err := c.files.fs.Create(c.files.path(segmentName(c.no)), writeCategory)
	if err != nil {
		return err
	}
	c.f, c.seed = f, seedOf(h.salt)
	var pages [framesOffset]byte
	h.put(pages[:])
	if _, err := f.Write(pages[:]); err != nil {
		return err
	}
	p := c.pos
	o := openRecord{
		firstLSN: p.next, prevSegNo: p.segNo, prevSalt: p.salt, prevEndOffset: p.off,
		prevLastLSN: p.last, prevChain: p.chain, jumpAfter: p.last, jumpTo: p.next,
	}
	c.pos.segNo, c.pos.salt, c.pos.off, c.pos.chain = c.no, h.salt, framesOffset, p.chain
	b := make([]byte, openBytes)
	o.put(b[frameHeaderBytes:])
	return c.frame(b, openBytes-frameHeaderBytes, kindOpen, 0, p.next, 0)
}

func (c *copier) frame(b []byte, n int, kind, flags uint8, first uint64, count uint32) error {
	f := frame{
		kind: kind, flags: flags, payloadLen: uint32(n), salt: c.pos.salt, offset: c.pos.off,
		firstLSN: first, count: count, chain: c.pos.chain, synced: c.promise,
		payloadCRC: crc32.Update(c.seed, castagnoli, b[frameHeaderBytes:frameHeaderBytes+n]),
	}
	c.pos.chain = f.put(b, c.seed)
	c.pos.off += int64(len(b))
	_, err := c.f.Write(b)
	return err
}

// seal ends the current segment and syncs it.
func (c *copier) seal(next uint64) error {
	if c.f == nil {
		if err := c.open(); err != nil {
			return err
		}
	}
	s := sealRecord{finalLSN: c.pos.last, endOffset: c.pos.off + sealBytes, nextSegNo: next, chain: c.pos.chain}
	b := make([]byte, sealBytes)
	s.put(b[frameHeaderBytes:])
	if err := c.frame(b, sealBytes-frameHeaderBytes, kindSeal, 0, c.pos.next, 0); err != nil {
		return err
	}
	return c.f.Sync()
}

func (c *copier) add(b batch) error {
	// A number that is not the next one is a jump of the original.
	pending := c.pos.next + uint64(c.count)
	if b.lsn != pending || c.f == nil || c.pos.off > lastSegmentBytes {
		if err := c.flush(); err != nil {
			return err
		}
		if c.f != nil {
			if err := c.seal(c.no + 1); err != nil {
				return err
			}
			f := c.f
			c.f = nil
			if err := f.Close(); err != nil {
				return err
			}
		}
		c.pos.next = b.lsn
		if err := c.open(); err != nil {
			return err
		}
	}
	if c.count > 0 && len(c.buf)+len(b.payload) > copyFrameBytes {
		if err := c.flush(); err != nil {
			return err
		}
	}
	c.buf = appendEntryHeader(c.buf, len(b.payload), c.count, b.ops, b.sum)
	c.buf = append(c.buf, b.payload...)
	if c.count == 0 {
		c.first = b.lsn
	}
	c.count++
	return nil
}

// flush writes the gathered batches as one frame, or as several if they are
// one batch that is larger than a frame.
func (c *copier) flush() error {
	if c.count == 0 {
		return nil
	}
	n := len(c.buf)
	c.buf = append(c.buf, headerRoom[:align8(n)-n]...)
	body := n - frameHeaderBytes
	limit := max(c.groupCap, copyFrameBytes)
	if body <= limit {
		if err := c.frame(c.buf, body, kindData, 0, c.first, uint32(c.count)); err != nil {
			return err
		}
	} else {
		for off := 0; off < body; {
			chunk := min(limit, body-off)
			flags := uint8(flagMiddle)
			if off == 0 {
				flags = flagFirst
			} else if off+chunk == body {
				flags = flagLast
			}
			// What stands before the chunk is written already.
			if err := c.frame(c.buf[off:off+align8(frameHeaderBytes+chunk)], chunk, kindData, flags, c.first, 1); err != nil {
				return err
			}
			off += chunk
		}
	}
	c.pos.last = c.first + uint64(c.count) - 1
	c.pos.next = c.pos.last + 1
	c.buf, c.count = append(c.buf[:0], headerRoom[:]...), 0
	return nil
}
