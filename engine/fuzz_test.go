package engine

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
)

// opSeeds are payloads of every kind, and ones that lie about their lengths.
func opSeeds() [][]byte {
	var all opList
	all = all.appendPoint(cow.Value, []byte("key"), []byte("value"))
	all = all.appendPoint(cow.Value, []byte("empty"), nil)
	all = all.appendPoint(cow.Blob, []byte("large"), make([]byte, 48))
	all = all.appendPoint(cow.Tombstone, []byte("gone"), nil)
	all = all.appendRange([]byte("a"), []byte("b"))
	seeds := [][]byte{all, {}, {byte(cow.Value)}, {byte(cow.Value), 0}, {0, 0}, {byte(opRange) + 1, 0, 0}, {byte(opRange), 1, 'a', 0}}
	for _, n := range []uint64{1, 127, 1 << 31, 1 << 62, math.MaxInt64, math.MaxUint64} {
		seeds = append(seeds, binary.AppendUvarint([]byte{byte(cow.Value)}, n))
		seeds = append(seeds, binary.AppendUvarint([]byte{byte(cow.Blob), 1, 'k'}, n))
	}
	return append(seeds, append([]byte{byte(cow.Value)}, bytes.Repeat([]byte{0xff}, 12)...), all[:len(all)-1])
}

// Goal: whatever the bytes, a payload is refused with errOps or is a list whose
// operations lie inside of it, end to end, and mean the same when they are encoded
// again; nothing is allocated for what it declares; and what is read can be placed.
func FuzzOps(f *testing.F) {
	for _, s := range opSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := bytes.Clone(payload)
		var ops []op
		var again opList
		var err error
		used := 0
		for rest := opList(payload); len(rest) > 0; {
			var o op
			var next opList
			if o, next, err = rest.next(); err != nil {
				require.ErrorIs(t, err, errOps)
				break
			}
			require.Less(t, len(next), len(rest), "it ends")
			require.Equal(t, len(o.key), cap(o.key), "nobody appends into the payload")
			require.Equal(t, len(o.payload), cap(o.payload))
			used += len(o.key) + len(o.payload)
			require.Less(t, used, len(payload))
			rest = next
			ops = append(ops, o)
			switch o.kind {
			case opRange:
				again = again.appendRange(o.key, o.payload)
			case cow.Value, cow.Blob, cow.Tombstone:
				require.False(t, o.kind == cow.Tombstone && o.payload != nil)
				again = again.appendPoint(o.kind, o.key, o.payload)
			default:
				t.Fatalf("kind %d", o.kind)
			}
		}
		require.Equal(t, before, payload)
		if err == nil {
			require.LessOrEqual(t, len(again), len(payload), "the shortest spelling")
		}
		for i, rest := 0, again; len(rest) > 0; i++ {
			o, next, err := rest.next()
			require.NoError(t, err)
			require.Equal(t, ops[i].kind, o.kind)
			require.Equal(t, string(ops[i].key), string(o.key))
			require.Equal(t, string(ops[i].payload), string(o.payload))
			rest = next
		}
		e := new(Engine)
		e.view.Store(&view{active: cow.NewGeneration(&e.clock, cow.Shape{})})
		require.Equal(t, err == nil, e.place(1, payload) == nil)
		b := Batch{ops: opList(bytes.Clone(payload)), unsorted: true, points: len(ops)}
		if nerr := b.normalise(); err != nil {
			require.ErrorIs(t, nerr, errOps)
		} else {
			require.NoError(t, nerr)
			require.LessOrEqual(t, len(b.ops), len(payload))
		}
	})
}
