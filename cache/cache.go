package cache

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/holdfastdb/holdfast/yield"
)

// Options size the tiers. None of them changes a result. The defaults, and
// half of the memory for each tier, are by docs/decisions/0011.
type Options struct {
	// L1Bytes bounds L1 with all its overheads. Below 512 KiB the tier is off.
	L1Bytes int64
	// L2Bytes bounds L2; three quarters are its ring, allocated at New, the
	// rest is for its maps. Below 1 MiB, which is bigcache's granule, the tier
	// is off.
	L2Bytes int64
	// MaxL1Bytes is the most that Resize will give L1, which sizes the counters of its
	// admission: grown beyond it, it admits worse. Zero is L1Bytes.
	MaxL1Bytes int64
	// MaxEntry is the largest key and cell together that is cached. Larger
	// means that single cells push out many small ones. Zero is 64 KiB or a
	// sixteenth of the smaller tier that is on, whichever is less.
	MaxEntry int64
	// Policy is what enters L2.
	Policy Policy
	// Codec is how L2 holds cells. Zero measures what pays.
	Codec Codec

	// Hash is for tests: how L2 spreads keys. Nil is a hash of this process's own
	// seed; one that collides costs misses (C5).
	Hash func(key string) uint64
}

func (o Options) withDefaults() (Options, error) {
	if o.Policy > PolicyProbation {
		return o, fmt.Errorf("cache: no such policy: %d", o.Policy)
	}
	if o.Codec > CodecS2 {
		return o, fmt.Errorf("cache: no such codec: %d", o.Codec)
	}
	if o.L1Bytes < 0 || o.L2Bytes < 0 || o.MaxL1Bytes < 0 || o.MaxEntry < 0 {
		return o, fmt.Errorf("cache: negative option: L1Bytes %d, L2Bytes %d, MaxL1Bytes %d, MaxEntry %d", o.L1Bytes, o.L2Bytes, o.MaxL1Bytes, o.MaxEntry)
	}
	if o.L1Bytes < minL1Bytes {
		o.L1Bytes = 0
	}
	if o.L2Bytes < minL2Bytes {
		o.L2Bytes = 0
	}
	smaller := max(o.L1Bytes, o.L2Bytes)
	if o.L1Bytes > 0 && o.L2Bytes > 0 {
		smaller = min(o.L1Bytes, o.L2Bytes)
	}
	limit := min(64<<10, smaller/16)
	if o.MaxEntry == 0 {
		o.MaxEntry = limit
	}
	// An entry that is a large part of a tier is never worth its place.
	o.MaxEntry = min(o.MaxEntry, max(smaller/4, 0))
	return o, nil
}

// queueBytes bounds what is between the tiers.
func (o Options) queueBytes() int64 { return max(o.L2Bytes/16, 2*o.MaxEntry) }

// Tier says where an answer came from.
type Tier uint8

const (
	Miss Tier = iota
	L1
	L2
	Load // not returned by Get; for callers that report where a read ended
)

func (t Tier) String() string {
	switch t {
	case Miss:
		return "miss"
	case L1:
		return "L1"
	case L2:
		return "L2"
	case Load:
		return "load"
	}
	return fmt.Sprintf("tier(%d)", uint8(t))
}

// Cache is the two tiers behind the stamp rule. All methods may be called by
// any number of goroutines.
type Cache struct {
	l1       atomic.Pointer[l1] // nil: never was on
	l2       atomic.Pointer[l2] // nil: off
	maxEntry atomic.Int64
	tally    tally
	flights  flights
	queue    queue
	codec    codec
	policy   Policy
	keys     sync.Pool // of *[]byte: the keys of promotions on their way

	// gate keeps Close apart from whoever sends to ristretto's queue: a Set or
	// Del that meets its Close panics. Hits do not take it.
	gate   sync.RWMutex
	closed atomic.Bool

	resizing sync.Mutex // one Resize at a time
	options  Options    // as New was given them
}

// New makes an empty cache. It starts one goroutine of its own, and now and
// then another that trains a dictionary.
func New(o Options) (*Cache, error) {
	c := &Cache{options: o}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c.admit(o.MaxEntry)
	c.codec.mode, c.policy = o.Codec, o.Policy
	if err := c.setL2(o.L2Bytes); err != nil {
		return nil, err
	}
	// Started before L1, whose callbacks push to it.
	c.queue.start(c.drain)
	c.queue.limit(o.queueBytes())
	if err := c.setL1(o.L1Bytes); err != nil {
		c.queue.close()
		return nil, err
	}
	return c, nil
}

