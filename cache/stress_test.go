package cache

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A store around the cache, as small as it can be: one active generation, at
// most one frozen, storage as an immutable table. Values are versions; every
// eighth is a delete.

const stressKeys = 4000

type stressGen struct{ versions [stressKeys]atomic.Uint64 }

type stressTable [stressKeys]uint64

type stressView struct {
	active, frozen *stressGen
	horizon        *Horizon
	snap           *stressTable
}

type stressStore struct {
	t      *testing.T
	cache  *Cache
	hash   func(k int) uint64
	rotate sync.RWMutex // writers share it; a rotation waits for them
	view   atomic.Pointer[stressView]
	live   atomic.Pointer[stressTable]
	issued [stressKeys]atomic.Uint64
	acked  [stressKeys]atomic.Uint64
	failed atomic.Pointer[string]
	reads  [4]atomic.Uint64
}

func stressKey(k int) []byte { return fmt.Appendf(nil, "key-%06d", k) }

func isDelete(version uint64) bool { return version%8 == 0 }

func stressCell(k int, version uint64) []byte {
	if isDelete(version) {
		return nil
	}
	cell := make([]byte, 100+k%7*90)
	binary.LittleEndian.PutUint64(cell, version)
	binary.LittleEndian.PutUint64(cell[8:], uint64(k))
	cell[len(cell)-1] = byte(version)
	return cell
}

func raise(a *atomic.Uint64, v uint64) {
	for old := a.Load(); old < v && !a.CompareAndSwap(old, v); old = a.Load() {
	}
}

func (s *stressStore) put(k int) {
	s.rotate.RLock()
	v := s.issued[k].Add(1)
	raise(&s.view.Load().active.versions[k], v)
	s.rotate.RUnlock()
	raise(&s.acked[k], v)
}

// check says whether a read that began when low was acknowledged may return
// the cell.
func (s *stressStore) check(k int, low uint64, cell []byte, how string) {
	if cell == nil {
		for v := low; v <= s.issued[k].Load(); v++ {
			if isDelete(v) {
				return
			}
		}
		s.fail("%s: key %d: absent, version %d was acknowledged", how, k, low)
		return
	}
	v := binary.LittleEndian.Uint64(cell)
	if int(binary.LittleEndian.Uint64(cell[8:])) != k || cell[len(cell)-1] != byte(v) {
		s.fail("%s: key %d: cell of another key", how, k)
	}
	if v < low {
		s.fail("%s: key %d: version %d, but %d was acknowledged", how, k, v, low)
	}
}

func (s *stressStore) fail(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	s.failed.CompareAndSwap(nil, &msg)
}

func (s *stressStore) get(r *rand.Rand, k int) {
	key, hash := stressKey(k), s.hash(k)
	low := s.acked[k].Load()
	v := s.view.Load()
	for _, g := range []*stressGen{v.active, v.frozen} {
		if g == nil {
			continue
		}
		if ver := g.versions[k].Load(); ver != 0 {
			if r.IntN(16) == 0 {
				s.cache.Touch(hash)
			}
			s.check(k, low, stressCell(k, ver), "map")
			return
		}
	}
	if r.IntN(16) == 0 {
		if cell, ok := s.cache.Peek(v.horizon, hash, key); ok {
			s.check(k, low, cell, "peek")
		}
	}
	if r.IntN(32) == 0 {
		runtime.Gosched() // let a flush pass between the view and the caches
	}
	cell, tier := s.cache.Get(v.horizon, hash, key)
	if tier == Miss {
		tier = Load
		var err error
		cell, err = s.cache.Load(v.horizon, hash, key, func() ([]byte, error) {
			table := v.snap
			if r.IntN(2) == 0 {
				table = s.live.Load()
			}
			cell := stressCell(k, table[k])
			if r.IntN(64) == 0 {
				time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
			}
			return cell, nil
		})
		if err != nil {
			s.fail("load: %v", err)
		}
	}
	s.reads[tier].Add(1)
	s.check(k, low, cell, tier.String())
}

func (s *stressStore) flush(r *rand.Rand) {
	s.rotate.Lock()
	old := s.view.Load()
	s.view.Store(&stressView{active: &stressGen{}, frozen: old.active, horizon: old.horizon, snap: old.snap})
	s.rotate.Unlock()

	next := *old.snap
	var hashes []uint64
	var ranges []KeyRange
	var flushed []int
	asRanges := r.IntN(4) == 0
	for k := range stressKeys {
		v := old.active.versions[k].Load()
		if v == 0 {
			continue
		}
		next[k] = v
		flushed = append(flushed, k)
		if asRanges {
			key := stressKey(k)
			ranges = append(ranges, KeyRange{Lower: key, Upper: append(slices.Clone(key), 0)})
		} else {
			hashes = append(hashes, s.hash(k))
		}
	}
	s.live.Store(&next) // ingest
	time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)

	h := old.horizon.Push(NewRecord(slices.Values(hashes), len(hashes), ranges), 20<<10)
	s.view.Store(&stressView{active: s.view.Load().active, horizon: h, snap: &next})
	for _, k := range flushed {
		if r.IntN(2) == 0 {
			s.cache.Offer(h, s.hash(k), stressKey(k), stressCell(k, next[k]))
		}
	}
}

