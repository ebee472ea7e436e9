package fuzz

import (
	"errors"
	"iter"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// Store shows an engine, or a snapshot of one, to the oracles.
type Store struct {
	R interface {
		Get(key []byte) ([]byte, error)
		Scan(r engine.Range) iter.Seq2[engine.Item, error]
	}
}

// Get implements oracle.Store.
func (s Store) Get(key string) ([]byte, bool, error) {
	v, err := s.R.Get([]byte(key))
	if errors.Is(err, engine.ErrNotFound) {
		return nil, false, nil
	}
	return v, err == nil, err
}

// Scan implements oracle.Store.
func (s Store) Scan(b oracle.Bounds, reverse bool) iter.Seq2[oracle.Cell, error] {
	return func(yield func(oracle.Cell, error) bool) {
		for item, err := range s.R.Scan(engine.Range{Lower: []byte(b.Lower), Upper: upper(b), Reverse: reverse}) {
			var v []byte
			if err == nil {
				v, err = item.Value()
			}
			if err != nil {
				yield(oracle.Cell{}, err)
				return
			}
			if !yield(oracle.Cell{Key: item.Key(), Value: v, Revision: item.Revision()}, nil) {
				return
			}
		}
	}
}

func upper(b oracle.Bounds) []byte {
	if b.Upper == "" {
		return nil
	}
	return []byte(b.Upper)
}
