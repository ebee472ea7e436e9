package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Script is what the actors of one history do: steps, each of one actor, which does
// its own in this order while the others do theirs.
type Script struct {
	Base  uint64 // made the steps
	Seed  uint64 // of the schedule and the end
	Steps []Step
}

// Step is one call of one actor.
type Step struct {
	N     int // its place in the whole script
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
	Compact // and collect garbage
	Close   // of the engine, under everybody
)

func (k Kind) String() string {
	return [...]string{"commit", "read", "snap", "scan", "flush", "sync", "compact", "close"}[k]
}

// String is what [ParseScript] reads: base, schedule, and the steps that are left.
func (s Script) String() string {
	n := make([]string, len(s.Steps))
	for i, st := range s.Steps {
		n[i] = strconv.Itoa(st.N)
	}
	return fmt.Sprintf("%d@%d:%s", s.Base, s.Seed, strings.Join(n, ","))
}

// ParseScript reads what String wrote.
func ParseScript(text string) (Script, error) {
	var s Script
	head, tail, _ := strings.Cut(text, ":")
	if _, err := fmt.Sscanf(head, "%d@%d", &s.Base, &s.Seed); err != nil {
		return s, fmt.Errorf("script %q: %w", text, err)
	}
	all := NewScript(s.Base).Steps
	for _, f := range strings.Split(tail, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 0 || n >= len(all) {
			return s, fmt.Errorf("script %q: no step %q", text, f)
		}
		s.Steps = append(s.Steps, all[n])
	}
	return s, nil
}

// Describe lists the steps for people.
func (s Script) Describe() string {
	var out []string
	for _, st := range s.Steps {
		out = append(out, fmt.Sprintf("%d %s", st.Actor, st.Kind))
	}
	return strings.Join(out, ", ")
}

// writers is how many actors commit; each has a lane.
const writers = 3

// NewScript makes the script of a seed.
func NewScript(seed uint64) Script {
	rnd := rand.New(rand.NewPCG(seed, 0x736372697074))
	s := Script{Base: seed, Seed: seed}
	add := func(actor, n int, kinds ...Kind) {
		for range n {
			s.Steps = append(s.Steps, Step{len(s.Steps), actor, kinds[rnd.IntN(len(kinds))], rnd.Uint64()})
		}
	}
	for w := range writers {
		add(w, 2+rnd.IntN(12), Commit)
	}
	add(writers, 2+rnd.IntN(20), Read, Read, Read, Scan)
	add(writers+1, 1+rnd.IntN(10), Snap, Snap, Read)
	add(writers+2, 1+rnd.IntN(5), Flush)
	switch {
	case s.collects():
		add(writers+3, 1+rnd.IntN(3), Compact)
	case rnd.IntN(2) == 0:
		add(writers+3, 1+rnd.IntN(4), Flush, Sync, Compact)
	}
	if rnd.IntN(3) == 0 {
		add(writers+4, 1, Close)
	}
	return s
}

// collects says whether the history makes garbage, for the collector to clear.
func (s Script) collects() bool { return s.Base%2 == 0 }

// tries is how many schedules a shorter script gets to fail under: with steps gone,
// the same seed makes another order.
const tries = 40

// shrink removes steps as long as what is left still fails under some schedule.
func shrink(s Script, fails func(Script) bool) Script {
	for size := (len(s.Steps) + 1) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(s.Steps); {
			less, ok := Script{Base: s.Base, Steps: slices.Delete(slices.Clone(s.Steps), from, from+size)}, false
			for i := uint64(0); i < tries && !ok; i++ {
				less.Seed = s.Seed + i
				ok = fails(less)
			}
			if ok {
				s = less
			} else {
				from += size
			}
		}
	}
	return s
}
