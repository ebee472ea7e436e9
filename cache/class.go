package cache

import "math/bits"

const (
	classes  = 32 // powers of two
	minClass = 6  // below 32 bytes a block's own header eats what is won

	payRatio   = 0.75 // compression that saves less is not worth its time
	trials     = 32   // cells of a class that are tried before it is judged
	trialEvery = 64   // afterwards: the data may have changed
)

// class is what was measured of the cells whose length has the same number of
// bits. It belongs to the drain goroutine.
type class struct {
	seen  uint32
	ratio float64 // what was stored by length, a moving average; 0: unknown
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

// tries says whether to compress a cell: where it pays for its class, and now and then
// to see whether it does.
func (k *class) tries() bool {
	trial := k.seen < trials || k.seen%trialEvery == 0
	k.seen++
	return trial || k.ratio < payRatio
}

func (k *class) measure(packed, cell int) { average(&k.ratio, packed, cell) }

// pays is for one cell: even in a class that compresses, some do not.
func pays(packed, cell int) bool { return packed*10 < cell*9 }
