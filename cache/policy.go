package cache

import (
	"fmt"
	"sync/atomic"
)

// Policy says what goes into L2, and when. Whatever it says, a cell travels
// with its stamp and is judged when it is read (C1, C3): a policy moves the hit
// ratio and nothing else.
type Policy uint8

const (
	// PolicyThird is PolicySecond, and a ring that is full takes a load only of a key
	// that was asked for three times lately.
	PolicyThird Policy = iota
	// PolicySecond is PolicyProbation, and a cell of L2 that was hit but that L1
	// would not take up goes round once more when the ring's end meets it.
	PolicySecond
	// PolicyVictim offers a load to L1, and L2 takes whatever L1 does not admit
	// or lets go.
	PolicyVictim
	// PolicyProbation puts a load into L2 alone, once L1 is full; a hit there
	// takes it up to L1, and L2 takes what L1 lets go.
	PolicyProbation
)

func (p Policy) String() string {
	switch p {
	case PolicyThird:
		return "third"
	case PolicySecond:
		return "second"
	case PolicyVictim:
		return "victim"
	case PolicyProbation:
		return "probation"
	}
	return fmt.Sprintf("policy(%d)", uint8(p))
}

const (
	maxAgain    = 4   // entries that go round again during one set
	markPerByte = 512 // bytes of the ring for a byte of marks
)

// first says whether a load is offered to L1 rather than to L2. A probation
// while L1 has room would leave it empty under a loop, in which nothing is hit
// in L2 before it is gone: 0.00 of the reads instead of 0.40.
func (c *Cache) first(up *l1, low *l2) bool {
	return up != nil && (low == nil || c.policy == PolicyVictim || up.room())
}

// down says whether an item that L1 let go or did not admit enters L2. It runs
// on ristretto's goroutine and takes no lock.
func (c *Cache) down(low *l2, it *item, rejected bool) bool {
	if c.policy == PolicyVictim || !rejected || !it.low {
		return true
	}
	if len(low.marks) > 0 {
		low.marks.set(low.hash.Sum64(it.key))
	}
	return false // it is there
}

// marks is one bit for each of many hashes: entries of L2 that are to go round once more,
// or keys that rooms above answered for. Two keys on one bit cost one of them a place.
type marks []atomic.Uint32

func newMarks(ring int64) marks { return make(marks, max(ring/markPerByte/4, 1)) }

func (m marks) at(hash uint64) (*atomic.Uint32, uint32) {
	return &m[(hash>>5)%uint64(len(m))], 1 << (hash & 31)
}

func (m marks) set(hash uint64) {
	w, bit := m.at(mix(hash))
	if w.Load()&bit == 0 {
		w.Or(bit)
	}
}

// take clears the bit and says whether it was set.
func (m marks) take(hash uint64) bool {
	w, bit := m.at(mix(hash))
	return w.Load()&bit != 0 && w.And(^bit)&bit != 0
}

func (m marks) any() bool {
	for i := range m {
		if m[i].Load() != 0 {
			return true
		}
	}
	return false
}

func (m marks) bytes() int64 { return int64(len(m)) * 4 }

// again is an entry that left the ring marked.
type again struct {
	key   string
	entry []byte
}