// Get looks in L1, then in L2, for a cell that a reader with this horizon may
// use. The reader has searched the generations of the same view before, and
// they do not know the key (C1). A nil cell with a tier other than Miss is an
// absence that is known. The cell must not be modified.
func (c *Cache) Get(h *Horizon, hash uint64, key []byte) (cell []byte, tier Tier) {
	if c.closed.Load() {
		return nil, Miss
	}
	up := c.upper()
	if up != nil {
		if it := up.get(hash); it != nil {
			if c.usable(h, it, hash, key) {
				it.restamp(h.Seq())
				it.touch()
				c.tally.add(cL1Hit)
				return it.cell, L1
			}
		}
	}
	low := c.l2.Load()
	if low != nil {
		low.use(hash)
		if stamp, entry, ok := low.find(view(key)); ok {
			if !h.Fresh(stamp, hash, key) {
				c.tally.add(cStaleL2)
			} else if cell, err := c.codec.decode(entry); err != nil {
				c.tally.add(cUndecoded)
			} else {
				c.tally.add(cL2Hit)
				if up != nil && up.ghost.Load().take(hash) {
					c.tally.add(cGhostL1InL2)
				}
				c.promote(h, hash, key, cell)
				return cell, L2
			}
		}
	}
	c.tally.add(cMiss)
	c.haunt(up, low, hash, key)
	return nil, Miss
}

// usable is C1 and C5 for an item of L1.
func (c *Cache) usable(h *Horizon, it *item, hash uint64, key []byte) bool {
	if !it.holds(key) {
		c.tally.add(cCollision)
		return false
	}
	if !h.Fresh(it.stamp.Load(), hash, key) {
		c.tally.add(cStaleL1)
		return false
	}
	return true
}

// Load is for a miss: it calls load, keeps the result under h.Seq() and
// returns it. A load of the same key that is in flight is joined, but only if
// its stamp is fresh under h: one that began under an older view may bring
// what a generation dropped since has replaced.
//
// load returns (nil, nil) for an absent key and gives its slice away. The cell
// must not be modified. An error is the caller's alone: nothing is kept, and
// those who joined load for themselves.
func (c *Cache) Load(h *Horizon, hash uint64, key []byte, load func() ([]byte, error)) ([]byte, error) {
	f := &flight{stamp: h.Seq(), key: string(key), done: make(chan struct{})}
	for other := c.flights.get(hash); ; {
		if other != nil && other.key == f.key && h.Fresh(other.stamp, hash, key) {
			c.tally.add(cJoin)
			<-other.done
			if other.ok {
				return other.cell, nil
			}
			c.tally.add(cLoad)
			return load()
		}
		if other = c.flights.lead(hash, f, other); other == nil {
			break
		}
	}
	defer c.flights.land(hash, f) // also when load panics

	c.tally.add(cLoad)
	yield.Point("cache.load")
	cell, err := load()
	yield.Point("cache.loaded")
	if err != nil {
		return nil, err
	}
	up, low := c.upper(), c.l2.Load()
	switch first := c.first(up, low); {
	case int64(len(key)+len(cell)) > c.maxEntry.Load():
		c.tally.add(cRefused)
	case !first && low != nil && !low.admits(hash):
		c.tally.add(cBarred)
	default:
		cell = own(cell)
		c.fill(first, newItem(f.stamp, hash, f.key, cell))
	}
	f.cell, f.ok = cell, true
	return cell, nil
}

// fill offers a loaded item to the tier where the policy wants it first.
func (c *Cache) fill(first bool, it *item) {
	if first && c.put(it) || !first && c.queue.push(job{victim: it}) {
		c.tally.add(cFill)
	} else {
		c.tally.add(cRefused)
	}
}

func (c *Cache) put(it *item) bool {
	c.gate.RLock()
	defer c.gate.RUnlock()
	up := c.upper()
	return up != nil && !c.closed.Load() && up.put(it)
}

// Peek is for snapshots and scans: the cell if it is here and passes the
// check, and nothing else. It fills nothing, moves nothing, counts nothing as
// a hit, and an absence is not an answer (it has no revision to compare).
func (c *Cache) Peek(h *Horizon, hash uint64, key []byte) (cell []byte, ok bool) {
	if c.closed.Load() {
		return nil, false
	}
	// has first: a scan over cold keys must not buy them admission.
	if up := c.upper(); up != nil && up.has(hash) {
		if it := up.get(hash); it != nil && it.cell != nil && c.usable(h, it, hash, key) {
			return it.cell, true
		}
	}
	if low := c.l2.Load(); low != nil {
		if stamp, entry, ok := low.find(view(key)); ok && h.Fresh(stamp, hash, key) {
			if cell, err := c.codec.decode(entry); err == nil && cell != nil {
				return cell, true
			}
		}
	}
	return nil, false
}

