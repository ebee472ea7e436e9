package cache

import "math"

// maxRecords bounds what one check may cost and what one Push copies, however
// small the generations are.
const maxRecords = 256

// Horizon is what a view knows of the generations that went down: their
// number, the records of the last ones, and a floor below which nothing is
// known. A Horizon is immutable; the flush makes the next one with [Horizon.Push]
// and publishes it in the same swap that lets the generation go (I5). A
// horizon published before the swap, or after it, opens a window for an old
// cell.
type Horizon struct {
	seq   uint64
	floor uint64
	// records[i] is of the generation whose drop made seq floor+1+i.
	records []*Record
	bytes   int64
}

// NewHorizon starts at seq and finds everything stamped below it unusable.
// Use it when storage changed in a way that has no record.
func NewHorizon(seq uint64) *Horizon { return &Horizon{seq: seq, floor: seq} }

// Push returns the horizon after one more generation went down. The oldest
// records go while they exceed maxBytes together, and the floor rises. A nil
// record knows nothing, so everything older becomes unusable.
func (h *Horizon) Push(r *Record, maxBytes int64) *Horizon {
	if h.seq == math.MaxUint64 {
		panic("cache: horizon used up") // 2^64 flushes; only a broken caller gets here
	}
	next := &Horizon{seq: h.seq + 1, floor: h.floor}
	if r == nil {
		next.floor = next.seq
		return next
	}
	next.bytes = h.bytes + r.Bytes()
	drop := 0
	for ; drop < len(h.records) && (next.bytes > maxBytes || len(h.records)+1-drop > maxRecords); drop++ {
		next.bytes -= h.records[drop].Bytes()
	}
	next.floor += uint64(drop)
	if next.bytes > maxBytes { // the newest alone is too large
		next.floor, next.bytes = next.seq, 0
		return next
	}
	next.records = make([]*Record, 0, len(h.records)-drop+1)
	next.records = append(next.records, h.records[drop:]...)
	next.records = append(next.records, r)
	return next
}

// Seq is the number of the horizon: the stamp for what is loaded under it.
func (h *Horizon) Seq() uint64 { return h.seq }

// Floor is the lowest stamp that can still be fresh.
func (h *Horizon) Floor() uint64 { return h.floor }

// Bytes is what the records hold in memory.
func (h *Horizon) Bytes() int64 { return h.bytes }

// Fresh says whether a cell of the key, stamped so, may be used by a reader
// whose view has this horizon and whose generations do not know the key. This
// is the whole of C1.
func (h *Horizon) Fresh(stamp, hash uint64, key []byte) bool {
	if stamp >= h.seq {
		return true
	}
	if stamp < h.floor {
		return false
	}
	// Newest first: what changes often changed lately.
	for i := len(h.records) - 1; i >= int(stamp-h.floor); i-- {
		if h.records[i].Covers(hash, key) {
			return false
		}
	}
	return true
}
