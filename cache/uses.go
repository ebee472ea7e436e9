package cache

import "sync/atomic"

const (
	usesLine     = 8  // words of 32 two-bit counters: a cache line
	usesPerLine  = 8  // entries of L2 for a line
	usesAge      = 64 // uses for a line between two halvings: eight for each entry
	usesRows     = 4
	usesMost     = 3 // what a counter can say
	usesEntry    = 512
	usesLow      = 0x5555555555555555 // the low bit of each counter
	admittedUses = 3
)

// uses counts how often keys were asked for that L1 did not know, up to three: a
// count-min sketch (Cormode and Muthukrishnan, J. Algorithms 55, 2005) with conservative
// updates, whose counters are halved in turn (TinyLFU, Einziger et al., ACM TOS 13, 2017).
// The counters of a key share a cache line. Nothing waits: of two that count at once one
// may be lost.
type uses struct {
	words []atomic.Uint64
	count atomic.Uint64
}

func newUses(ring int64) *uses {
	return &uses{words: make([]atomic.Uint64, max(ring/(usesPerLine*usesEntry), 1)*usesLine)}
}

// add counts one use.
func (u *uses) add(hash uint64) {
	hash = mix(hash)
	line := u.line(hash)
	least := count(line, hash)
	for row := 0; row < usesRows && least < usesMost; row++ {
		w, shift := slot(line, hash, row)
		if old := w.Load(); old>>shift&usesMost == least {
			w.CompareAndSwap(old, old+1<<shift)
		}
	}
	if n := u.count.Add(1); n%usesAge == 0 {
		u.halve(int(n / usesAge % uint64(len(u.words)/usesLine)))
	}
}

// admits says whether a key was used often enough to have a place in a ring that is full.
func (u *uses) admits(hash uint64) bool {
	hash = mix(hash)
	return count(u.line(hash), hash) >= admittedUses
}

func (u *uses) line(hash uint64) []atomic.Uint64 {
	i := int((hash>>32)%uint64(len(u.words)/usesLine)) * usesLine
	return u.words[i : i+usesLine]
}

func (u *uses) halve(line int) {
	for i := range usesLine {
		w := &u.words[line*usesLine+i]
		old := w.Load()
		w.CompareAndSwap(old, old>>1&usesLow)
	}
}

func (u *uses) bytes() int64 {
	if u == nil {
		return 0
	}
	return int64(len(u.words)) * 8
}

func count(line []atomic.Uint64, hash uint64) uint64 {
	least := uint64(usesMost)
	for row := range usesRows {
		w, shift := slot(line, hash, row)
		least = min(least, w.Load()>>shift&usesMost)
	}
	return least
}

// slot is where the two bits of a row are: eight bits of the hash name one of 256.
func slot(line []atomic.Uint64, hash uint64, row int) (word *atomic.Uint64, shift uint64) {
	at := hash >> (8 * row) & 0xff
	return &line[at/32], at % 32 * 2
}
