package cow

import (
	"bytes"
	"slices"
	"sort"
)

// Range is the half-open key range [Lower, Upper).
type Range struct{ Lower, Upper []byte }

// fragment is a piece of key space between two neighbouring bounds, with the
// commit numbers of the range tombstones over it, newest first.
type fragment struct {
	Range
	lsns []uint64
	cut  bool // older numbers were dropped (C3)
}

// rangeSet is an immutable list of disjoint fragments in key order. A nil set is
// empty.
type rangeSet struct {
	frags []fragment
	bytes int64
}

func (rs *rangeSet) size() int64 {
	if rs == nil {
		return 0
	}
	return rs.bytes
}

// find returns the newest tombstone over key at or below the number.
func (rs *rangeSet) find(key []byte, at uint64) (uint64, Found) {
	i := sort.Search(len(rs.frags), func(i int) bool { return bytes.Compare(rs.frags[i].Lower, key) > 0 }) - 1
	if i < 0 || bytes.Compare(key, rs.frags[i].Upper) >= 0 {
		return 0, Unknown
	}
	f := &rs.frags[i]
	for _, lsn := range f.lsns {
		if lsn <= at {
			return lsn, Hidden
		}
	}
	if f.cut {
		return 0, Cut
	}
	return 0, Unknown
}

// with returns a set that also has the tombstones of commit lsn.
func (rs *rangeSet) with(lsn uint64, ranges []Range, keep uint64) *rangeSet {
	fresh := union(ranges)
	var old []fragment
	if rs != nil {
		old = rs.frags
	}
	bounds := make([][]byte, 0, 2*(len(old)+len(fresh)))
	for _, f := range old {
		bounds = append(bounds, f.Lower, f.Upper)
	}
	for _, r := range fresh {
		bounds = append(bounds, r.Lower, r.Upper)
	}
	slices.SortFunc(bounds, bytes.Compare)
	bounds = slices.CompactFunc(bounds, bytes.Equal)

	out := &rangeSet{}
	i, j := 0, 0 // the first of old and fresh that ends behind the bound
	for b := 0; b+1 < len(bounds); b++ {
		r := Range{bounds[b], bounds[b+1]}
		for i < len(old) && bytes.Compare(old[i].Upper, r.Lower) <= 0 {
			i++
		}
		for j < len(fresh) && bytes.Compare(fresh[j].Upper, r.Lower) <= 0 {
			j++
		}
		inOld := i < len(old) && bytes.Compare(old[i].Lower, r.Lower) <= 0
		inFresh := j < len(fresh) && bytes.Compare(fresh[j].Lower, r.Lower) <= 0
		switch {
		case inFresh && inOld:
			out.add(fragment{r, append([]uint64{lsn}, old[i].lsns...), old[i].cut}.trim(keep))
		case inFresh:
			out.add(fragment{r, []uint64{lsn}, false})
		case inOld:
			out.add(fragment{r, old[i].lsns, old[i].cut})
		}
	}
	for _, f := range out.frags {
		out.bytes += int64(len(f.Lower)+len(f.Upper)+8*len(f.lsns)) + 80
	}
	return out
}

// add appends f, or widens its neighbour where both say the same.
func (rs *rangeSet) add(f fragment) {
	if n := len(rs.frags); n > 0 {
		last := &rs.frags[n-1]
		if bytes.Equal(last.Upper, f.Lower) && last.cut == f.cut && slices.Equal(last.lsns, f.lsns) {
			last.Upper = f.Upper
			return
		}
	}
	rs.frags = append(rs.frags, f)
}

// trim drops the numbers below the newest one at or below keep, as a chain of
// versions is cut (C3).
func (f fragment) trim(keep uint64) fragment {
	for i, lsn := range f.lsns {
		if lsn <= keep && i+1 < len(f.lsns) {
			f.lsns, f.cut = f.lsns[:i+1:i+1], true
			break
		}
	}
	return f
}

// union copies ranges into a sorted list without overlaps. Empty and inverted
// ranges cover nothing.
func union(ranges []Range) []Range {
	out := make([]Range, 0, len(ranges))
	for _, r := range ranges {
		if bytes.Compare(r.Lower, r.Upper) < 0 {
			out = append(out, Range{bytes.Clone(r.Lower), bytes.Clone(r.Upper)})
		}
	}
	slices.SortFunc(out, func(a, b Range) int { return bytes.Compare(a.Lower, b.Lower) })
	n := 0
	for _, r := range out {
		if n > 0 && bytes.Compare(r.Lower, out[n-1].Upper) <= 0 {
			if bytes.Compare(r.Upper, out[n-1].Upper) > 0 {
				out[n-1].Upper = r.Upper
			}
			continue
		}
		out[n] = r
		n++
	}
	return out[:n]
}
