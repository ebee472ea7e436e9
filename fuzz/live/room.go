package live

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Room checks O9 on the cache room alone, over a store as small as it can be: one
// active generation, at most one frozen, L3 as an immutable table. Hashes collide,
// tiers are missing, records are forgotten, loads fail and take their time. Zero
// reads are 100,000.
func Room(reads int) runner.Runner {
	if reads == 0 {
		reads = 100_000
	}
	return runner.Runner{
		Name:  "cache room",
		About: "no read of the caches alone is old, with hashes that collide",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			r := &room{hands: newHands(ctx), seed: seed, reads: reads, versions: newVersions(roomKeys)}
			err := r.run()
			return r.counts, oracle.WithSeed(err, seed)
		},
	}
}

const roomKeys = 6000

type (
	roomTable [roomKeys]uint64 // versions
	roomGen   [roomKeys]atomic.Uint64
	roomView  struct {
		active, frozen *roomGen // frozen may be nil
		horizon        *cache.Horizon
		base           *roomTable
	}
)

type room struct {
	*hands
	seed        uint64
	reads       int
	versions    *versions
	cache       *cache.Cache
	keyHash     func(k int) uint64
	recordBytes int64

	rotation sync.RWMutex // writers share it; a rotation waits for them
	view     atomic.Pointer[roomView]
	live     atomic.Pointer[roomTable] // what L3 has by now
}

type roomReader struct {
	*room
	rnd     *rand.Rand
	zipf    *rand.Zipf
	scratch []byte
	peeks   int64
	maps    int64
}

func (r *room) run() (err error) {
	defer r.cancel()
	rnd := chance(r.seed, 0)
	// Every second seed has both tiers and spreads keys well.
	o := cache.Options{L1Bytes: 1 << 20, L2Bytes: 1 << 20}
	spread := rnd.Uint64() | 1
	r.keyHash = func(k int) uint64 { return mixed(uint64(k) ^ spread) }
	if n := rnd.IntN(8); r.seed%2 == 0 {
		switch {
		case n == 0:
			o.L1Bytes = 0
		case n == 1:
			o.L2Bytes = 0
		}
		if few := uint64(100 + rnd.IntN(2000)); n != 2 {
			r.keyHash = func(k int) uint64 { return mixed(uint64(k)%few ^ spread) }
		}
		few := uint64(1 + rnd.IntN(500))
		o.Hash = func(key string) uint64 { return mixed(uint64(key[len(key)-1])<<8|uint64(key[len(key)-2])) % few }
	}
	r.recordBytes = []int64{0, 5 << 10, 20 << 10, 1 << 20}[rnd.IntN(4)]
	if r.cache, err = cache.New(o); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.cache.Close()) }()
	r.live.Store(&roomTable{})
	r.view.Store(&roomView{active: &roomGen{}, horizon: cache.NewHorizon(rnd.Uint64N(1000)), base: r.live.Load()})
	const readers, writers = 4, 2
	for i := range readers {
		r.share(func() error {
			rr := roomReader{room: r, rnd: chance(r.seed, 10+i)}
			rr.zipf = rand.NewZipf(rr.rnd, 1.1, 10, roomKeys-1)
			return rr.readAll(r.reads / readers)
		})
	}
	for i := range writers {
		r.background(func() error { return r.write(i, writers, chance(r.seed, 1+i)) })
	}
	r.background(func() error { return r.flushes(chance(r.seed, 100)) })
	err = r.join()
	m := r.cache.Metrics()
	r.counts["l1 hits"] = int64(m.L1Hits)
	r.counts["l2 hits"] = int64(m.L2Hits)
	r.counts["l3 loads"] = int64(m.Loads)
	r.counts["joined loads"] = int64(m.Joins)
	r.counts["collisions"] = int64(m.Collisions)
	r.counts["stale entries refused"] = int64(m.StaleL1 + m.StaleL2)
	return err
}

