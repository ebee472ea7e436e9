package live

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Coherence checks O9 over the real caches: so many readers' reads in a case, at full
// speed, of keys that fit into no tier, while writers write on and flushes follow each
// other. No read may be older than what was acknowledged, or read, before it began.
// Zero reads are 100,000.
func Coherence(reads int) runner.Runner {
	if reads == 0 {
		reads = 100_000
	}
	return runner.Runner{
		Name:  "cache coherence",
		About: "no read from map, L1, L2 or L3 is older than one before it",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			c := &coherence{hands: newHands(ctx), seed: seed, reads: reads, versions: newVersions(coherenceKeys)}
			err := c.run()
			return c.counts, oracle.WithSeed(err, seed)
		},
	}
}

const (
	// coherenceKeys take about three times what L1 and L2 hold together at the least
	// budget, and more than a generation.
	coherenceKeys    = 16 << 10
	coherenceReaders = 4
	coherenceWriters = 2
	// block is how many neighbours are written together, in one batch; one block in
	// four is. The other keys are written one by one.
	block = 8
)

// coherence is one case under way.
type coherence struct {
	*hands
	seed     uint64
	reads    int
	e        *engine.Engine
	versions *versions
	snapshot atomic.Int64 // reads that snapshots answered
}

// versions of each key: one writer, and every eighth version is a delete, so that
// absence tells of a version, too.
type versions struct {
	*oracle.Versions
	issued []atomic.Uint64
}

func newVersions(keys int) *versions {
	return &versions{oracle.NewVersions(keys), make([]atomic.Uint64, keys)}
}

const deleteEvery = 8

func isDelete(version uint64) bool { return version%deleteEvery == 0 }

// end judges the answer to a read of key that began at floor: a version, or absence.
// Absence is any delete since floor; the oldest of them is all that was learned.
func (v *versions) end(key int, name []byte, floor, version uint64, absent bool) error {
	if absent {
		version = (floor + deleteEvery - 1) / deleteEvery * deleteEvery
	}
	if last := v.issued[key].Load(); version > last {
		if absent {
			return oracle.Broken(oracle.Stale, string(name), 0, "absent, but version %d was acknowledged or read before, and none since is a delete (%d)", floor, last)
		}
		return oracle.Broken(oracle.Lied, string(name), 0, "version %d, but only %d were written", version, last)
	}
	return v.End(key, string(name), floor, version)
}

func (c *coherence) run() (err error) {
	defer c.cancel()
	rnd := chance(c.seed, 0)
	d, err := newDisk(rnd, c.seed, true)
	if err != nil {
		return err
	}
	defer d.remove()
	if c.e, err = d.open(settings(rnd, c.seed)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.e.Close()) }()
	if err := c.fill(); err != nil {
		return err
	}
	before := c.e.Metrics().Cache
	for i := range coherenceReaders {
		c.share(func() error { return c.read(chance(c.seed, 10+i), c.reads/coherenceReaders) })
	}
	for i := range coherenceWriters {
		c.background(func() error { return c.write(i, chance(c.seed, 1+i)) })
	}
	c.background(func() error { return churn(c.hands, c.e, chance(c.seed, 100), excuseNone) })
	err = c.join()
	after := c.e.Metrics().Cache
	l1, l2, misses := after.L1Hits-before.L1Hits, after.L2Hits-before.L2Hits, after.Misses-before.Misses
	c.counts["l1 hits"] = int64(l1)
	c.counts["l2 hits"] = int64(l2)
	c.counts["l3 loads"] = int64(misses)
	// What is left; a reader whose view moved on asked twice, so it is a few more.
	c.counts["map hits"] = max(0, c.counts["reads"]-c.snapshot.Load()-int64(l1+l2+misses))
	c.counts["snapshot reads"] = c.snapshot.Load()
	c.counts["stale entries refused"] = int64(after.StaleL1 + after.StaleL2 - before.StaleL1 - before.StaleL2)
	c.counts["evictions"] = int64(after.Evictions - before.Evictions)
	return err
}

// fill writes version 1 of every key, so that L3 has something for the caches.
func (c *coherence) fill() error {
	for k := 0; k < coherenceKeys; {
		b := c.e.NewBatch()
		first := k
		for ; k < coherenceKeys && k < first+256; k++ {
			c.versions.issued[k].Store(1)
			if err := b.Put(coherenceKey(nil, k), versioned(nil, k, 1)); err != nil {
				return err
			}
		}
		_, err := c.e.Apply(b)
		b.Close()
		if err != nil {
			return fmt.Errorf("fill: %w", err)
		}
		for ; first < k; first++ {
			c.versions.Acked(first, 1)
		}
	}
	return nil
}

