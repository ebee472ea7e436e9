package oracle

import (
	"bytes"
	"errors"
	"iter"

	"github.com/tidwall/btree"
)

// Store is what a rule asks of a store, or of a snapshot of one.
type Store interface {
	// Get returns the value of key, and whether there is one.
	Get(key string) (value []byte, found bool, err error)
	// Scan walks the keys of b in order, or from the highest down. An error ends it.
	Scan(b Bounds, reverse bool) iter.Seq2[Cell, error]
}

// Cell is one key of a scan, valid in the loop body only.
type Cell struct {
	Key, Value []byte
	Revision   uint64 // commit number of its last write; 0 if the store has none
}

// Bounds is the half-open key range [Lower, Upper); an empty Upper is open.
type Bounds struct{ Lower, Upper string }

func (b Bounds) has(k string) bool { return k >= b.Lower && (b.Upper == "" || k < b.Upper) }

// Model is what a store should hold: a plain ordered map. Copies cost nothing, so
// the model of every moment can be kept. It is not safe for concurrent changes.
type Model struct{ m *btree.Map[string, string] }

// NewModel returns an empty model.
func NewModel() Model { return Model{btree.NewMap[string, string](32)} }

// Copy returns a model that later changes of m do not touch.
func (m Model) Copy() Model { return Model{m.m.Copy()} }

func (m Model) Put(key, value string)         { m.m.Set(key, value) }
func (m Model) Delete(key string)             { m.m.Delete(key) }
func (m Model) Get(key string) (string, bool) { return m.m.Get(key) }
func (m Model) Len() int                      { return m.m.Len() }

// Scan calls f for every key in order until f returns false.
func (m Model) Scan(f func(k, v string) bool) { m.m.Scan(f) }

// DeleteRange removes every key in b.
func (m Model) DeleteRange(b Bounds) {
	for _, kv := range m.List(b, false) {
		m.m.Delete(kv[0])
	}
}

// List returns the keys and values in b, in order or from the highest down.
func (m Model) List(b Bounds, reverse bool) (out [][2]string) {
	m.m.Ascend(b.Lower, func(k, v string) bool {
		if !b.has(k) {
			return false
		}
		out = append(out, [2]string{k, v})
		return true
	})
	if reverse {
		for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
			out[i], out[j] = out[j], out[i]
		}
	}
	return out
}

// ErrUnreadable wraps an error that a store gave to a rule.
var ErrUnreadable = errors.New("oracle: the store does not answer")

// Check compares what a scan of b shows with the model: nil if they agree, else a
// verdict of the first difference: Resurrected for a key too many, Lost for one too
// few, Hole for another value, Lied where the store gave an error.
func (m Model) Check(s Store, b Bounds, reverse bool) error {
	want := m.List(b, reverse)
	n := 0
	for c, err := range s.Scan(b, reverse) {
		switch {
		case err != nil:
			return Broken(Lied, "", 0, "scan: %w", errors.Join(ErrUnreadable, err))
		case n == len(want), string(c.Key) != want[n][0] && before(string(c.Key), want[n][0], reverse):
			return Broken(Resurrected, string(c.Key), c.Revision, "is there and should not be")
		case string(c.Key) != want[n][0]:
			return Broken(Lost, want[n][0], 0, "is missing, the next key is %.40q", c.Key)
		case !bytes.Equal(c.Value, []byte(want[n][1])):
			return Broken(Hole, want[n][0], c.Revision, "is %s, should be %s", show(string(c.Value)), show(want[n][1]))
		}
		n++
	}
	if n < len(want) {
		return Broken(Lost, want[n][0], 0, "is missing, and %d keys after it", len(want)-n-1)
	}
	return nil
}

func before(a, b string, reverse bool) bool { return a < b != reverse }

// CheckGet compares the answer to one Get with the model.
func (m Model) CheckGet(s Store, key string) error {
	got, found, err := s.Get(key)
	want, ok := m.Get(key)
	switch {
	case err != nil:
		return Broken(Lied, key, 0, "get: %w", errors.Join(ErrUnreadable, err))
	case found && !ok:
		return Broken(Resurrected, key, 0, "is %s, should be absent", show(string(got)))
	case !found && ok:
		return Broken(Lost, key, 0, "is missing, should be %s", show(want))
	case found && string(got) != want:
		return Broken(Hole, key, 0, "is %s, should be %s", show(string(got)), show(want))
	}
	return nil
}

// mapStore shows a model as a store.
type mapStore struct{ m Model }

func (s mapStore) Get(key string) ([]byte, bool, error) {
	v, ok := s.m.Get(key)
	return []byte(v), ok, nil
}

func (s mapStore) Scan(b Bounds, reverse bool) iter.Seq2[Cell, error] {
	return func(yield func(Cell, error) bool) {
		for _, kv := range s.m.List(b, reverse) {
			if !yield(Cell{Key: []byte(kv[0]), Value: []byte(kv[1])}, nil) {
				return
			}
		}
	}
}
