package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	stateName    = "STATE"
	stateTmpName = "STATE.tmp"
	stateMagic   = "HFSTSTA\x1a"
	stateBytes   = 2 * pageBytes
	stateClean   = 1
)

// State is what STATE says. Its Synced and position are lower bounds: a normal
// recovery does not need them, a damaged log is judged by them.
type State struct {
	UUID          [16]byte
	OwnerEpoch    uint64 // grows with every open for writing
	Generation    uint64 // of the last flush
	Synced        uint64 // every number at or below was synced
	Flushed       uint64 // every number at or below is in storage
	IssuedCeiling uint64 // no number above was ever given out
	SegNo         uint64 // segment and ...
	Offset        int64  // ... offset up to which the log was synced
	ChainCRC      uint32 // of the frame that ends there
	PackHigh      uint64 // the owner's high mark of pack numbers
	Clean         bool   // closed; nothing follows Offset

	sequence uint64
	// lostSlot: one of the two pages does not verify. It was either torn by a
	// crash or rotted, and in the second case it was newer by one lease.
	lostSlot bool
}

// put encodes one slot. The checksum stands at the page's end, where every
// later format can find it.
func (s *State) put(b []byte) {
	b = b[:pageBytes]
	clear(b)
	le := binary.LittleEndian
	copy(b, stateMagic)
	le.PutUint16(b[8:], formatVersion)
	if s.Clean {
		le.PutUint16(b[10:], stateClean)
	}
	le.PutUint32(b[12:], s.ChainCRC)
	copy(b[16:], s.UUID[:])
	for i, v := range []uint64{
		s.sequence, s.OwnerEpoch, s.Generation, s.Synced, s.Flushed,
		s.IssuedCeiling, s.SegNo, uint64(s.Offset), s.PackHigh,
	} {
		le.PutUint64(b[32+8*i:], v)
	}
	le.PutUint32(b[pageBytes-4:], crc32.Checksum(b[:pageBytes-4], castagnoli))
}

var errStateSlot = errors.New("slot does not verify")

func parseStateSlot(b []byte) (s State, err error) {
	if len(b) < pageBytes || string(b[:8]) != stateMagic {
		return s, errStateSlot
	}
	b = b[:pageBytes]
	le := binary.LittleEndian
	if le.Uint32(b[pageBytes-4:]) != crc32.Checksum(b[:pageBytes-4], castagnoli) {
		return s, errStateSlot
	}
	if v := le.Uint16(b[8:]); v > formatVersion {
		return s, fmt.Errorf("%w: %s has format %d", ErrVersion, stateName, v)
	}
	s.Clean = le.Uint16(b[10:])&stateClean != 0
	s.ChainCRC = le.Uint32(b[12:])
	copy(s.UUID[:], b[16:])
	u := func(i int) uint64 { return le.Uint64(b[32+8*i:]) }
	s.sequence, s.OwnerEpoch, s.Generation, s.Synced, s.Flushed = u(0), u(1), u(2), u(3), u(4)
	s.IssuedCeiling, s.SegNo, s.Offset, s.PackHigh = u(5), u(6), int64(u(7)), u(8)
	return s, nil
}

// parseState picks the newest slot that verifies.
func parseState(file string, b []byte) (State, error) {
	slot := func(i int) []byte { return b[min(i*pageBytes, len(b)):min((i+1)*pageBytes, len(b))] }
	s0, err0 := parseStateSlot(slot(0))
	s1, err1 := parseStateSlot(slot(1))
	for _, err := range []error{err0, err1} {
		if errors.Is(err, ErrVersion) {
			return State{}, err
		}
	}
	switch {
	case err0 == nil && err1 == nil:
		if s0.UUID != s1.UUID {
			return State{}, corrupt(file, 0, "the slots name two stores")
		}
		if s1.sequence > s0.sequence {
			return s1, nil
		}
		return s0, nil
	case err0 == nil:
		s0.lostSlot = true
		return s0, nil
	case err1 == nil:
		s1.lostSlot = true
		return s1, nil
	}
	if len(b) >= 2*pageBytes {
		ours := string(b[:8]) == stateMagic || string(b[pageBytes:pageBytes+8]) == stateMagic
		if zero := allZero(b[:8]) && allZero(b[pageBytes:pageBytes+8]); !ours && !zero {
			return State{}, fmt.Errorf("%w: %s", ErrForeign, file)
		}
	}
	return State{}, corrupt(file, 0, "no slot verifies")
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// ReadState reads Dir/STATE. A missing file is fs.ErrNotExist.
func ReadState(fsys vfs.FS, dir string) (State, error) {
	name := fsys.PathJoin(dir, stateName)
	f, err := fsys.Open(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("wal: open %s: %w", stateName, err)
		}
		return State{}, err
	}
	defer f.Close()
	b := make([]byte, stateBytes)
	n, err := readFull(f, b, 0)
	if err != nil {
		return State{}, fmt.Errorf("wal: read %s: %w", name, err)
	}
	return parseState(name, b[:n])
}

