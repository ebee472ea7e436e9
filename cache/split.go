package cache

import "fmt"

// Split divides the room of both tiers by what each would answer more if it were larger.
// The zero Split has all of it in L1. One goroutine at a time.
type Split struct {
	Part float64 // L2's, from 0 to 1

	last Metrics
	off  int // looks for which L2 stays away
	away int // how long it stays away the next time it has to
}

const (
	splitReads  = 2000    // fewer between two looks say nothing
	splitBytes  = 1 << 20 // fewer into L2 say nothing of how they compress
	splitStep   = 1.0 / 16
	splitMost   = 0.75
	splitClear  = 1.5   // how much more one must promise than the other
	splitPays   = 64    // looks in which what is promised must be as much as L2 loses
	splitLeast  = 0.005 // of reads that pass L1: what L2 must answer to be worth its bytes
	splitReturn = 1.0 / 4
)

// Look takes what was counted since the last look and changes Part, if that says it should:
// then it says why. The caller resizes the tiers. Looks are some seconds apart.
func (s *Split) Look(m Metrics) (why string) {
	d := Metrics{
		L1Hits: m.L1Hits - s.last.L1Hits, L2Hits: m.L2Hits - s.last.L2Hits, Misses: m.Misses - s.last.Misses,
		L1Ghosts: m.L1Ghosts - s.last.L1Ghosts, L2Ghosts: m.L2Ghosts - s.last.L2Ghosts,
		RawBytes: m.RawBytes - s.last.RawBytes, StoredBytes: m.StoredBytes - s.last.StoredBytes,
	}
	// A ring that began anew, or was not full, at the last look answered less than it can,
	// and may not have learned yet to compress.
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
		if part := 1.05 * minAutoZstd / float64(m.L1Capacity); part <= 0.5 {
			s.Part = max(s.Part, part)
		}
		return "L2 gets another try"
	}
	if young {
		return ""
	}
	// What a byte more would answer, of reads that now go to L3. For L2 a hit of its own
	// costs a copy and a decoding, a quarter of a load at most.
	one := float64(d.L1Ghosts) / float64(m.L1Capacity)
	two := 0.75 * float64(d.L2Ghosts) / float64(m.L2Capacity)
	pays := func(ghosts uint64) bool { return ghosts*splitPays >= uint64(m.L2Entries) }
	packed := float64(d.StoredBytes) / float64(max(d.RawBytes, 1))
	switch {
	case d.RawBytes > splitBytes && packed > payRatio:
		// A ring of plain cells answers no more than L1 with its bytes, and slower.
		s.leave()
		return fmt.Sprintf("values in L2 take %.2f of their bytes", packed)
	case float64(d.L2Hits) < splitLeast*float64(d.L2Hits+d.Misses):
		s.leave()
		return fmt.Sprintf("L2 answered %d of %d reads that L1 did not", d.L2Hits, d.L2Hits+d.Misses)
	case two > splitClear*one && pays(d.L2Ghosts) && s.Part < splitMost:
		s.Part = min(splitMost, s.Part+splitStep)
		return "a larger L2 would answer more than a larger L1"
	case one > splitClear*two && pays(d.L1Ghosts) && s.Part > splitStep:
		s.Part -= splitStep
		return "a larger L1 would answer more than a larger L2"
	case one > splitClear*two && pays(d.L1Ghosts):
		s.leave()
		return "L1 would answer more with what is left of L2"
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
