package mmap

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Extent is a blob's place in its pack, as its reference says.
type Extent struct{ Offset, Stored uint64 }

// moved says where a blob of a rewritten pack lies now.
type moved struct{ from, to uint64 }

const movedLen = 16

// RewrittenBytes is how much of a file a rewrite fills for a pack, before its blobs, and
// for each blob of so many bytes.
func RewrittenBytes(stored uint64) (pack, blob int64) {
	return packHeaderLen, int64(stored + -stored%blobAlign + movedLen)
}

// Rewrite replaces a sealed pack by a file that holds only the blobs in keep, which
// ascend. References stay as they are: a table in the file leads from where a blob was
// to where it is. The new file is written beside the old one, synced and renamed over
// it, so a crash leaves one or the other, and both hold every blob in keep (M1). Who
// has the old file pinned keeps it. Frames are copied as they are stored, each against
// its checksum: a pack with a damaged blob stays as it is (ErrCorrupt), for the disk may
// read it right another time.
//
// That nothing but keep can be reached is the caller's to know (I7).
func (s *Store) Rewrite(num uint64, keep []Extent) (err error) {
	if s.o.ReadOnly {
		return ErrReadOnly
	}
	if s.writesTo(num) {
		return fmt.Errorf("%w: %s", ErrNotSealed, packName(num))
	}
	p, err := s.acquire(num)
	if err != nil {
		return err
	}
	defer s.release(p)
	s.packs.mu.Lock()
	pending := p.pending > 0 // none comes any more, it is sealed
	s.packs.mu.Unlock()
	if pending {
		return fmt.Errorf("%w: %s", ErrPending, packName(num))
	}
	places, end, err := p.layOut(keep)
	if err != nil {
		return err
	}
	tmp := p.name + ".tmp"
	if err := s.writeRewritten(tmp, p, keep, places, end); err != nil {
		err = fmt.Errorf("mmap: rewrite %s: %w", packName(num), err)
		if noSpace(err) {
			err = fmt.Errorf("%w: %w", ErrDiskFull, err)
		}
		return errors.Join(err, removeIfThere(s.o.FS, tmp))
	}
	if err := s.o.FS.Rename(tmp, p.name); err != nil {
		return errors.Join(fmt.Errorf("mmap: rewrite %s: %w", packName(num), err), removeIfThere(s.o.FS, tmp))
	}
	s.forget(num)
	if err := s.syncOwnDir(); err != nil {
		// The names of other packs may have gone with it (M3).
		return s.syncFailed(err)
	}
	return nil
}

// layOut decides where each blob goes, and where the table of them begins.
func (p *pack) layOut(keep []Extent) (places []moved, end uint64, err error) {
	end = packHeaderLen
	for _, e := range keep {
		at, ok := p.place(e.Offset)
		if !ok || e.Stored < blobHeaderLen || at+e.Stored > p.published.Load() {
			return nil, 0, p.corrupt(e.Offset, fmt.Sprintf("no blob of %d bytes to keep", e.Stored), nil)
		}
		places = append(places, moved{e.Offset, end})
		end += e.Stored + -e.Stored%blobAlign
	}
	return places, end, nil
}

