package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	pageBytes        = 4 << 10
	framesOffset     = 2 * pageBytes
	segmentMagic     = "HFSTLOG\x1a"
	formatVersion    = 1
	segmentHdrBytes  = 68
	zeroChunkBytes   = 256 << 10
	logDirName       = "log"
	segmentSuffix    = ".wal"
	spareSuffix      = ".tmp"
	sparePrefix      = "spare-"
	asidePrefix      = "lost-"
	segmentNumDigits = 20

	writeCategory = vfs.DiskWriteCategory("holdfast-wal")
)

// segmentHeader is the identity of one incarnation of a file. It says nothing
// about its neighbours: a spare is made before anyone knows what precedes it.
type segmentHeader struct {
	uuid       [16]byte
	segNo      uint64
	salt       uint64
	ownerEpoch uint64
	// size is what the file had when it got its name, synced: a shorter file
	// was cut since, by no crash. 0: not known (a copy).
	size int64
}

// put fills both pages.
func (h *segmentHeader) put(b []byte) {
	clear(b[:framesOffset])
	le := binary.LittleEndian
	copy(b, segmentMagic)
	le.PutUint16(b[8:], formatVersion)
	le.PutUint16(b[10:], 0)
	le.PutUint32(b[12:], segmentHdrBytes)
	copy(b[16:], h.uuid[:])
	le.PutUint64(b[32:], h.segNo)
	le.PutUint64(b[40:], h.salt)
	le.PutUint64(b[48:], h.ownerEpoch)
	le.PutUint64(b[56:], uint64(h.size))
	le.PutUint32(b[64:], crc32.Checksum(b[:64], castagnoli))
	copy(b[pageBytes:], b[:pageBytes])
}

var errHeader = errors.New("header does not verify")

func parseSegmentPage(b []byte) (h segmentHeader, err error) {
	if len(b) < segmentHdrBytes || string(b[:8]) != segmentMagic {
		return h, errHeader
	}
	le := binary.LittleEndian
	n := le.Uint32(b[12:])
	if n < segmentHdrBytes || int(n) > min(len(b), pageBytes) {
		return h, errHeader
	}
	if le.Uint32(b[n-4:]) != crc32.Checksum(b[:n-4], castagnoli) {
		return h, errHeader
	}
	if v := le.Uint16(b[8:]); v > formatVersion {
		return h, fmt.Errorf("%w: format %d", ErrVersion, v)
	}
	copy(h.uuid[:], b[16:])
	h.segNo = le.Uint64(b[32:])
	h.salt = le.Uint64(b[40:])
	h.ownerEpoch = le.Uint64(b[48:])
	h.size = int64(le.Uint64(b[56:]))
	return h, nil
}

// parseSegmentHeader takes the first of the two pages that verifies.
func parseSegmentHeader(b []byte) (segmentHeader, error) {
	h, err := parseSegmentPage(b)
	if err == nil || errors.Is(err, ErrVersion) || len(b) < framesOffset {
		return h, err
	}
	return parseSegmentPage(b[pageBytes:])
}

// segment is one file of the log.
type segment struct {
	no     uint64
	salt   uint64
	seed   uint32
	size   int64
	end    int64  // declared end; meaningless while it is the current one
	maxLSN uint64 // highest number with a byte in it; meaningless while current
	// known says that end is known, so that records can be copied from it.
	known bool
	// ours says that this open made it, zeros and all: only such a file is recycled.
	ours bool
	f    vfs.File // open only while it is a spare or the current one
}

// segmentRoom is what frames can use of an empty segment: OPEN and SEAL are
// reserved from the start, so that a segment can always be ended.
func segmentRoom(size int64) int64 { return size - framesOffset - openBytes - sealBytes }

func segmentName(no uint64) string { return fmt.Sprintf("%0*d%s", segmentNumDigits, no, segmentSuffix) }
func spareName(no uint64) string {
	return fmt.Sprintf("%s%0*d%s", sparePrefix, segmentNumDigits, no, spareSuffix)
}

// parseName reads the number out of any name that the log gives to a file.
func parseName(name string) (no uint64, segment bool, ok bool) {
	digits := name
	switch {
	case strings.HasPrefix(name, sparePrefix) && strings.HasSuffix(name, spareSuffix):
		digits = name[len(sparePrefix) : len(name)-len(spareSuffix)]
	case strings.HasPrefix(name, asidePrefix) && strings.HasSuffix(name, segmentSuffix):
		digits = name[len(asidePrefix) : len(name)-len(segmentSuffix)]
	case strings.HasSuffix(name, segmentSuffix):
		digits = name[:len(name)-len(segmentSuffix)]
		segment = true
	default:
		return 0, false, false
	}
	if len(digits) != segmentNumDigits {
		return 0, false, false
	}
	no, err := strconv.ParseUint(digits, 10, 64)
	return no, segment, err == nil && no != 0
}

