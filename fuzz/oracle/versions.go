package oracle

import "sync/atomic"

// Versions checks O9 in constant time per read, for any number of readers and
// writers: a value carries its version, and versions of a key only grow. It is the
// long-run form of O7 for keys with one writer each.
type Versions struct{ floor []atomic.Uint64 }

// NewVersions is for keys 0 to keys-1, all at version 0: absent.
func NewVersions(keys int) *Versions { return &Versions{make([]atomic.Uint64, keys)} }

// Acked notes that a write of version v to key was acknowledged.
func (o *Versions) Acked(key int, v uint64) { o.raise(key, v) }

// Begin is called before a read of key, and returns what its answer is compared with.
func (o *Versions) Begin(key int) (floor uint64) { return o.floor[key].Load() }

// End is called with what the read returned. Later reads may not be older.
func (o *Versions) End(key int, name string, floor, v uint64) error {
	if v < floor {
		return Broken(Stale, name, 0, "version %d, but %d was acknowledged or read before", v, floor)
	}
	o.raise(key, v)
	return nil
}

func (o *Versions) raise(key int, v uint64) {
	for f := &o.floor[key]; ; {
		now := f.Load()
		if now >= v || f.CompareAndSwap(now, v) {
			return
		}
	}
}
