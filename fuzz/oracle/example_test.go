package oracle_test

import (
	"fmt"
	"iter"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// toy is somebody's store.
type toy map[string]string

func (s toy) Get(key string) ([]byte, bool, error) {
	v, ok := s[key]
	return []byte(v), ok, nil
}

func (s toy) Scan(b oracle.Bounds, _ bool) iter.Seq2[oracle.Cell, error] {
	return func(yield func(oracle.Cell, error) bool) {
		for _, k := range []string{"w0/!n", "w0/balance"} { // its keys, in order
			if v, ok := s[k]; ok && !yield(oracle.Cell{Key: []byte(k), Value: []byte(v)}, nil) {
				return
			}
		}
	}
}

// A store that acknowledged two commits comes back with one.
func ExampleHistory() {
	h := oracle.NewHistory(1)
	lane := h.Lanes()[0]
	for lsn := uint64(1); lsn <= 2; lsn++ {
		n, model := lane.Next()
		model.Put(lane.Key("balance"), fmt.Sprint(100*n))
		lane.Begin(model) // then the store is asked to commit the same, lane.Counter() included
		lane.Acked(lsn)
	}
	promised := h.Promised(nil)

	afterCrash := toy{"w0/!n": "1", "w0/balance": "100"}
	fmt.Println(oracle.WithSeed(h.Check(afterCrash, promised, 1), 42))
	// Output: O1 lost: key "w0/!n": commit 2: 1 commits came back, 2 were promised (seed 42)
}