func (s *Store) writeRewritten(name string, from *pack, keep []Extent, places []moved, end uint64) (err error) {
	f, err := s.o.FS.Create(name, diskCategory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	table := encodeMoved(places)
	w := &writing{pack: from, file: f}
	if err := w.append(encodeRewrittenHeader(s.o.UUID, from.num, s.o.OwnerEpoch, end, places, table)); err != nil {
		return err
	}
	for _, e := range keep {
		if err := s.copyBlob(w, from, e); err != nil {
			return err
		}
	}
	if err := w.append(table); err != nil {
		return err
	}
	return f.Sync()
}

// copyBlob appends a blob of another pack, and what aligns the next one.
func (s *Store) copyBlob(w *writing, from *pack, e Extent) error {
	at, _ := from.place(e.Offset)
	head := make([]byte, blobHeaderLen)
	if err := from.read(head, at); err != nil {
		return err
	}
	// What the header says is its own, and is checked against its checksum, and the
	// rest against the header.
	b := &Blob{s: s, p: from, at: at, ref: headerRef(head)}
	if b.ref.Pack != from.num || b.ref.Offset != e.Offset || b.ref.Stored != e.Stored {
		return from.corrupt(at, "blob header: not the blob that was asked for", nil)
	}
	l, tail, err := b.readLayout()
	if err != nil {
		return err
	}
	if err := w.append(head); err != nil {
		return err
	}
	for i := range uint64(len(l.sums)) {
		if err := b.copyFrame(w, l, i); err != nil {
			return err
		}
	}
	return w.append(tail, make([]byte, -e.Stored%blobAlign))
}

func (b *Blob) copyFrame(w *writing, l *layout, i uint64) error {
	from, to := l.stored(i, b.ref.Size)
	buf := getBuffer(int(to - from))
	defer putBuffer(buf)
	if err := b.fetch(*buf, blobHeaderLen+from); err != nil {
		return err
	}
	if checksum(*buf) != l.sums[i] {
		return b.p.corrupt(b.at+blobHeaderLen+from, fmt.Sprintf("frame %d: checksum", i), nil)
	}
	return writeAll(w.file, *buf)
}

func encodeMoved(places []moved) []byte {
	b := make([]byte, 0, len(places)*movedLen)
	for _, m := range places {
		b = binary.LittleEndian.AppendUint64(b, m.from)
		b = binary.LittleEndian.AppendUint64(b, m.to)
	}
	return b
}

func encodeRewrittenHeader(uuid [16]byte, num, epoch, tableAt uint64, places []moved, table []byte) []byte {
	b := encodePackHeader(uuid, num, epoch)
	binary.LittleEndian.PutUint32(b[8:], rewrittenFormat)
	binary.LittleEndian.PutUint64(b[48:], tableAt)
	binary.LittleEndian.PutUint32(b[56:], uint32(len(places)))
	binary.LittleEndian.PutUint32(b[60:], checksum(table))
	binary.LittleEndian.PutUint32(b[packHeaderLen-4:], checksum(b[:packHeaderLen-4]))
	return b
}

// loadMoved reads the table of a rewritten pack whose header was verified.
func (p *pack) loadMoved(f vfs.File, head []byte, size uint64) error {
	at, n := binary.LittleEndian.Uint64(head[48:]), uint64(binary.LittleEndian.Uint32(head[56:]))
	if at > size || size-at != n*movedLen {
		return p.corrupt(48, fmt.Sprintf("table of %d blobs at %d, the file ends at %d", n, at, size), nil)
	}
	b := make([]byte, n*movedLen)
	if _, err := readFull(f, b, int64(at)); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("mmap: %s: table of blobs: %w", packName(p.num), err)
	}
	if checksum(b) != binary.LittleEndian.Uint32(head[60:]) {
		return p.corrupt(at, "table of blobs: checksum", nil)
	}
	p.moved = make([]moved, n)
	last := uint64(0)
	for i := range p.moved {
		m := moved{binary.LittleEndian.Uint64(b[i*movedLen:]), binary.LittleEndian.Uint64(b[i*movedLen+8:])}
		if m.from <= last || m.to < packHeaderLen || m.to >= at || m.to%blobAlign != 0 {
			p.moved = nil
			return p.corrupt(at+uint64(i)*movedLen, fmt.Sprintf("table of blobs: from %d to %d", m.from, m.to), nil)
		}
		p.moved[i], last = m, m.from
	}
	p.rewritten = true
	return nil
}

// place leads from a reference's offset to the file's. False: a rewrite left it out.
func (p *pack) place(offset uint64) (uint64, bool) {
	if !p.rewritten {
		return offset, true
	}
	i, ok := slices.BinarySearchFunc(p.moved, offset, func(m moved, off uint64) int { return cmp.Compare(m.from, off) })
	if !ok {
		return 0, false
	}
	return p.moved[i].to, true
}
