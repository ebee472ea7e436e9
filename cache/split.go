package cache

import "fmt"

// Split divides the room of both tiers by what each would answer more if it were larger.
// The zero Split has all of it in L1. One goroutine at a time.
type Split struct {
	Part float64 // L2's, from 0 to 1

	last Metrics
	raw  uint64  // bytes that went into L2, since what they became was judged
	kept uint64  // and what they became
	step float64 // the last one, negative where L1 got it
	off  int     // looks for which L2 stays away
	away int     // how long it stays away the next time it has to
}

// Cost is what an answer takes, lately, in any unit: from L1, from L2 with its decoding,
// and by a load. Where one is not known, a hit in L2 counts a quarter of a load.
type Cost struct{ L1, L2, Load float64 }

func (c Cost) known() Cost {
	if c.L1 <= 0 || c.L2 <= 0 || c.Load <= 0 {
		return Cost{0, 0.25, 1}
	}
	return c
}

const (
	splitReads  = 2000    // fewer between two looks say nothing
	splitBytes  = 1 << 20 // fewer into L2 say nothing of how they compress
	splitStep   = 1.0 / 16
	splitStride = 1.0 / 4 // the longest, after steps in one direction: each is twice as long
	splitMost   = 0.75
	splitClear  = 1.5   // how much more one must promise than the other
	splitPays   = 64    // looks in which what is promised must be as much as L2 loses
	splitLeast  = 0.005 // of reads that pass L1: what L2 must answer to be worth its bytes
	splitReturn = 1.0 / 4
)

// Look takes what was counted since the last look and changes Part, if that says it should:
// then it says why. The caller resizes the tiers. Looks are some seconds apart.
func (s *Split) Look(m Metrics, c Cost) (why string) {
	was := s.step
	s.step = 0
	d := Metrics{
		L1Hits: m.L1Hits - s.last.L1Hits, L2Hits: m.L2Hits - s.last.L2Hits, Misses: m.Misses - s.last.Misses,
		L1Ghosts: m.L1Ghosts - s.last.L1Ghosts, L2Ghosts: m.L2Ghosts - s.last.L2Ghosts,
		L1GhostsL2: m.L1GhostsL2 - s.last.L1GhostsL2,
	}
	// A ring that began anew, or was not full, at the last look answered less than it can,
	// and may not have learned yet to compress.
	s.raw, s.kept = s.raw+m.RawBytes-s.last.RawBytes, s.kept+m.StoredBytes-s.last.StoredBytes
	young := m.L2Filled < s.last.L2Filled || s.last.L2Filled < m.L2Capacity
	s.last = m
	if d.L1Hits+d.L2Hits+d.Misses < splitReads || m.L1Capacity == 0 {
		return ""
	}
	if m.L2Capacity == 0 {
		if s.Part > 0 {
			return "" // too little room for both
		}
		if s.off--; s.off > 0 {
			return ""
		}
		s.Part = splitReturn
		// All room is L1's now. A try without dictionaries is none, if there is room for one.
		if part := 1.05 * minAutoDict / float64(m.L1Capacity); part <= 0.5 {
			s.Part = max(s.Part, part)
		}
		return "L2 gets another try"
	}
	if young {
		s.raw, s.kept = 0, 0
		return ""
	}
	// What a byte more would spare: in L1 loads, and hits of L2 that would be its own; in
	// L2 loads, each for a copy and a decoding.
	c = c.known()
	one := (float64(d.L1Ghosts)*max(c.Load-c.L1, 0) + float64(d.L1GhostsL2)*max(c.L2-c.L1, 0)) / float64(m.L1Capacity)
	two := float64(d.L2Ghosts) * (c.Load - c.L2) / float64(m.L2Capacity)
	pays := func(ghosts uint64) bool { return ghosts*splitPays >= uint64(m.L2Entries) }
	packed := 0.0
	if s.raw > splitBytes {
		packed = float64(s.kept) / float64(s.raw)
		s.raw, s.kept = 0, 0
	}
	switch {
	case packed > payRatio:
		// A ring of plain cells answers no more than L1 with its bytes, and slower.
		s.leave()
		return fmt.Sprintf("values in L2 take %.2f of their bytes", packed)
	case float64(d.L2Hits) < splitLeast*float64(d.L2Hits+d.Misses):
		s.leave()
		return fmt.Sprintf("L2 answered %d of %d reads that L1 did not", d.L2Hits, d.L2Hits+d.Misses)
	case c.L2 >= c.Load:
		s.leave()
		return "an answer of L2 takes as long as one of L3"
	case two > splitClear*one && pays(d.L2Ghosts) && s.Part < splitMost:
		s.step = min(max(2*was, splitStep), splitStride)
		s.Part = min(splitMost, s.Part+s.step)
		return "a larger L2 would spare more than a larger L1"
	case one > splitClear*two && pays(d.L1Ghosts+d.L1GhostsL2) && s.Part > splitStep:
		s.step = -min(max(-2*was, splitStep), splitStride)
		s.Part = max(splitStep, s.Part+s.step)
		return "a larger L1 would spare more than a larger L2"
	case one > splitClear*two && pays(d.L1Ghosts+d.L1GhostsL2):
		s.leave()
		return "L1 would spare more with what is left of L2"
	}
	return ""
}

// leave turns L2 off, each time for longer.
func (s *Split) leave() {
	s.away = min(max(12, 2*s.away), 720)
	s.Part, s.off = 0, s.away
}

// WorthResize says whether L2, which loses what it has when its size changes, should
// follow from one size to another: into or out of being, or by a good part.
func WorthResize(was, now int64) bool {
	return was != now && (was == 0 || now == 0 || max(now-was, was-now) >= was/3)
}
