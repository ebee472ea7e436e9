package engine

import (
	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/storage"
)

// view is what one moment looks like: the generations, newest first, and under
// them one snapshot of L3 with the horizon that caches are checked against.
// Immutable; readers load the pointer once and keep to what they got (I8).
type view struct {
	active  *cow.Generation
	frozen  []frozen // newest first
	base    *storage.Snapshot
	horizon *cache.Horizon
	known   *cache.Filter // has every key of base; nil: nobody knows
}

// frozen is a generation that gets no more cells, with the last commit number it
// holds.
type frozen struct {
	*cow.Generation
	last uint64
}

// get looks in the generations, newest first (I1). Unknown means that base and the
// caches in front of it decide.
func (v *view) get(hash uint64, key []byte, at uint64) (cow.Cell, cow.Found) {
	c, f := v.active.Get(hash, key, at)
	for i := 0; f == cow.Unknown && i < len(v.frozen); i++ {
		c, f = v.frozen[i].Get(hash, key, at)
	}
	return c, f
}

// generations lists them newest first.
func (v *view) generations() []*cow.Generation {
	return v.addGenerations(make([]*cow.Generation, 0, 1+len(v.frozen)))
}

func (v *view) addGenerations(to []*cow.Generation) []*cow.Generation {
	to = append(to, v.active)
	for _, f := range v.frozen {
		to = append(to, f.Generation)
	}
	return to
}

// rotated freezes the active generation at last and begins next. Only a leader
// calls it, between groups: every cell at or below last is placed and published,
// and nothing above last is placed.
func (v *view) rotated(next *cow.Generation, last uint64) *view {
	return &view{
		active:  next,
		frozen:  append([]frozen{{v.active, last}}, v.frozen...),
		base:    v.base,
		horizon: v.horizon,
		known:   v.known,
	}
}

// without lets the oldest frozen generation go, for its record and the L3 that
// has its cells. One swap brings all three (I5, I8).
func (v *view) without(base *storage.Snapshot, record *cache.Record, recordBytes int64) *view {
	return &view{
		active:  v.active,
		frozen:  v.frozen[: len(v.frozen)-1 : len(v.frozen)-1],
		base:    base,
		horizon: v.horizon.Push(record, recordBytes),
		known:   v.known,
	}
}

// oldest is the next generation to flush.
func (v *view) oldest() (frozen, bool) {
	if len(v.frozen) == 0 {
		return frozen{}, false
	}
	return v.frozen[len(v.frozen)-1], true
}

// bytes is what the generations keep allocated.
func (v *view) bytes() (n int64) {
	for _, g := range v.generations() {
		n += g.Bytes()
	}
	return n
}
