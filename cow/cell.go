package cow

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind says what a cell's payload is.
type Kind uint8

const (
	Value     Kind = 1 // the payload is the value itself
	Blob      Kind = 2 // the payload is a reference to a blob in a pack
	Tombstone Kind = 3 // the key is deleted; no payload
)

const (
	expiryFlag = 0x80
	headerLen  = 9
	expiryLen  = 8
)

// ErrCell reports bytes that are no cell.
var ErrCell = errors.New("cow: not a cell")

// Header is what a cell says of its payload.
type Header struct {
	Kind     Kind
	Revision uint64 // commit number of the last write to the key
	Expiry   int64  // absolute, milliseconds since 1970; zero: none
}

func (h Header) size() int {
	if h.Expiry != 0 {
		return headerLen + expiryLen
	}
	return headerLen
}

// put writes the header into b, which holds h.size() bytes or more.
func (h Header) put(b []byte) {
	b[0] = byte(h.Kind)
	binary.LittleEndian.PutUint64(b[1:], h.Revision)
	if h.Expiry != 0 {
		b[0] |= expiryFlag
		binary.LittleEndian.PutUint64(b[headerLen:], uint64(h.Expiry))
	}
}

// Cell is an encoded header and payload. Its bytes are immutable. The methods
// trust the bytes; [ParseCell] checks what comes from disk.
type Cell []byte

// AppendCell appends the encoded cell to dst.
func AppendCell(dst []byte, h Header, payload []byte) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, h.size())...)
	h.put(dst[n:])
	return append(dst, payload...)
}

// ParseCell checks that b is a cell. The result aliases b.
func ParseCell(b []byte) (Cell, error) {
	if len(b) < headerLen {
		return nil, fmt.Errorf("%w: %d bytes", ErrCell, len(b))
	}
	c := Cell(b)
	switch k := c.Kind(); {
	case k != Value && k != Blob && k != Tombstone:
		return nil, fmt.Errorf("%w: kind %d", ErrCell, k)
	case b[0]&expiryFlag != 0 && len(b) < headerLen+expiryLen:
		return nil, fmt.Errorf("%w: expiry cut short", ErrCell)
	case k == Tombstone && len(c.Payload()) != 0:
		return nil, fmt.Errorf("%w: tombstone with a payload", ErrCell)
	}
	return c, nil
}

// Kind says what the payload is.
func (c Cell) Kind() Kind { return Kind(c[0] &^ expiryFlag) }

// Revision is the commit number of the last write to the key.
func (c Cell) Revision() uint64 { return binary.LittleEndian.Uint64(c[1:]) }

// Expiry is absolute, in milliseconds since 1970; zero means none.
func (c Cell) Expiry() int64 {
	if c[0]&expiryFlag == 0 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(c[headerLen:]))
}

// Payload is the value, or the reference to a blob. It aliases the cell.
func (c Cell) Payload() []byte {
	if c[0]&expiryFlag != 0 {
		return c[headerLen+expiryLen:]
	}
	return c[headerLen:]
}