// CreateState makes the first STATE of a store, and the folder of its log.
// STATE comes last: a store without it does not exist yet.
func CreateState(fsys vfs.FS, dir string, uuid [16]byte) (State, error) {
	s := State{UUID: uuid, sequence: 1}
	return s, createState(fsys, dir, &s)
}

// CreateStateOver is CreateState for a store whose storage holds everything at or
// below flushed already, durably: if it is lost later, that is noticed.
func CreateStateOver(fsys vfs.FS, dir string, uuid [16]byte, flushed, generation, packHigh uint64) (State, error) {
	s := State{
		UUID: uuid, Flushed: flushed, Synced: flushed, IssuedCeiling: flushed,
		Generation: generation, PackHigh: packHigh, sequence: 1,
	}
	return s, createState(fsys, dir, &s)
}

func createState(fsys vfs.FS, dir string, s *State) error {
	wrap := func(err error) error { return fmt.Errorf("wal: create %s: %w", stateName, err) }
	if err := makeDirs(fsys, fsys.PathJoin(dir, logDirName)); err != nil {
		return wrap(err)
	}
	// The folder of the log may be older than this call, and its name not durable.
	if err := syncDir(fsys, dir); err != nil {
		return wrap(err)
	}
	tmp := fsys.PathJoin(dir, stateTmpName)
	f, err := fsys.Create(tmp, writeCategory)
	if err != nil {
		return wrap(err)
	}
	var b [stateBytes]byte
	s.put(b[:pageBytes])
	s.sequence++
	s.put(b[pageBytes:])
	_, err = f.Write(b[:])
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return wrap(err)
	}
	if err := fsys.Rename(tmp, fsys.PathJoin(dir, stateName)); err != nil {
		return wrap(err)
	}
	if err := syncDir(fsys, dir); err != nil {
		return wrap(err)
	}
	return nil
}

// stateFile writes the slots in turn, so that a torn write costs only itself.
type stateFile struct {
	f    vfs.File
	name string
	// slot is the page to write next: never the one that holds the newest state.
	slot int64
	buf  [pageBytes]byte
}

func openStateFile(fsys vfs.FS, dir string) (*stateFile, error) {
	name := fsys.PathJoin(dir, stateName)
	f, err := fsys.OpenReadWrite(name, writeCategory)
	if err != nil {
		return nil, fmt.Errorf("wal: open %s: %w", name, err)
	}
	sf := &stateFile{f: f, name: name}
	b := make([]byte, stateBytes)
	n, err := readFull(f, b, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wal: read %s: %w", name, err), f.Close())
	}
	b = b[:n]
	s0, err0 := parseStateSlot(b[:min(pageBytes, n)])
	s1, err1 := parseStateSlot(b[min(pageBytes, n):])
	if err0 == nil && (err1 != nil || s0.sequence >= s1.sequence) {
		sf.slot = 1
	}
	// What was read may be of a process that was killed before its sync: a power cut
	// during the next write could tear this slot and that one.
	if err := f.SyncData(); err != nil {
		return nil, errors.Join(fmt.Errorf("wal: sync %s: %w", name, err), f.Close())
	}
	return sf, nil
}

// write is W -> S of one slot.
func (sf *stateFile) write(s *State) error {
	s.put(sf.buf[:])
	if _, err := sf.f.WriteAt(sf.buf[:], sf.slot*pageBytes); err != nil {
		return fmt.Errorf("wal: write %s: %w", sf.name, err)
	}
	if err := sf.f.SyncData(); err != nil {
		return fmt.Errorf("wal: sync %s: %w", sf.name, err)
	}
	sf.slot ^= 1
	return nil
}
