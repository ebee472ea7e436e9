package engine

import (
	"bytes"
	"iter"
	"sync"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
)

// Range is the half-open key range [Lower, Upper). A nil bound is open.
type Range struct {
	Lower, Upper []byte
	Reverse      bool // from the highest key down
}

// Prefix is the range of all keys that begin with p.
func Prefix(p []byte) Range {
	r := Range{Lower: p}
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			r.Upper = append(bytes.Clone(p[:i]), p[i]+1)
			break
		}
	}
	return r
}

// Item is one key of a scan. It, and what it returns, is valid in the loop body
// only. The zero Item, which comes with an error, has no key and no value.
type Item struct {
	key  []byte
	cell cow.Cell
	s    *Snapshot
}

// Key of the item; copy it to keep it.
func (i Item) Key() []byte { return i.key }

// Revision is the commit number of the last write to the key.
func (i Item) Revision() uint64 {
	if i.cell == nil {
		return 0
	}
	return i.cell.Revision()
}

// Size of the value in bytes. It reads nothing.
func (i Item) Size() int64 {
	if i.cell == nil {
		return 0
	}
	if i.cell.Kind() == cow.Blob {
		if r, err := mmap.DecodeRef(i.cell.Payload()); err == nil {
			return int64(r.Size)
		}
	}
	return int64(len(i.cell.Payload()))
}

// Value of the item; copy it to keep it. A large value is read only now.
func (i Item) Value() ([]byte, error) {
	if i.cell == nil {
		return nil, ErrNotFound
	}
	if i.cell.Kind() == cow.Value {
		return i.cell.Payload(), nil
	}
	value, err := i.s.e.appendValue(nil, i.cell)
	return value, i.s.because(err)
}

// Scan walks the keys of r in order, as they were at the moment the loop begins.
// An error ends the loop; it comes with a zero Item. A scan fills no cache. It
// holds a snapshot while the loop runs, which may give way like any other.
func (e *Engine) Scan(r Range) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		t := new(struct { // in one piece: a short scan would pay more for two
			Snapshot
			merge
		})
		if err := e.take(&t.Snapshot); err != nil {
			yield(Item{}, err)
			return
		}
		defer t.Close()
		t.scan(&t.merge, r, yield)
	}
}

func (s *Snapshot) scan(m *merge, r Range, yield func(Item, error) bool) {
	if err := s.begin(m, r); err != nil {
		yield(Item{}, err)
		return
	}
	defer m.close()
	for {
		ok, err := m.next()
		if err != nil {
			yield(Item{}, err)
			return
		}
		if !ok || !yield(Item{m.key, m.cell, s}, nil) {
			return
		}
	}
}

// merge walks generations and L3 side by side in key order. For each key the first
// room, top-down, that knows it has the cell (I1).
type merge struct {
	s     *Snapshot
	base  *storage.Snapshot // a reference of the merge's own
	r     Range
	place int // in s.scans

	mu    sync.Mutex // guards the fields up to the next blank line
	rooms []source   // generations newest first, then L3; nil once the snapshot ended
	gens  []*cow.Generation
	l3    storage.Iter
	began bool

	// Room for what a scan of a few keys would otherwise allocate one by one.
	someRooms [3]source
	someIters [2]cow.Iter
	someGens  [2]*cow.Generation

	key  []byte
	cell cow.Cell
}

// source is a cow.Iter or a storage.Iter with its current key kept at hand.
type source struct {
	it interface {
		First() bool
		Last() bool
		SeekGE(key []byte) bool
		SeekLT(key []byte) bool
		Next() bool
		Prev() bool
		Key() []byte
	}
	key  []byte // nil: at its end
	same bool   // stands at the key that was given out last
}

// begin makes m a walk over r.
func (s *Snapshot) begin(m *merge, r Range) error {
	if !s.e.gate.enter(s.at) {
		return ErrClosed
	}
	defer s.e.gate.leave(s.at)
	v := s.view.Load()
	if v == nil || !v.base.Acquire() {
		return s.ended()
	}
	lower := r.Lower
	if !r.Reverse && r.Upper == nil {
		lower = nil // it begins there: an iterator without bounds is not moved between tables for them
	}
	if err := v.base.Init(&m.l3, lower, r.Upper); err != nil {
		v.base.Release()
		return door(err)
	}
	m.s, m.base, m.r, m.gens = s, v.base, r, v.addGenerations(m.someGens[:0])
	m.rooms = m.someRooms[:0]
	for i, g := range m.gens {
		it := new(cow.Iter)
		if i < len(m.someIters) {
			it = &m.someIters[i]
		}
		it.Init(g, s.at)
		m.rooms = append(m.rooms, source{it: it})
	}
	m.rooms = append(m.rooms, source{it: &m.l3})
	if !s.attach(m) {
		m.close()
		return s.ended()
	}
	return nil
}