func stress(t *testing.T, o Options, hash func(k int) uint64, d time.Duration, resize bool) Metrics {
	c, err := New(o)
	require.NoError(t, err)
	s := &stressStore{t: t, cache: c, hash: hash}
	s.live.Store(&stressTable{})
	s.view.Store(&stressView{active: &stressGen{}, horizon: NewHorizon(0), snap: s.live.Load()})

	var wg sync.WaitGroup
	stop := make(chan struct{})
	run := func(seed uint64, step func(r *rand.Rand, z *rand.Zipf)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(seed, 9))
			z := rand.NewZipf(r, 1.1, 8, stressKeys-1)
			for s.failed.Load() == nil {
				select {
				case <-stop:
					return
				default:
					step(r, z)
				}
			}
		}()
	}
	for i := range uint64(4) {
		run(i, func(r *rand.Rand, z *rand.Zipf) {
			for range 32 {
				s.get(r, int(z.Uint64()))
			}
		})
	}
	for i := range uint64(2) {
		run(10+i, func(r *rand.Rand, z *rand.Zipf) {
			s.put(int(z.Uint64()))
			time.Sleep(time.Duration(r.IntN(100)) * time.Microsecond)
		})
	}
	run(20, func(r *rand.Rand, _ *rand.Zipf) {
		s.flush(r)
		time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
	})
	if resize {
		run(30, func(r *rand.Rand, _ *rand.Zipf) {
			// The bounds move, each tier goes off and on, and both at once.
			l1 := []int64{0, 1 << 20, 2 << 20, 3 << 20}[r.IntN(4)]
			l2 := []int64{0, 1 << 20, 3 << 20, 16 << 20}[r.IntN(4)]
			if err := s.cache.Resize(l1, l2); err != nil {
				s.fail("resize: %v", err)
			}
			if c := s.cache.Metrics(); c.L1Capacity > l1 || c.L2Capacity > max(l2, 1<<20) {
				s.fail("capacities %d and %d, asked for %d and %d", c.L1Capacity, c.L2Capacity, l1, l2)
			}
			time.Sleep(time.Duration(r.IntN(20_000)) * time.Microsecond)
		})
	}
	time.Sleep(d)
	close(stop)
	wg.Wait()
	m := c.Metrics()
	require.NoError(t, c.Close())
	if msg := s.failed.Load(); msg != nil {
		t.Fatal(*msg)
	}
	t.Logf("L1 %d, L2 %d, load %d; %+v", s.reads[L1].Load(), s.reads[L2].Load(), s.reads[Load].Load(), m)
	return m
}

func TestCache_stress(t *testing.T) {
	// The goal: over the real libraries, with everything in motion, no read is
	// older than what was acknowledged before it began.
	spread := func(k int) uint64 { return mix(uint64(k)) }
	t.Run("hash=good", func(t *testing.T) {
		m := stress(t, Options{L1Bytes: 1 << 20, L2Bytes: 1 << 20}, spread, 2500*time.Millisecond, false)
		require.NotZero(t, m.L1Hits)
		require.NotZero(t, m.L2Hits)
		require.NotZero(t, m.StaleL1)
		require.NotZero(t, m.Offers)
	})
	t.Run("hash=colliding", func(t *testing.T) {
		o := Options{L1Bytes: 1 << 20, L2Bytes: 1 << 20, Hash: oneHash}
		m := stress(t, o, func(k int) uint64 { return uint64(k % 300) }, 2*time.Second, false)
		require.NotZero(t, m.Collisions)
	})
	t.Run("resize", func(t *testing.T) {
		m := stress(t, Options{L1Bytes: 1 << 20, L2Bytes: 1 << 20}, spread, 2*time.Second, true)
		require.NotZero(t, m.L1Hits)
		require.NotZero(t, m.L2Hits)
	})
	for _, o := range []Options{
		{Policy: PolicyVictim, Codec: CodecAuto}, {Policy: PolicyProbation, Codec: CodecS2}, {Policy: PolicySecond, Codec: CodecAuto},
	} {
		o.L1Bytes, o.L2Bytes = 1<<20, 1<<20
		t.Run(fmt.Sprintf("policy=%s/codec=%s", o.Policy, o.Codec), func(t *testing.T) {
			m := stress(t, o, spread, 700*time.Millisecond, false)
			require.NotZero(t, m.StoredBytes)
		})
	}
	t.Run("L2=off", func(t *testing.T) {
		stress(t, Options{L1Bytes: 1 << 20}, spread, 700*time.Millisecond, false)
	})
	t.Run("L1=off", func(t *testing.T) {
		stress(t, Options{L2Bytes: 1 << 20}, spread, 700*time.Millisecond, false)
	})
}

// oneHash puts all keys on few hashes.
func oneHash(key string) uint64 { return 1 + uint64(key[len(key)-1]) }
