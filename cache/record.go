package cache

import (
	"bytes"
	"iter"
	"slices"
)

// KeyRange is the range of keys [Lower, Upper). An empty Upper has no end:
// reading it as everything can only cost a miss.
type KeyRange struct{ Lower, Upper []byte }

// What the structs themselves take, on 64 bits.
const (
	recordBytes = 64
	rangeBytes  = 48
)

// Record is the trace that a generation leaves when it goes down to storage:
// a [Filter] of its keys and its range tombstones. It errs to one
// side only: it may claim to cover a key that it does not, which costs a miss.
// A Record is immutable.
type Record struct {
	keys   *Filter    // nil if there are none
	ranges []KeyRange // sorted by Lower, not overlapping
	bytes  int64
}

// NewRecord builds the record of a generation with n keys (a good guess is
// enough; a low one only raises the number of false claims) and the ranges it
// deleted.
func NewRecord(hashes iter.Seq[uint64], n int, ranges []KeyRange) *Record {
	r := &Record{}
	if n > 0 {
		r.keys = newFilter((n*bitsPerKey + blockBits - 1) / blockBits)
	}
	if hashes != nil {
		for h := range hashes {
			if r.keys == nil {
				r.keys = newFilter(1) // n was wrong; never lose a key
			}
			r.keys.Add(h)
		}
	}
	r.ranges = mergeRanges(ranges)
	r.bytes = recordBytes + r.keys.Bytes()
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
	if r.keys != nil && r.keys.Has(hash) {
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