func coherenceKey(dst []byte, k int) []byte {
	const digits = "0123456789abcdef"
	return append(dst, 'k', 'e', 'y', '-', digits[k>>12&15], digits[k>>8&15], digits[k>>4&15], digits[k&15])
}

// versioned is the value of one version of a key: both numbers, then bytes that
// depend on both. One key in 64 is large enough for a pack.
func versioned(dst []byte, k int, version uint64) []byte {
	n := 40 + (k*37+int(version)*11)%240
	if k%64 == 5 {
		n = largeBytes + k%300
	}
	dst = binary.LittleEndian.AppendUint64(dst, version)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(k))
	x := version*0x9e3779b97f4a7c15 + uint64(k)
	for len(dst) < n {
		x ^= x >> 29
		x *= 0xbf58476d1ce4e5b9
		dst = binary.LittleEndian.AppendUint64(dst, x)
	}
	return dst[:n]
}

// unversioned is its reverse; whatever else is there is a wrong answer. scratch is a
// buffer to be used again.
func unversioned(scratch *[]byte, k int, v []byte) (uint64, error) {
	if len(v) >= 16 {
		version := binary.LittleEndian.Uint64(v)
		if *scratch = versioned((*scratch)[:0], k, version); string(v) == string(*scratch) {
			return version, nil
		}
	}
	return 0, oracle.Broken(oracle.Lied, string(coherenceKey(nil, k)), 0, "nobody wrote %.40q (%d bytes)", v, len(v))
}

// hotOrCold draws keys: most reads and writes go to few keys that wander through the
// key space, so that they meet in one tier after the other; the rest go anywhere.
type hotOrCold struct {
	rnd  *rand.Rand
	zipf *rand.Zipf
	at   int
}

func newHotOrCold(rnd *rand.Rand) *hotOrCold {
	return &hotOrCold{rnd: rnd, zipf: rand.NewZipf(rnd, 1.2, 20, coherenceKeys-1)}
}

func (h *hotOrCold) next() int {
	if h.rnd.IntN(4) == 0 {
		return h.rnd.IntN(coherenceKeys)
	}
	if h.rnd.IntN(4096) == 0 {
		h.at += h.rnd.IntN(64)
	}
	// Neighbours in rank are far from each other in key order.
	return (h.at + int(h.zipf.Uint64())*2654435761) % coherenceKeys
}

// write writes versions of the keys of one writer: even or odd blocks.
func (c *coherence) write(writer int, rnd *rand.Rand) error {
	keys := newHotOrCold(rnd)
	var value []byte
	for n := 0; c.going(); n++ {
		k := keys.next()
		if k/block%coherenceWriters != writer {
			continue
		}
		if err := c.writeOne(k, &value, rnd); err != nil {
			return fmt.Errorf("writer %d: %w", writer, err)
		}
		if rnd.IntN(8) == 0 {
			time.Sleep(time.Duration(rnd.IntN(400)) * time.Microsecond)
		}
	}
	return nil
}

// together says whether a key is always written with its whole block.
func together(k int) bool { return k/block/coherenceWriters%4 == 0 }

func (c *coherence) writeOne(k int, value *[]byte, rnd *rand.Rand) (err error) {
	first, n := k, 1
	if together(k) {
		first, n = k/block*block, block
	}
	version := c.versions.issued[first].Load() + 1
	for i := range n {
		c.versions.issued[first+i].Store(version)
	}
	switch key := coherenceKey(nil, first); {
	case isDelete(version) && (n > 1 || rnd.IntN(4) == 0):
		err = c.e.DeleteRange(key, append(coherenceKey(nil, first+n-1), 0))
	case isDelete(version):
		err = c.e.Delete(key)
	case n == 1:
		*value = versioned((*value)[:0], k, version)
		err = c.e.Put(key, *value)
	default:
		b := c.e.NewBatch()
		defer b.Close()
		for i := range n {
			*value = versioned((*value)[:0], first+i, version)
			if err := b.Put(coherenceKey(nil, first+i), *value); err != nil {
				return err
			}
		}
		_, err = c.e.Apply(b)
	}
	if err != nil {
		return err
	}
	for i := range n {
		c.versions.Acked(first+i, version)
	}
	c.count("writes", 1)
	return nil
}

// read makes n reads, in each of the ways there are.
func (c *coherence) read(rnd *rand.Rand, n int) error {
	r := reader{coherence: c, rnd: rnd, keys: newHotOrCold(rnd)}
	for r.done < n && c.going() {
		if err := r.some(); err != nil {
			return err
		}
		if rnd.IntN(16) == 0 {
			runtime.Gosched()
		}
	}
	c.count("reads", int64(r.done))
	return nil
}
