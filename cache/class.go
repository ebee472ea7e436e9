package cache

import "math/bits"

const (
	classes  = 32 // powers of two
	minClass = 6  // below 32 bytes a frame's own header eats what is won

	payRatio   = 0.75 // compression that saves less is not worth its time
	trials     = 32   // cells of a class that are tried before one is chosen
	trialEvery = 64   // afterwards: the data may have changed
	// S2 decodes five times as fast; that is worth a twelfth of the space.
	s2Handicap = 1.08
)

// class is what was measured of the cells whose length has the same number of
// bits. It belongs to the drain goroutine.
type class struct {
	seen     uint32
	s2, zstd float64 // compressed length by length, moving averages; 0: unknown
}

func classOf(n int) int { return min(bits.Len(uint(n)), classes-1) }

func average(old *float64, n, of int) {
	ratio := float64(n) / float64(of)
	if *old == 0 {
		*old = ratio
		return
	}
	*old += (ratio - *old) / 32
}

// choose packs a cell by what pays for its class, and measures on the way.
func (k *class) choose(c *codec, b *book, cell []byte) (kind byte, packed []byte) {
	trial := k.seen < trials || k.seen%trialEvery == 0
	k.seen++
	best := k.best()
	kind, packed = kindCell, cell
	if c.s2On() && (trial || best == kindS2) {
		p := c.packS2(cell)
		average(&k.s2, len(p), len(cell))
		if pays(len(p), len(cell)) {
			kind, packed = kindS2, p
		}
	}
	if b != nil && c.zstdOn() && (trial || best == kindZstd) {
		p := c.packZstd(b, cell)
		average(&k.zstd, len(p), len(cell))
		c.sampler.measure(len(p), len(cell))
		if pays(len(p), len(cell)) && float64(len(p))*s2Handicap < float64(len(packed)) {
			kind, packed = kindZstd, p
		}
	}
	return kind, packed
}

// best is the kind that the averages speak for.
func (k *class) best() byte {
	switch {
	case k.zstd != 0 && k.zstd < payRatio && (k.s2 == 0 || k.zstd*s2Handicap < k.s2):
		return kindZstd
	case k.s2 != 0 && k.s2 < payRatio:
		return kindS2
	}
	return kindCell
}

// pays is for one cell: even in a class that compresses, some do not.
func pays(packed, cell int) bool { return packed*10 < cell*9 }
