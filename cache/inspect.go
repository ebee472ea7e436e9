package cache

// Held is what one tier holds of a key.
type Held struct {
	On    bool   // the tier is there
	Has   bool   // it holds the key; else the fields below are zero
	Cell  []byte // nil: the key is known to be absent. It must not be modified
	Stamp uint64
	Fresh bool // the stamp passes the check (C1)
}

// Inspect says what L1 and L2 hold of a key, stale or not. It leaves no trace: nothing
// moves, nothing is counted, and the key gets no credit for its admission. Only a look
// through all of L1 gives no credit, so this is for people and not for reads.
func (c *Cache) Inspect(h *Horizon, hash uint64, key []byte) (upper, lower Held) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	if c.closed.Load() {
		return upper, lower
	}
	see := func(in *Held, stamp uint64, cell []byte) {
		in.Has, in.Cell, in.Stamp, in.Fresh = true, cell, stamp, h.Fresh(stamp, hash, key)
	}
	if upper.On = c.l1 != nil; upper.On && c.l1.has(hash) {
		c.l1.cache.IterValues(func(it *item) bool {
			if it == nil || it.hash != hash || !it.holds(key) {
				return false
			}
			see(&upper, it.stamp.Load(), it.cell)
			return true
		})
	}
	if lower.On = c.l2 != nil; lower.On {
		if stamp, cell, ok := c.l2.get(string(key)); ok {
			see(&lower, stamp, cell)
		}
	}
	return upper, lower
}
