package fuzz

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/tidwall/btree"

	"github.com/holdfastdb/holdfast/engine"
)

// Model is what a store should hold: a plain ordered map. Copies cost nothing, so
// the model of every moment can be kept.
type Model struct{ m *btree.Map[string, string] }

// NewModel returns an empty model.
func NewModel() Model { return Model{btree.NewMap[string, string](32)} }

// Copy returns a model that later changes of m do not touch.
func (m Model) Copy() Model { return Model{m.m.Copy()} }

func (m Model) Put(key, value string)         { m.m.Set(key, value) }
func (m Model) Delete(key string)             { m.m.Delete(key) }
func (m Model) Get(key string) (string, bool) { return m.m.Get(key) }
func (m Model) Len() int                      { return m.m.Len() }
func (m Model) Scan(f func(k, v string) bool) { m.m.Scan(f) }
func (m Model) inRange(k string, r Bounds) bool {
	return k >= r.Lower && (r.Upper == "" || k < r.Upper)
}

// Bounds is the half-open key range [Lower, Upper); an empty Upper is open.
type Bounds struct{ Lower, Upper string }

// DeleteRange removes every key in r.
func (m Model) DeleteRange(r Bounds) {
	var gone []string
	m.m.Ascend(r.Lower, func(k, _ string) bool {
		if !m.inRange(k, r) {
			return false
		}
		gone = append(gone, k)
		return true
	})
	for _, k := range gone {
		m.m.Delete(k)
	}
}

// List returns the keys and values in r, in order or from the highest down.
func (m Model) List(r Bounds, reverse bool) (out [][2]string) {
	m.m.Ascend(r.Lower, func(k, v string) bool {
		if !m.inRange(k, r) {
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

// Scanner is the Scan of an engine or of a snapshot.
type Scanner func(engine.Range) iter.Seq2[engine.Item, error]

// Differs compares what a scan of r shows with the model: nil if they agree, else
// the first difference.
func (m Model) Differs(scan Scanner, r Bounds, reverse bool) error {
	want := m.List(r, reverse)
	er := engine.Range{Lower: []byte(r.Lower), Reverse: reverse}
	if r.Upper != "" {
		er.Upper = []byte(r.Upper)
	}
	n := 0
	for item, err := range scan(er) {
		if err != nil {
			return err
		}
		if n == len(want) {
			return fmt.Errorf("key %.60q (revision %d) should not be there", item.Key(), item.Revision())
		}
		if w := want[n]; string(item.Key()) != w[0] {
			return fmt.Errorf("key %.60q where %.60q should come", item.Key(), w[0])
		}
		v, err := item.Value()
		if err != nil {
			return fmt.Errorf("value of %.60q: %w", item.Key(), err)
		}
		if !bytes.Equal(v, []byte(want[n][1])) {
			return fmt.Errorf("key %.60q (revision %d): value %.40q (%d bytes), should be %.40q (%d bytes)",
				item.Key(), item.Revision(), v, len(v), want[n][1], len(want[n][1]))
		}
		n++
	}
	if n < len(want) {
		return fmt.Errorf("key %.60q is missing, and %d after it", want[n][0], len(want)-n-1)
	}
	return nil
}
