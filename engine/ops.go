package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/holdfastdb/holdfast/cow"
)

// opList is the payload of a batch in the log: operations one behind the other.
//
//	size     field
//	1        kind: a cell's (1 value, 2 blob, 3 tombstone), or 4 for a range delete
//	uvarint  length of the key, or of the lower bound
//	n        the key, or the lower bound
//	uvarint  length of the payload, or of the upper bound; not for a tombstone
//	n        the value, the blob's reference, or the upper bound
//
// A record is a plain fact, so replaying it over a storage that has it already
// changes nothing. Kinds 5 and up are for later
// versions: compare a store's format version before adding one.
type opList []byte

const opRange cow.Kind = 4

// errOps reports a payload that is no list of operations.
var errOps = errors.New("not a list of operations")

type op struct {
	kind    cow.Kind
	key     []byte
	payload []byte
}

func (l opList) appendPoint(k cow.Kind, key, payload []byte) opList {
	l = append(l, byte(k))
	l = binary.AppendUvarint(l, uint64(len(key)))
	l = append(l, key...)
	if k == cow.Tombstone {
		return l
	}
	l = binary.AppendUvarint(l, uint64(len(payload)))
	return append(l, payload...)
}

func (l opList) appendRange(lower, upper []byte) opList {
	l = append(l, byte(opRange))
	l = binary.AppendUvarint(l, uint64(len(lower)))
	l = append(l, lower...)
	l = binary.AppendUvarint(l, uint64(len(upper)))
	return append(l, upper...)
}

// next splits off the first operation. What it returns aliases the list.
func (l opList) next() (o op, rest opList, err error) {
	if len(l) == 0 {
		return op{}, nil, fmt.Errorf("%w: empty", errOps)
	}
	o.kind = cow.Kind(l[0])
	if o.kind < cow.Value || o.kind > opRange {
		return op{}, nil, fmt.Errorf("%w: kind %d", errOps, o.kind)
	}
	if o.key, rest, err = l[1:].bytes(); err != nil {
		return op{}, nil, err
	}
	if o.kind != cow.Tombstone {
		o.payload, rest, err = rest.bytes()
	}
	return o, rest, err
}

func (l opList) bytes() ([]byte, opList, error) {
	n, w := binary.Uvarint(l)
	if w <= 0 || n > uint64(len(l)-w) {
		return nil, nil, fmt.Errorf("%w: length beyond the end", errOps)
	}
	return l[w : w+int(n) : w+int(n)], l[w+int(n):], nil
}