func (m *merge) close() {
	m.s.detach(m)
	_ = m.l3.Close() // its error was seen by next, or the loop was left
	m.base.Release()
}

// letGo drops the generations when the snapshot gives way, whatever the loop's body
// does meanwhile: they are what giving way is for. L3's iterator stays until the
// loop ends; it holds no memory of ours.
func (m *merge) letGo() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rooms, m.gens = nil, nil
	clear(m.someRooms[:])
	clear(m.someIters[:])
	clear(m.someGens[:])
}

// next moves to the next key that is there. User code runs between two calls. It needs
// not pass the gate: generations are the garbage collector's, and the iterator of L3
// ends by itself when L3 is closed.
func (m *merge) next() (bool, error) {
	if m.s.e.gate.closed.Load() {
		return false, ErrClosed
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		stopped := m.advance()
		if m.rooms == nil || m.s.view.Load() == nil || stopped && m.torn() {
			return false, m.s.ended() // it gave way under the scan: its versions may be cut
		}
		if stopped {
			if err := m.l3.Err(); err != nil {
				return false, door(err) // not the end of L3: what follows would have holes
			}
		}
		top := m.first()
		if top < 0 {
			return false, nil
		}
		found, err := m.settle(top)
		if err != nil || found {
			return found, err
		}
	}
}

// torn says that a generation's iterator ended at a cut.
func (m *merge) torn() bool {
	for i := range m.gens {
		if m.rooms[i].it.(*cow.Iter).Torn() {
			return true
		}
	}
	return false
}

// advance moves every source that stands at the last key, or all to their start. It
// says whether one of them found nothing more.
func (m *merge) advance() (stopped bool) {
	for i := range m.rooms {
		r := &m.rooms[i]
		var ok bool
		switch {
		case m.began && !r.same:
			continue
		case m.began && m.r.Reverse:
			ok = r.it.Prev()
		case m.began:
			ok = r.it.Next()
		case m.r.Reverse && m.r.Upper != nil:
			ok = r.it.SeekLT(m.r.Upper)
		case m.r.Reverse:
			ok = r.it.Last()
		case m.r.Lower != nil:
			ok = r.it.SeekGE(m.r.Lower)
		default:
			ok = r.it.First()
		}
		r.key, r.same = nil, false
		if !ok {
			stopped = true
		} else if key := r.it.Key(); m.inside(key) {
			r.key = key
		}
	}
	m.began = true
	return stopped
}

func (m *merge) inside(key []byte) bool {
	if m.r.Reverse {
		return bytes.Compare(key, m.r.Lower) >= 0
	}
	return m.r.Upper == nil || bytes.Compare(key, m.r.Upper) < 0
}

// first finds the newest source at the key that comes next, and marks all at it.
func (m *merge) first() int {
	top := -1
	for i := range m.rooms {
		r := &m.rooms[i]
		if r.key == nil {
			continue
		}
		c := -1
		if top >= 0 {
			if c = bytes.Compare(r.key, m.rooms[top].key); m.r.Reverse {
				c = -c
			}
		}
		if c < 0 {
			for j := range i {
				m.rooms[j].same = false
			}
			top = i
		}
		r.same = c <= 0
	}
	return top
}

// settle takes the cell of source top, unless a newer room's range tombstone hides
// the key, or the cell says that it is deleted.
func (m *merge) settle(top int) (bool, error) {
	key := m.rooms[top].key
	for _, g := range m.gens[:min(top, len(m.gens))] {
		switch g.Covers(key, m.s.at) {
		case cow.Hidden:
			return false, nil
		case cow.Cut: // the snapshot gave way; L3 must not be asked (C3)
			return false, m.s.ended()
		}
	}
	var cell cow.Cell
	switch it := m.rooms[top].it.(type) {
	case *cow.Iter:
		if cell = it.Cell(); cell == nil {
			return false, nil // a range tombstone of its own generation
		}
	case *storage.Iter:
		var err error
		if cell, err = cow.ParseCell(it.Value()); err != nil {
			return false, door(err)
		}
	}
	m.key, m.cell = key, cell
	return cell.Kind() != cow.Tombstone, nil
}
