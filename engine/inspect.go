package engine

import (
	"fmt"
	"strconv"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
)

// Knowledge is what a layer knows of a key.
type Knowledge uint8

const (
	KnowsNothing   Knowledge = iota // the layer below decides
	KnowsValue                      // the value itself
	KnowsBlob                       // a large value: where it is, or in a pack the value itself
	KnowsTombstone                  // the key was deleted
	KnowsRange                      // a range delete hides the key
	KnowsAbsent                     // the key is not in L3
)

func (k Knowledge) String() string {
	return [...]string{"nothing", "value", "blob", "tombstone", "range delete", "absent"}[k]
}

// Inspection is what every layer knows of one key, at one moment.
type Inspection struct {
	LSN   uint64 // the moment: the last commit that a read sees
	Seq   uint64 // a cell that is loaded now gets this stamp; each flush raises it
	Floor uint64 // no cell with a lower stamp is used

	// Found says whether a read finds a value.
	Found bool

	// Layers are top-down: the generations of the map, newest first, L1, L2, L3, and
	// the pack, if the value that a read gets is a large one. Caches that are off are
	// not there.
	Layers []Layer
}

// Layer is one layer's knowledge of a key.
type Layer struct {
	Name    string // "active", "frozen", "frozen 2" and so on, "L1", "L2", "L3", "pack"
	Tier    Tier   // that a read would name; TierNone for a pack
	Knows   Knowledge
	Answers bool // a read takes this layer's word, and looks no further

	Revision uint64 // commit number of the write, delete or range delete
	Size     int64  // of the value, in bytes
	Stored   int64  // bytes it takes where it is kept, without keys and headers
	Expiry   int64  // absolute, milliseconds since 1970; zero: none

	// Of L1 and L2, else zero: the stamp of what they hold, and whether it passes the
	// check for the current view. A read uses it if so, and if no generation knows the
	// key.
	Stamp uint64
	Fresh bool

	// Of a large value, else zero.

	Codec  string
	Pack   uint64 // number of its pack
	Offset int64  // in the pack, as it was written
	Frames int    // that it is cut into; only the pack knows
}

// Inspect says what every layer knows of key. It changes nothing: no cache is filled or
// told of a use, and no counter of reads rises; only L3's cache of blocks sees a read
// like any other. A key that no layer knows is no error. It looks through all of L1,
// which takes up to some milliseconds, and is safe for concurrent use.
//
// Where L3 or the pack cannot be read, the error comes with what the layers above know.
func (e *Engine) Inspect(key []byte) (Inspection, error) {
	switch {
	case e.gate.closed.Load():
		return Inspection{}, ErrClosed
	case len(key) == 0:
		return Inspection{}, ErrEmptyKey
	case len(key) > MaxKey:
		return Inspection{}, fmt.Errorf("%w: key of %d bytes, at most %d", ErrTooLarge, len(key), MaxKey)
	}
	hash := hashKey(key)
	if !e.gate.enter(hash) {
		return Inspection{}, ErrClosed
	}
	defer e.gate.leave(hash)
	for last := cow.Cell(nil); ; {
		p, err := e.inspect(hash, key)
		switch {
		case err == errMoved:
			continue
		case err == nil:
			err = e.inspectPack(p)
		}
		if !collected(err, p.cell, last) {
			return p.Inspection, err
		}
		last = p.cell
	}
}

// inspection is an Inspection that is being made.
type inspection struct {
	Inspection
	cell cow.Cell // of the layer that answers
	done bool     // a layer answered
}

// inspect asks the layers that keep cells.
func (e *Engine) inspect(hash uint64, key []byte) (*inspection, error) {
	v := e.view.Load() // order: view, then number, as in lookUp
	p := &inspection{Inspection: Inspection{LSN: e.clock.Published(), Seq: v.horizon.Seq(), Floor: v.horizon.Floor()}}
	for i, g := range v.generations() {
		l := Layer{Name: generationName(i), Tier: TierMap}
		cell, f := g.Get(hash, key, p.LSN)
		switch f {
		case cow.Cut:
			return p, errMoved // C3: load view and number again
		case cow.Hidden:
			l.Knows = KnowsRange
			l.Revision, _ = g.Cover(key, p.LSN)
		}
		if err := p.add(l, cell, f != cow.Unknown); err != nil {
			return p, err
		}
	}
	l1, l2 := e.cache.Inspect(v.horizon, hash, key)
	if err := p.addCached(Layer{Name: "L1", Tier: TierL1}, l1); err != nil {
		return p, err
	}
	if err := p.addCached(Layer{Name: "L2", Tier: TierL2}, l2); err != nil {
		return p, err
	}
	if !v.base.Acquire() {
		return p, errMoved
	}
	defer v.base.Release()
	b, found, err := v.base.Get(nil, key)
	if err != nil {
		return p, door(err)
	}
	l := Layer{Name: "L3", Tier: TierL3, Knows: KnowsAbsent}
	var cell cow.Cell
	if found {
		if cell, err = cow.ParseCell(b); err != nil {
			return p, door(err)
		}
	}
	return p, p.add(l, cell, true)
}

func generationName(i int) string {
	switch i {
	case 0:
		return "active"
	case 1:
		return "frozen"
	}
	return "frozen " + strconv.Itoa(i)
}

// add appends a layer with the cell that it holds, if any. The first one that may
// answer does (I1).
func (p *inspection) add(l Layer, cell cow.Cell, may bool) error {
	if cell != nil {
		if err := l.describe(cell); err != nil {
			return err
		}
	}
	if l.Answers = may && !p.done; l.Answers {
		p.done, p.cell = true, cell
		p.Found = l.Knows == KnowsValue || l.Knows == KnowsBlob
	}
	p.Layers = append(p.Layers, l)
	return nil
}

func (p *inspection) addCached(l Layer, h cache.Held) error {
	if !h.On {
		return nil
	}
	if h.Has && h.Cell == nil {
		l.Knows = KnowsAbsent
	}
	l.Stamp, l.Fresh = h.Stamp, h.Fresh
	return p.add(l, h.Cell, h.Has && h.Fresh)
}

func (l *Layer) describe(cell cow.Cell) error {
	l.Revision, l.Expiry = cell.Revision(), cell.Expiry()
	switch cell.Kind() {
	case cow.Tombstone:
		l.Knows = KnowsTombstone
	case cow.Value:
		l.Knows = KnowsValue
		l.Size = int64(len(cell.Payload()))
		l.Stored = l.Size
	case cow.Blob:
		r, err := mmap.DecodeRef(cell.Payload())
		if err != nil {
			return door(err)
		}
		l.Knows, l.Codec = KnowsBlob, r.Codec.String()
		l.Size, l.Stored = int64(r.Size), int64(r.Stored)
		l.Pack, l.Offset = r.Pack, int64(r.Offset)
	}
	return nil
}

// inspectPack reads the header of the large value that a read gets.
func (e *Engine) inspectPack(p *inspection) error {
	if p.cell == nil || p.cell.Kind() != cow.Blob {
		return nil
	}
	b, err := e.openBlob(p.cell)
	if err != nil {
		return err
	}
	defer b.Close()
	l := Layer{Name: "pack"}
	if err := l.describe(p.cell); err != nil {
		return err
	}
	if l.Frames, err = b.Frames(); err != nil {
		return door(err)
	}
	p.Layers = append(p.Layers, l)
	return nil
}
