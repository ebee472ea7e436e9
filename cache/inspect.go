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
	up, low := c.upper(), c.l2.Load()
	if upper.On = up != nil; upper.On && up.has(hash) {
		up.cache.IterValues(func(it *item) bool {
			if it == nil || it.hash != hash || !it.holds(key) {
				return false
			}
			see(&upper, it.stamp.Load(), it.cell)
			return true
		})
	}
	if lower.On = low != nil; lower.On {
		if stamp, entry, ok := low.find(view(key)); ok {
			if cell, err := c.codec.decode(entry); err == nil { // else no read has it either
				see(&lower, stamp, cell)
			}
		}
	}
	return upper, lower
}
