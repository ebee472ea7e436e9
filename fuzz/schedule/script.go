package schedule

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Script is what the actors of one history do: steps, each of one actor, which does
// its own in this order while the others do theirs.
type Script struct {
	Seed  uint64 // of the steps' contents, the schedule and the end
	Steps []Step
}

// Step is one call of one actor.
type Step struct {
	Actor int
	Kind  Kind
	Seed  uint64 // of its content
}

// Kind of a step.
type Kind uint8

const (
	Commit Kind = iota // by the lane of the actor's number
	Read               // of a lane's counter and of all its keys
	Snap               // take a snapshot, or look at one again
	Scan
	Flush
	Sync
	Compact
	Close // of the engine, under everybody
)

func (k Kind) String() string {
	return [...]string{"commit", "read", "snap", "scan", "flush", "sync", "compact", "close"}[k]
}

// String lists the steps: "0 commit, 3 flush".
func (s Script) String() string {
	var out []string
	for _, st := range s.Steps {
		out = append(out, fmt.Sprintf("%d %s", st.Actor, st.Kind))
	}
	return fmt.Sprintf("seed %d: %s", s.Seed, strings.Join(out, ", "))
}

// writers is how many actors commit; each has a lane.
const writers = 3

// NewScript makes the script of a seed.
func NewScript(seed uint64) Script {
	rnd := rand.New(rand.NewPCG(seed, 0x736372697074))
	s := Script{Seed: seed}
	add := func(actor, n int, kinds ...Kind) {
		for range n {
			s.Steps = append(s.Steps, Step{actor, kinds[rnd.IntN(len(kinds))], rnd.Uint64()})
		}
	}
	for w := range writers {
		add(w, 2+rnd.IntN(12), Commit)
	}
	add(writers, 2+rnd.IntN(8), Read, Read, Scan)
	add(writers+1, 1+rnd.IntN(8), Snap, Snap, Read)
	add(writers+2, 1+rnd.IntN(5), Flush)
	if rnd.IntN(2) == 0 {
		add(writers+3, 1+rnd.IntN(4), Flush, Sync, Compact)
	}
	if rnd.IntN(3) == 0 {
		add(writers+4, 1, Close)
	}
	return s
}

// shrink removes steps as long as fails says that what is left still fails.
func shrink(s Script, fails func(Script) bool) Script {
	for size := len(s.Steps) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(s.Steps); {
			less := Script{s.Seed, append(append([]Step(nil), s.Steps[:from]...), s.Steps[from+size:]...)}
			if fails(less) {
				s = less
			} else {
				from += size
			}
		}
	}
	return s
}
