package cache

import (
	"math/bits"
	"sync/atomic"
)

const (
	bitsPerKey = 10 // one false answer in about eighty
	probes     = 6
	blockWords = 8 // 512 bits: one cache line, so a look costs one miss of the CPU
	blockBits  = blockWords * 64
)

type block [blockWords]uint64

// Filter is a set of keys, known by their hashes, that errs to one side only: it may say
// that it has a key that it has not. It is a Bloom filter in blocks (Putze, Sanders,
// Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007). Its methods may be
// called beside each other; whoever comes after an Add returned finds the key.
type Filter struct {
	blocks []block // words are atomic
	keys   atomic.Int64
}

// NewFilter makes an empty set of so many bytes.
func NewFilter(size int64) *Filter { return newFilter(int(size * 8 / blockBits)) }

func newFilter(blocks int) *Filter { return &Filter{blocks: make([]block, max(blocks, 1))} }

// Add puts a key in.
func (f *Filter) Add(hash uint64) {
	b, m := f.locate(hash)
	fresh := false
	for range probes {
		w, bit := &b[(m>>6)&(blockWords-1)], uint64(1)<<(m&63)
		if atomic.LoadUint64(w)&bit == 0 && atomic.OrUint64(w, bit)&bit == 0 {
			fresh = true
		}
		m >>= 9
	}
	if fresh {
		f.keys.Add(1)
	}
}

// Has says whether the key may be in the set. A nil Filter may have any.
func (f *Filter) Has(hash uint64) bool {
	if f == nil {
		return true
	}
	b, m := f.locate(hash)
	for range probes {
		if atomic.LoadUint64(&b[(m>>6)&(blockWords-1)])&(1<<(m&63)) == 0 {
			return false
		}
		m >>= 9
	}
	return true
}

// Keys is how many keys changed the set: all of them but for false answers.
func (f *Filter) Keys() int64 { return f.keys.Load() }

// Capacity is how many keys the set has room for before it errs more often.
func (f *Filter) Capacity() int64 { return int64(len(f.blocks)) * blockBits / bitsPerKey }

// Bytes is what the set takes.
func (f *Filter) Bytes() int64 {
	if f == nil {
		return 0
	}
	return int64(len(f.blocks)) * blockBits / 8
}

// locate returns the key's block and 54 bits to probe it with. Both come from
// remixed hashes: the key's hash also chose shards and buckets elsewhere, so
// that its raw bits are not independent within one generation.
func (f *Filter) locate(hash uint64) (*block, uint64) {
	m := mix(hash)
	i, _ := bits.Mul64(m, uint64(len(f.blocks)))
	return &f.blocks[i], mix(m)
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