// Warm says whether L1 would take anything that is offered.
func (c *Cache) Warm() bool {
	up := c.upper()
	return up != nil && (up.cache.RemainingCost() < up.cache.MaxCost() || up.touched.any())
}

// Offer is for the flush, after its swap, and for the hit ratio only: where L1 holds
// the key, or a Touch told of it since the last Offer, L1 gets the cell that went down. h
// is the horizon of that swap. A nil cell is an absence. The slice is copied.
func (c *Cache) Offer(h *Horizon, hash uint64, key, cell []byte) {
	up := c.upper()
	if up == nil || c.closed.Load() || int64(len(key)+len(cell)) > c.maxEntry.Load() {
		return
	}
	if touched := up.touched.take(hash); up.has(hash) {
		if it := up.get(hash); it == nil || !it.holds(key) || it.stamp.Load() >= h.Seq() {
			return
		}
	} else if !touched {
		return
	}
	var kept []byte
	if cell != nil {
		kept = append(make([]byte, 0, len(cell)), cell...)
	}
	if c.put(newItem(h.Seq(), hash, string(key), kept)) {
		c.tally.add(cOffered)
	}
}

// Touch tells L1's admission sketch of a use that another room served, so that
// the hottest keys are no strangers when their generation goes down.
func (c *Cache) Touch(hash uint64) {
	if up := c.upper(); up != nil && !c.closed.Load() {
		up.get(hash)
		up.touched.set(hash)
	}
}

// promote hands a cell that L2 served to the drain goroutine, stamped anew:
// h just found it fresh (C3).
func (c *Cache) promote(h *Horizon, hash uint64, key, cell []byte) {
	if c.upper() == nil {
		return
	}
	k, _ := c.keys.Get().(*[]byte)
	if k == nil {
		k = new([]byte)
	}
	*k = append((*k)[:0], key...)
	if !c.queue.push(job{key: k, cell: cell, hash: hash, stamp: h.Seq()}) {
		c.keys.Put(k)
		c.tally.add(cDropped)
	}
}

// gone is ristretto's callback: the item goes on to L2, stamp and all.
func (c *Cache) gone(it *item, rejected bool) {
	if c.closed.Load() {
		return
	}
	if rejected {
		c.tally.add(cRejected)
	} else {
		c.tally.add(cEvicted)
	}
	if up := c.l1.Load(); up != nil { // nil: New has not returned
		up.ghost.Load().add(it.hash, it.cost())
	}
	if low := c.l2.Load(); low != nil && c.down(low, it, rejected) && !c.queue.push(job{victim: it}) {
		c.tally.add(cDropped)
	}
}

// drain runs on the one goroutine of the queue.
func (c *Cache) drain(j job) {
	yield.Point("cache.drain")
	if j.victim != nil {
		if low := c.l2.Load(); low != nil && low.set(j.victim) {
			c.tally.add(cVictim)
		} else {
			c.tally.add(cDropped)
		}
		return
	}
	defer c.keys.Put(j.key)
	if up := c.upper(); up != nil && up.has(j.hash) {
		if it := up.get(j.hash); it != nil && it.holds(*j.key) && it.stamp.Load() >= j.stamp {
			return // another reader was faster
		}
	}
	it := newItem(j.stamp, j.hash, string(*j.key), own(j.cell)) // without the padding of a tiny one
	it.low = true
	if c.put(it) {
		c.tally.add(cPromoted)
	} else {
		c.tally.add(cDropped)
	}
}

// Close ends the goroutines and lets the memory go. It is idempotent, and is
// called after every user has left; whoever comes later finds nothing.
func (c *Cache) Close() error {
	c.resizing.Lock()
	defer c.resizing.Unlock()
	c.gate.Lock()
	if c.closed.Swap(true) {
		c.gate.Unlock()
		return nil
	}
	c.gate.Unlock()
	// The queue first: its goroutine may still be putting items up, and from
	// now on the callbacks of L1 hand nothing over.
	c.queue.close()
	c.codec.close()
	if up := c.l1.Load(); up != nil {
		up.cache.Close()
	}
	if low := c.l2.Load(); low != nil {
		return low.close()
	}
	return nil
}
