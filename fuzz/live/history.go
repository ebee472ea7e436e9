package live

import (
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// maxKeys is how many keys the history of one group may have.
const maxKeys = 8

// call is one call of a history: what was asked, what came back, and between which
// two ticks of the history's clock it happened.
type call struct {
	client int
	what   string
	keys   uint16         // bit i: key i of the group was read or written
	ids    [maxKeys]int32 // of the values; zero is absent
	write  bool
	lsn    uint64 // commit number of a write, moment of a snapshot; zero: unknown
	begin  int64
	end    int64

	revision uint64 // of the one value that was read; zero: unknown
}

// someValue stands for whatever value a key has, where a read does not tell.
const someValue = -1

const never = oracle.Never

// LSN names the call in a verdict.
func (c *call) LSN() uint64 { return c.lsn }

func (c *call) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "client %d %s", c.client, c.what)
	for i := range maxKeys {
		if c.keys&(1<<i) != 0 {
			fmt.Fprintf(&b, " %d:%d", i, c.ids[i])
		}
	}
	if c.lsn != 0 {
		fmt.Fprintf(&b, " commit %d", c.lsn)
	}
	fmt.Fprintf(&b, " [%d,", c.begin)
	if c.end == never {
		b.WriteString("?]")
	} else {
		fmt.Fprintf(&b, "%d]", c.end)
	}
	return b.String()
}

// moment is the state of a group's keys, and the highest commit number that led
// there: the order of commits must be the order of their numbers.
type moment struct {
	ids  [maxKeys]int32
	last uint64
}

// step is the sequential specification.
func step(state, input, _ any) (bool, any) {
	s, c := state.(moment), input.(*call)
	switch {
	case c.lsn == 0:
	case c.write && c.lsn <= s.last, c.lsn < s.last:
		return false, s
	default:
		s.last = c.lsn
	}
	for i := range maxKeys {
		if c.keys&(1<<i) == 0 {
			continue
		}
		if c.write {
			s.ids[i] = c.ids[i]
		} else if s.ids[i] != c.ids[i] && (s.ids[i] == 0 || c.ids[i] != someValue) {
			return false, s
		}
	}
	return true, s
}

var momentSeed = maphash.MakeSeed()

var model = porcupine.Model{
	Init:  func() any { return moment{} },
	Step:  step,
	Equal: func(a, b any) bool { return a == b },
	Hash:  func(s any) uint64 { return maphash.Comparable(momentSeed, s.(moment)) },
}

// patience bounds the search for an order. Histories are made so that it is rarely
// needed; one that takes longer is counted as undecided.
const patience = 700 * time.Millisecond

// checkHistory looks for an order of the calls that explains all answers. name is of
// the group's keys.
func checkHistory(calls []*call, name string) (decided bool, err error) {
	ops := make([]porcupine.Operation, len(calls))
	for i, c := range calls {
		ops[i] = porcupine.Operation{ClientId: c.client, Input: c, Call: c.begin, Return: c.end}
	}
	return oracle.Linear(model, ops, name, patience)
}

// learn gives writes the commit numbers that readers saw beside their values, and
// reads that saw only a number the value. One value with two numbers is a verdict.
func learn(calls []*call, seen map[int32]uint64, name string) error {
	writes := map[uint64]*call{}
	for _, c := range calls {
		for i := range maxKeys {
			if !c.write || c.keys&(1<<i) == 0 || c.ids[i] == 0 {
				continue
			}
			switch rev := seen[c.ids[i]]; {
			case rev == 0:
			case c.lsn == 0:
				c.lsn = rev
			case c.lsn != rev:
				return oracle.Broken(oracle.Lied, name, c.lsn, "a reader was told revision %d of: %v", rev, c)
			}
		}
		if c.write && c.lsn != 0 {
			if other := writes[c.lsn]; other != nil {
				return oracle.Broken(oracle.NotLinear, name, c.lsn, "two commits of one number: %v, %v", other, c)
			}
			writes[c.lsn] = c
		}
	}
	for _, c := range calls {
		w := writes[c.revision]
		if c.revision == 0 || w == nil {
			continue
		}
		for i := range maxKeys {
			if c.keys&(1<<i) == 0 {
				continue
			}
			if c.ids[i] = w.ids[i]; w.keys&(1<<i) == 0 || w.ids[i] == 0 {
				return oracle.Broken(oracle.Lied, name, c.revision, "%v names a revision that was: %v", c, w)
			}
		}
	}
	return nil
}

// settle narrows calls in doubt, each of which would double the search. What a reader
// saw had happened by then. What nobody saw explains nothing, unless it deletes or a
// reader saw that there was some value: otherwise every order with it is an order
// without it.
func settle(calls []*call) []*call {
	var some uint16 // keys of which a reader knows only that they had a value
	for _, c := range calls {
		for i := range maxKeys {
			if c.keys&(1<<i) != 0 && c.ids[i] == someValue {
				some |= 1 << i
			}
		}
	}
	kept := calls[:0:0]
	for _, c := range calls {
		if c.end != never || c.settle(calls) || c.keys&some != 0 || c.deletes() {
			kept = append(kept, c)
		}
	}
	return kept
}

// settle ends a call in doubt at the first answer that shows it, and says whether
// there is one.
func (c *call) settle(calls []*call) (seen bool) {
	for _, r := range calls {
		for i := range maxKeys {
			if !r.write && r.keys&c.keys&(1<<i) != 0 && c.ids[i] > 0 && r.ids[i] == c.ids[i] {
				c.end, seen = min(c.end, r.end), true
			}
		}
	}
	return seen
}

func (c *call) deletes() bool {
	for i := range maxKeys {
		if c.keys&(1<<i) != 0 && c.ids[i] == 0 {
			return true
		}
	}
	return false
}