func mixed(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// roomCell is the cell of a version; deletes have none.
func roomCell(k int, version uint64) []byte {
	if isDelete(version) {
		return nil
	}
	return versioned(nil, k, version)
}

func (r *room) write(writer, writers int, rnd *rand.Rand) error {
	zipf := rand.NewZipf(rnd, 1.1, 10, roomKeys-1)
	for n := int64(0); ; n++ {
		if !r.going() {
			r.count("writes", n)
			return nil
		}
		k := int(zipf.Uint64())/writers*writers + writer
		if k >= roomKeys {
			continue
		}
		r.rotation.RLock()
		version := r.versions.issued[k].Add(1)
		r.view.Load().active[k].Store(version)
		r.rotation.RUnlock()
		r.versions.Acked(k, version)
		if rnd.IntN(2) == 0 {
			time.Sleep(time.Duration(rnd.IntN(100)) * time.Microsecond)
		}
	}
}

// flushes freezes, ingests, swaps and offers, over and over.
func (r *room) flushes(rnd *rand.Rand) error {
	for r.going() {
		r.flush(rnd)
		r.count("flushes", 1)
		time.Sleep(time.Duration(rnd.IntN(3000)) * time.Microsecond)
	}
	return nil
}

func (r *room) flush(rnd *rand.Rand) {
	r.rotation.Lock()
	old := r.view.Load()
	r.view.Store(&roomView{active: &roomGen{}, frozen: old.active, horizon: old.horizon, base: old.base})
	r.rotation.Unlock()

	next := *old.base
	var hashes []uint64
	var ranges []cache.KeyRange
	var flushed []int
	asRanges := rnd.IntN(4) == 0
	for k := range roomKeys {
		v := old.active[k].Load()
		if v == 0 {
			continue
		}
		next[k] = v
		flushed = append(flushed, k)
		if key := coherenceKey(nil, k); asRanges && isDelete(v) {
			ranges = append(ranges, cache.KeyRange{Lower: key, Upper: append(slices.Clone(key), 0)})
		} else {
			hashes = append(hashes, r.keyHash(k))
		}
	}
	breathe(rnd)
	r.live.Store(&next) // ingest
	breathe(rnd)
	var record *cache.Record
	if rnd.IntN(20) != 0 { // a generation that left no record at all
		record = cache.NewRecord(slices.Values(hashes), len(hashes), ranges)
	}
	h := old.horizon.Push(record, r.recordBytes)
	r.view.Store(&roomView{active: r.view.Load().active, horizon: h, base: &next})
	for _, k := range flushed {
		if rnd.IntN(2) == 0 {
			r.cache.Offer(h, r.keyHash(k), coherenceKey(nil, k), roomCell(k, next[k]))
		}
	}
}

func (r *roomReader) readAll(n int) error {
	var err error
	done := 0
	for ; done < n && r.going() && err == nil; done++ {
		err = r.one(int(r.zipf.Uint64()))
		if done%64 == 0 {
			runtime.Gosched()
		}
	}
	r.count("reads", int64(done))
	r.count("map hits", r.maps)
	r.count("peeks", r.peeks)
	return err
}

// one is one read, in the order of the engine's: map, caches, load.
func (r *roomReader) one(k int) error {
	key, hash := coherenceKey(nil, k), r.keyHash(k)
	floor := r.versions.Begin(k)
	v := r.view.Load()
	for _, g := range []*roomGen{v.active, v.frozen} {
		if g == nil {
			continue
		}
		if version := g[k].Load(); version != 0 {
			r.maps++
			if r.rnd.IntN(16) == 0 {
				r.cache.Touch(hash)
			}
			return r.versions.end(k, key, floor, version, isDelete(version))
		}
	}
	if r.rnd.IntN(16) == 0 {
		if cell, ok := r.cache.Peek(v.horizon, hash, key); ok {
			r.peeks++
			if err := r.judge(k, key, floor, cell, "peek"); err != nil {
				return err
			}
		}
	}
	if r.rnd.IntN(64) == 0 {
		breathe(r.rnd) // a flush may pass between the view and the caches
	}
	cell, tier := r.cache.Get(v.horizon, hash, key)
	if tier == cache.Miss {
		tier = cache.Load
		var err error
		cell, err = r.cache.Load(v.horizon, hash, key, func() ([]byte, error) { return r.load(v, k) })
		if errors.Is(err, errLoad) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return r.judge(k, key, floor, cell, tier.String())
}

var errLoad = errors.New("live: a load that fails")

// load reads L3 as the view has it, or later: both are allowed.
func (r *roomReader) load(v *roomView, k int) ([]byte, error) {
	table := v.base
	if r.rnd.IntN(2) == 0 {
		table = r.live.Load()
	}
	cell := roomCell(k, table[k])
	switch r.rnd.IntN(128) {
	case 0:
		time.Sleep(time.Duration(r.rnd.IntN(300)) * time.Microsecond)
	case 1:
		return nil, errLoad
	}
	return cell, nil
}

func (r *roomReader) judge(k int, key []byte, floor uint64, cell []byte, how string) error {
	if cell == nil {
		return named(how, r.versions.end(k, key, floor, 0, true))
	}
	version, err := unversioned(&r.scratch, k, cell)
	if err != nil {
		return named(how, err)
	}
	return named(how, r.versions.end(k, key, floor, version, false))
}

// named says in a verdict in which way a read was made.
func named(how string, err error) error {
	if v := (*oracle.Verdict)(nil); errors.As(err, &v) {
		v.What = how + ": " + v.What
	}
	return err
}
