package cache

import (
	"bytes"
	"iter"
	"math/bits"
	"slices"
)

// KeyRange is the range of keys [Lower, Upper). An empty Upper has no end:
// reading it as everything can only cost a miss.
type KeyRange struct{ Lower, Upper []byte }

const (
	bitsPerKey = 10
	probes     = 6
	blockWords = 8 // 512 bits: one cache line, so a look costs one miss of the CPU
	blockBits  = blockWords * 64
)

type block [blockWords]uint64

// What the structs themselves take, on 64 bits.
const (
	recordBytes = 64
	rangeBytes  = 48
)

// Record is the trace that a generation leaves when it goes down to storage:
// a blocked Bloom filter of its keys and its range tombstones. It errs to one
// side only: it may claim to cover a key that it does not, which costs a miss.
// A Record is immutable.
type Record struct {
	blocks []block
	ranges []KeyRange // sorted by Lower, not overlapping
	bytes  int64
}

// NewRecord builds the record of a generation with n keys (a good guess is
// enough; a low one only raises the number of false claims) and the ranges it
// deleted.
func NewRecord(hashes iter.Seq[uint64], n int, ranges []KeyRange) *Record {
	r := &Record{}
	if n > 0 {
		r.blocks = make([]block, (n*bitsPerKey+blockBits-1)/blockBits)
	}
	if hashes != nil {
		for h := range hashes {
			if len(r.blocks) == 0 {
				r.blocks = make([]block, 1) // n was wrong; never lose a key
			}
			r.add(h)
		}
	}
	r.ranges = mergeRanges(ranges)
	r.bytes = recordBytes + int64(len(r.blocks))*blockBits/8
	for _, kr := range r.ranges {
		r.bytes += int64(len(kr.Lower)+len(kr.Upper)) + rangeBytes
	}
	return r
}

// Bytes is what the record holds in memory.
func (r *Record) Bytes() int64 { return r.bytes }

// Covers says whether the generation may have held the key or deleted it by a
// range. It never misses one that it did.
func (r *Record) Covers(hash uint64, key []byte) bool {
	if len(r.blocks) != 0 && r.has(hash) {
		return true
	}
	if len(r.ranges) == 0 {
		return false
	}
	// The last range that starts at or before the key is the only candidate.
	i, found := slices.BinarySearchFunc(r.ranges, key, func(kr KeyRange, key []byte) int {
		return bytes.Compare(kr.Lower, key)
	})
	if found {
		return true
	}
	if i == 0 {
		return false
	}
	upper := r.ranges[i-1].Upper
	return len(upper) == 0 || bytes.Compare(key, upper) < 0
}

func (r *Record) add(hash uint64) {
	b, m := r.locate(hash)
	for range probes {
		b[(m>>6)&(blockWords-1)] |= 1 << (m & 63)
		m >>= 9
	}
}

func (r *Record) has(hash uint64) bool {
	b, m := r.locate(hash)
	for range probes {
		if b[(m>>6)&(blockWords-1)]&(1<<(m&63)) == 0 {
			return false
		}
		m >>= 9
	}
	return true
}

// locate returns the key's block and 54 bits to probe it with. Both come from
// remixed hashes: the key's hash also chose shards and buckets elsewhere, so
// that its raw bits are not independent within one generation.
func (r *Record) locate(hash uint64) (*block, uint64) {
	m := mix(hash)
	i, _ := bits.Mul64(m, uint64(len(r.blocks)))
	return &r.blocks[i], mix(m)
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// mergeRanges copies the ranges, sorted and joined where they touch, so that
// one binary search decides. Empty and inverted ones go.
func mergeRanges(in []KeyRange) []KeyRange {
	if len(in) == 0 {
		return nil
	}
	out := make([]KeyRange, 0, len(in))
	for _, kr := range in {
		if len(kr.Upper) != 0 && bytes.Compare(kr.Lower, kr.Upper) >= 0 {
			continue
		}
		out = append(out, KeyRange{Lower: bytes.Clone(kr.Lower), Upper: bytes.Clone(kr.Upper)})
	}
	slices.SortFunc(out, func(a, b KeyRange) int { return bytes.Compare(a.Lower, b.Lower) })
	merged := out[:0]
	for _, kr := range out {
		if n := len(merged); n > 0 {
			last := &merged[n-1]
			if len(last.Upper) == 0 {
				break
			}
			if bytes.Compare(kr.Lower, last.Upper) <= 0 {
				if len(kr.Upper) == 0 || bytes.Compare(kr.Upper, last.Upper) > 0 {
					last.Upper = kr.Upper
				}
				continue
			}
		}
		merged = append(merged, kr)
	}
	return slices.Clip(merged)
}