// files knows where the log's files are.
type files struct {
	fs     vfs.FS
	dir    string // the store's root
	logDir string
}

func newFiles(fs vfs.FS, dir string) files {
	return files{fs: fs, dir: dir, logDir: fs.PathJoin(dir, logDirName)}
}

func (f *files) path(name string) string { return f.fs.PathJoin(f.logDir, name) }

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(err, d.Close())
	}
	return d.Close()
}

// makeDirs makes dir and its missing parents, and makes each name durable, up
// to the folder that existed.
func makeDirs(fsys vfs.FS, dir string) error {
	var parents []string
	for d := dir; ; {
		_, err := fsys.Stat(d)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		up := fsys.PathDir(d)
		if up == d {
			break
		}
		parents = append(parents, up)
		d = up
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range parents {
		if err := syncDir(fsys, d); err != nil {
			return err
		}
	}
	return nil
}

// create makes a file of zeros with a header, under its temporary name, not
// yet synced. Zeros are written, not allocated: an overwrite of written
// extents syncs in half the time of one that has to convert them.
func (f *files) create(h segmentHeader, size int64) (_ *segment, err error) {
	h.size = size
	if err := f.roomFor(size); err != nil {
		return nil, err
	}
	name := f.path(spareName(h.segNo))
	if err := f.fs.Remove(name); err == nil {
		// An orphan of the same name would lend us its bytes.
		if err := syncDir(f.fs, f.logDir); err != nil {
			return nil, err
		}
	}
	file, err := f.fs.OpenReadWrite(name, writeCategory)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
			// Give a full disk its bytes back at once.
			f.fs.Remove(name) //nolint:errcheck // an orphan is deleted at the next start
		}
	}()
	var pages [framesOffset]byte
	h.put(pages[:])
	if _, err := file.Write(pages[:]); err != nil {
		return nil, err
	}
	zeros := make([]byte, min(zeroChunkBytes, size))
	for left := size - framesOffset; left > 0; {
		n, err := file.Write(zeros[:min(left, int64(len(zeros)))])
		if err != nil {
			return nil, err
		}
		left -= int64(n)
		clear(zeros) // a file may scribble over what it was given to write
	}
	return &segment{no: h.segNo, salt: h.salt, seed: seedOf(h.salt), size: size, ours: true, f: file}, nil
}

// roomFor asks before the zeros are written: a try that is in vain would meanwhile take
// from L3 the bytes of its manifest, which makes the store read-only. An eighth more
// stays for the flush that makes room.
func (f *files) roomFor(size int64) error {
	u, err := f.fs.GetDiskUsage(f.logDir)
	if err == nil && u.TotalBytes > 0 && u.AvailBytes < uint64(size+size/8) {
		return fmt.Errorf("%w: %d bytes are free, a segment needs %d", syscall.ENOSPC, u.AvailBytes, size)
	}
	return nil // a file system that cannot say, or says nothing but zeros, counts as roomy
}

// reuse gives the file of an old segment a new identity, under a temporary
// name. The old name goes first, durably: a crash must never find the old
// number over the new header.
func (f *files) reuse(old *segment, h segmentHeader) (_ *segment, err error) {
	h.size = old.size
	tmp := f.path(spareName(h.segNo))
	if err := f.fs.Rename(f.path(segmentName(old.no)), tmp); err != nil {
		return nil, err
	}
	if err := syncDir(f.fs, f.logDir); err != nil {
		return nil, err
	}
	file, err := f.fs.OpenReadWrite(tmp, writeCategory)
	if err != nil {
		return nil, err
	}
	var pages [framesOffset]byte
	h.put(pages[:])
	if _, err := file.WriteAt(pages[:], 0); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &segment{no: h.segNo, salt: h.salt, seed: seedOf(h.salt), size: old.size, ours: true, f: file}, nil
}

// install syncs a temporary and gives it its name: S -> rename -> D. Only then
// may anything rely on it.
func (f *files) install(s *segment) error {
	if err := s.f.Sync(); err != nil {
		return err
	}
	if err := f.fs.Rename(f.path(spareName(s.no)), f.path(segmentName(s.no))); err != nil {
		return err
	}
	return syncDir(f.fs, f.logDir)
}

// readFull reads what is there: a short read is only an end if the file says so.
func readFull(f vfs.File, b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		m, err := f.ReadAt(b[n:], off+int64(n))
		n += m
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}
