package cache

import (
	"fmt"
	"time"
)

// maxHandOver is how long a shrinking L1 waits for L2 to take what leaves;
// then the rest is dropped.
const maxHandOver = 500 * time.Millisecond

// Resize gives the tiers new bounds, with all their overheads, while readers
// and loads go on; zero turns a tier off, and on again later. What shrinks does
// so before the other grows. L1 keeps what still fits and hands the rest on to
// L2. L2 begins anew unless its ring keeps its size in whole MiB: nothing of
// it is carried over, so it is a thing to do seldom. L1's admission counts with
// the precision that it was made with, see Options.MaxL1Bytes.
//
// The memory of an old ring goes when the collector finds it. After Close it
// does nothing.
func (c *Cache) Resize(l1Bytes, l2Bytes int64) error {
	c.resizing.Lock()
	defer c.resizing.Unlock()
	if c.closed.Load() {
		return nil
	}
	o := c.options
	o.L1Bytes, o.L2Bytes = l1Bytes, l2Bytes
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	// Gates first where they close: nothing too large for the new sizes is on
	// its way when they come. What was let in before is gated again by the tiers.
	c.admit(o.MaxEntry)
	c.queue.limit(o.queueBytes())
	if up := c.l1.Load(); up != nil && o.L1Bytes < up.capacity() {
		if err := c.setL1(o.L1Bytes); err != nil {
			return err
		}
	}
	if err := c.setL2(o.L2Bytes); err != nil {
		return err
	}
	return c.setL1(o.L1Bytes)
}

// admit sets the largest entry.
func (c *Cache) admit(maxEntry int64) {
	c.maxEntry.Store(maxEntry)
	c.codec.maxCell.Store(max(maxEntry, c.codec.maxCell.Load()))
}

// setL1 makes L1 so large. ristretto stays when the tier is off, empty: a
// reader may be inside it, and its Close would meet him.
func (c *Cache) setL1(size int64) error {
	up := c.l1.Load()
	if up != nil && size < up.fixed+l1LeastBytes {
		size = 0
	}
	switch {
	case up == nil && size == 0:
		return nil
	case up == nil:
		up, err := newL1(size, c.options.MaxL1Bytes, c.maxEntry.Load(), c.gone)
		if err != nil {
			return err
		}
		c.l1.Store(up)
		return nil
	case up.capacity() == size || size == 0 && up.off.Load():
		return nil
	}
	deadline := time.Now().Add(maxHandOver)
	up.resize(size, c.maxEntry.Load(), func(it *item) {
		for c.l2.Load() != nil && c.queue.full() && time.Now().Before(deadline) {
			time.Sleep(100 * time.Microsecond) // unlike a callback we may wait
		}
		c.gone(it, false)
	})
	return nil
}

// setL2 makes L2 so large, empty if its ring changes. Readers that are inside
// the old one end there; bigcache has no goroutine that would need an end
// before they do.
func (c *Cache) setL2(size int64) error {
	old := c.l2.Load()
	var was int64
	if old != nil {
		was = old.size
	}
	if size == was || size > 0 && was > 0 && !old.broken.Load() && ringOf(size, &c.codec) == old.ring {
		return nil
	}
	c.l2.Store(nil) // never both
	if old != nil {
		_ = old.close() // an error says that it was broken, which ends here
	}
	c.codec.size.Store(size)
	if size == 0 {
		c.codec.forget()
		return nil
	}
	low, err := newL2(size, c.options.Hash, &c.codec, c.policy)
	if err != nil {
		return fmt.Errorf("%w; the tier is off", err)
	}
	c.l2.Store(low)
	return nil
}

// upper is L1, nil if it is off.
func (c *Cache) upper() *l1 {
	if up := c.l1.Load(); up != nil && !up.off.Load() {
		return up
	}
	return nil
}

// haunt counts a miss that a larger tier might have answered.
func (c *Cache) haunt(up *l1, low *l2, hash uint64, key []byte) {
	if up != nil && up.ghost.Load().take(hash) {
		c.tally.add(cGhostL1)
	}
	if low != nil && low.ghost.take(low.hash.Sum64(view(key))) {
		c.tally.add(cGhostL2)
	}
}
