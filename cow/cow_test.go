package cow

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func goodHash(k []byte) uint64 {
	h := fnv.New64a()
	h.Write(k)
	x := h.Sum64()
	x ^= x >> 29
	return x * 0x9E3779B97F4A7C15
}

func badHash(k []byte) uint64 { return uint64(len(k)) & 1 } // nearly everything collides

// Goal: the sizes that Bytes counts are the sizes of the structs.
func TestSizes(t *testing.T) {
	require.EqualValues(t, reflect.TypeFor[slot]().Size(), slotBytes)
	require.EqualValues(t, reflect.TypeFor[entry]().Size(), entryBytes)
	require.EqualValues(t, reflect.TypeFor[version]().Size(), versionBytes)
}

// Goal: the cell's bytes never change under a released format.
func TestCell_golden(t *testing.T) {
	cells := [][]byte{
		AppendCell(nil, Header{Value, 0x0102030405060708, 0}, []byte("state")),
		AppendCell(nil, Header{Value, 7, 1700000000000}, nil),
		AppendCell(nil, Header{Blob, 9, 0}, []byte{0xaa, 0xbb}),
		AppendCell(nil, Header{Tombstone, 11, 0}, nil),
	}
	var got bytes.Buffer
	for _, c := range cells {
		fmt.Fprintf(&got, "%x\n", c)
	}
	want, err := os.ReadFile("testdata/cell.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile("testdata/cell.golden", got.Bytes(), 0o644))
		return
	}
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())

	c, err := ParseCell(cells[1])
	require.NoError(t, err)
	require.Equal(t, Value, c.Kind())
	require.EqualValues(t, 7, c.Revision())
	require.EqualValues(t, 1700000000000, c.Expiry())
	require.Empty(t, c.Payload())
	c, err = ParseCell(cells[2])
	require.NoError(t, err)
	require.Equal(t, Blob, c.Kind())
	require.Zero(t, c.Expiry())
	require.Equal(t, []byte{0xaa, 0xbb}, c.Payload())
}

// model is what a generation should answer: every version of every key, and every
// range tombstone, for ever.
type model struct {
	points map[string][]mVersion // oldest first
	ranges []mRange
}

type mVersion struct {
	lsn  uint64
	kind Kind
	val  string
}
type mRange struct {
	lsn          uint64
	lower, upper string
}

func (m *model) get(key string, at uint64) (string, Found) {
	var r uint64
	for _, x := range m.ranges {
		if x.lsn <= at && x.lower <= key && key < x.upper {
			r = max(r, x.lsn)
		}
	}
	vs := m.points[key]
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].lsn <= at && vs[i].lsn >= r {
			if vs[i].kind == Tombstone {
				return "†", Hit
			}
			return vs[i].val, Hit
		}
	}
	if r != 0 {
		return "", Hidden
	}
	return "", Unknown
}

type variant struct {
	name  string
	hash  func([]byte) uint64
	shape Shape
}

var variants = []variant{
	{"plain", goodHash, Shape{Shards: 8, Keys: 100}},
	{"one-shard", goodHash, Shape{Shards: 1}},
	{"bad-hash", badHash, Shape{Shards: 4}},
	{"tiny-tables", goodHash, Shape{Shards: 64}},
}

// Goal: at every number that is registered, and at the published one, look-ups and
// iterators answer as a model that forgets nothing; elsewhere they may only say
// Cut.
func TestGeneration_model(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			for seed := uint64(0); seed < 6; seed++ {
				modelRun(t, v, rand.New(rand.NewPCG(seed, 1)))
			}
		})
	}
}

func modelRun(t *testing.T, v variant, rnd *rand.Rand) {
	var clock Clock
	g := NewGeneration(&clock, v.shape)
	m := &model{points: map[string][]mVersion{}}
	type held struct {
		h  *Hold
		at uint64
	}
	var holds []held
	key := func() string { return fmt.Sprintf("k%03d", rnd.IntN(120)) }
	lsn := uint64(0)
	for range 1500 {
		switch n := rnd.IntN(20); {
		case n < 14:
			lsn++
			k, kind := key(), Value
			val := fmt.Sprintf("v%d", lsn)
			if n == 0 {
				kind, val = Tombstone, ""
			}
			g.Put(v.hash([]byte(k)), []byte(k), lsn, Header{Kind: kind, Revision: lsn}, []byte(val))
			m.points[k] = append(m.points[k], mVersion{lsn, kind, val})
			clock.Publish(lsn)
		case n < 15: // a batch: range delete, then a point inside it, at one number
			lsn++
			var rs []Range
			for range 1 + rnd.IntN(3) {
				a, b := key(), key()
				rs = append(rs, Range{[]byte(a), []byte(b)})
				m.ranges = append(m.ranges, mRange{lsn, a, b})
			}
			k := string(rs[0].Lower)
			g.Put(v.hash([]byte(k)), []byte(k), lsn, Header{Kind: Value, Revision: lsn}, []byte("in"))
			m.points[k] = append(m.points[k], mVersion{lsn, Value, "in"})
			g.DeleteRange(lsn, rs)
			clock.Publish(lsn)
		case n < 17:
			h := new(Hold)
			clock.Register(h)
			holds = append(holds, held{h, clock.Published()})
		case n < 18 && len(holds) > 0:
			i := rnd.IntN(len(holds))
			clock.Release(holds[i].h)
			holds = slices.Delete(holds, i, i+1)
		default:
			ats := []uint64{clock.Published()}
			for _, h := range holds {
				ats = append(ats, h.at)
			}
			for _, at := range ats {
				k := key()
				want, wf := m.get(k, at)
				checkGet(t, g, v, k, at, want, wf)
			}
			// A number that nobody holds may be cut, but must not be wrong.
			at := uint64(rnd.IntN(int(lsn + 1)))
			k := key()
			want, wf := m.get(k, at)
			c, f := g.Get(v.hash([]byte(k)), []byte(k), at)
			if f != Cut {
				require.Equal(t, wf, f)
				if f == Hit && c.Kind() == Value {
					require.Equal(t, want, string(c.Payload()))
				}
			}
		}
		if rnd.IntN(100) == 0 {
			at := clock.Published()
			if len(holds) > 0 {
				at = holds[rnd.IntN(len(holds))].at
			}
			checkIter(t, g, m, at, rnd)
		}
	}
	g.Sort()
	for _, h := range holds {
		checkIter(t, g, m, h.at, rnd)
	}
	checkIter(t, g, m, math.MaxUint64, rnd)
	require.Equal(t, len(m.points), g.Len())
	n := 0
	for range g.Hashes() {
		n++
	}
	require.Equal(t, g.Len(), n)
}

func checkGet(t *testing.T, g *Generation, v variant, k string, at uint64, want string, wf Found) {
	t.Helper()
	c, f := g.Get(v.hash([]byte(k)), []byte(k), at)
	require.Equal(t, wf, f, "key %s at %d", k, at)
	if f == Hit {
		if c.Kind() == Tombstone {
			require.Equal(t, "†", want)
		} else {
			require.Equal(t, want, string(c.Payload()))
		}
	}
}

func checkIter(t *testing.T, g *Generation, m *model, at uint64, rnd *rand.Rand) {
	t.Helper()
	type kv struct{ k, v string }
	var want []kv
	for k, vs := range m.points {
		if vs[0].lsn > at {
			continue
		}
		v, f := m.get(k, at)
		if f == Hidden {
			v = "hidden"
		}
		want = append(want, kv{k, v})
	}
	sort.Slice(want, func(i, j int) bool { return want[i].k < want[j].k })
	show := func(it *Iter) kv {
		switch c := it.Cell(); {
		case c == nil:
			return kv{string(it.Key()), "hidden"}
		case c.Kind() == Tombstone:
			return kv{string(it.Key()), "†"}
		default:
			return kv{string(it.Key()), string(c.Payload())}
		}
	}
	var got []kv
	it := g.NewIter(at)
	for ok := it.First(); ok; ok = it.Next() {
		got = append(got, show(it))
	}
	require.False(t, it.Torn())
	require.Equal(t, want, got)
	got = got[:0]
	for ok := it.Last(); ok; ok = it.Prev() {
		got = append(got, show(it))
	}
	slices.Reverse(got)
	require.Equal(t, len(want), len(got))
	for i := range got {
		require.Equal(t, want[i], got[i])
	}
	k := fmt.Sprintf("k%03d", rnd.IntN(125))
	i := sort.Search(len(want), func(i int) bool { return want[i].k >= k })
	ok := it.SeekGE([]byte(k))
	require.Equal(t, i < len(want), ok)
	if ok {
		require.Equal(t, want[i], show(it))
	}
	ok = it.SeekLT([]byte(k))
	require.Equal(t, i > 0, ok)
	if ok {
		require.Equal(t, want[i-1], show(it))
	}
	if ok = it.SeekGE([]byte(k)); !ok {
		return
	}
	for i < len(want) { // to and fro, until it falls off an end
		require.Equal(t, want[i], show(it))
		if rnd.IntN(5) < 3 {
			i++
			ok = it.Next()
		} else if i--; i < 0 {
			require.False(t, it.Prev())
			break
		} else {
			ok = it.Prev()
		}
		require.Equal(t, i < len(want), ok)
	}
	for range 3 { // off an end it stays
		require.False(t, it.Prev())
		require.False(t, it.Next())
	}
	if it.Last() {
		require.False(t, it.Next())
		require.False(t, it.Prev())
	}
}

// Goal: chains do not grow while nobody holds a snapshot, and their end says cut.
func TestGeneration_Put_cutsVersionsNobodyReads(t *testing.T) {
	var clock Clock
	g := NewGeneration(&clock, Shape{Shards: 1})
	k := []byte("counter")
	put := func(lsn uint64) {
		g.Put(1, k, lsn, Header{Kind: Value, Revision: lsn}, nil)
		clock.Publish(lsn)
	}
	length := func() (n int) {
		for v := g.shards[0].table.Load().find(1, k).newest.Load(); v != nil && v != cut; v = v.prev.Load() {
			n++
		}
		return n
	}
	for lsn := uint64(1); lsn <= 100; lsn++ {
		put(lsn)
		require.LessOrEqual(t, length(), 2)
	}
	_, f := g.Get(1, k, 50)
	require.Equal(t, Cut, f, "a version that was dropped must not look like one that never was")

	var h Hold
	clock.Register(&h)
	for lsn := uint64(101); lsn <= 200; lsn++ {
		put(lsn)
	}
	c, f := g.Get(1, k, 100)
	require.Equal(t, Hit, f)
	require.EqualValues(t, 100, c.Revision())
	clock.Release(&h)
	clock.Release(&h)
	put(201)
	require.LessOrEqual(t, length(), 2)
}

// Goal: an iterator that outlives its registration stops and says so.
func TestIter_Torn(t *testing.T) {
	var clock Clock
	g := NewGeneration(&clock, Shape{Shards: 1})
	for lsn := uint64(1); lsn <= 3; lsn++ {
		g.Put(1, []byte("a"), lsn, Header{Kind: Value, Revision: lsn}, nil)
		clock.Publish(lsn)
	}
	it := g.NewIter(1)
	require.False(t, it.First())
	require.True(t, it.Torn())
}

// Goal: readers beside a writer see, for each key, revisions that never go back,
// never a version above the number, and whole values.
func TestGeneration_Get_besideWriter(t *testing.T) {
	var clock Clock
	g := NewGeneration(&clock, Shape{Shards: 2})
	const keys = 64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for r := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(r), 9))
			var last [keys]uint64
			for !stop.Load() {
				i := rnd.IntN(keys)
				k := fmt.Appendf(nil, "key-%d", i)
				at := clock.Published()
				c, f := g.Get(goodHash(k), k, at)
				switch f {
				case Cut, Unknown:
					continue
				case Hit:
				default:
					t.Errorf("unexpected %v", f)
				}
				if rev := c.Revision(); rev > at || rev < last[i] {
					t.Errorf("key %d: revision %d after %d at %d", i, rev, last[i], at)
				} else {
					last[i] = rev
				}
				if want := fmt.Sprintf("%d", c.Revision()); want != string(c.Payload()) {
					t.Errorf("torn value %q at %s", c.Payload(), want)
				}
			}
		}()
	}
	wg.Add(1)
	go func() { // snapshots with iterators come and go
		defer wg.Done()
		for !stop.Load() {
			var h Hold
			clock.Register(&h)
			at := clock.Published()
			it := g.NewIter(at)
			for ok := it.First(); ok; ok = it.Next() {
				if it.Cell().Revision() > at {
					t.Error("iterator sees the future")
				}
			}
			if it.Torn() {
				t.Error("torn under a registration")
			}
			clock.Release(&h)
		}
	}()
	rnd := rand.New(rand.NewPCG(7, 7))
	for lsn := uint64(1); lsn <= 60_000; lsn++ {
		k := fmt.Appendf(nil, "key-%d", rnd.IntN(keys))
		g.Put(goodHash(k), k, lsn, Header{Kind: Value, Revision: lsn}, fmt.Appendf(nil, "%d", lsn))
		clock.Publish(lsn)
	}
	stop.Store(true)
	wg.Wait()
}

// Goal: Bytes stays close to what the collector sees.
func TestGeneration_Bytes_isTrue(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's shadow memory is counted, too")
	}
	var clock Clock
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	g := NewGeneration(&clock, Shape{Shards: 16})
	val := make([]byte, 256)
	for i := range 100_000 {
		k := fmt.Appendf(nil, "user%08d", i%70_000)
		g.Put(goodHash(k), k, uint64(i+1), Header{Kind: Value, Revision: uint64(i + 1)}, val)
		clock.Publish(uint64(i + 1))
	}
	real := heap() - before
	require.InEpsilon(t, real, g.Bytes(), 0.15)
	runtime.KeepAlive(g)
}

// Goal: the next generation gets more shards where this one's were large, fewer
// where they were small, and never more or less than the machine makes sense of.
func TestGeneration_Next_followsLoad(t *testing.T) {
	var clock Clock
	fill := func(s Shape, n int) *Generation {
		g := NewGeneration(&clock, s)
		for i := range n {
			k := fmt.Appendf(nil, "%d", i)
			g.Put(goodHash(k), k, 1, Header{Kind: Value}, nil)
		}
		return g
	}
	procs := runtime.GOMAXPROCS(0)
	big := fill(Shape{Shards: 4 * procs}, 4*procs*17<<10)
	require.Greater(t, big.Next().Shards, big.Shards())
	small := fill(Shape{Shards: 16 * procs}, 100)
	require.Less(t, small.Next().Shards, small.Shards())
	require.GreaterOrEqual(t, small.Next().Shards, 2*procs)
}

// Goal: the words of an index item order keys exactly as their bytes do, whatever they
// share, however short they are, and with zeros at the end.
func TestTreeItem_order(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	draw := func() []byte {
		k := bytes.Repeat([]byte{'a'}, rnd.IntN(20))
		for range rnd.IntN(6) {
			k = append(k, []byte{0, 1, 'a', 0xff}[rnd.IntN(4)])
		}
		return k
	}
	for range 200_000 {
		a, b := draw(), draw()
		require.Equal(t, bytes.Compare(a, b) < 0, byKey(itemOf(&entry{key: a}), itemOf(&entry{key: b})), "%q %q", a, b)
	}
}

// Goal: a look-up that hits or misses allocates nothing; a put about once.
func TestGeneration_allocations(t *testing.T) {
	var clock Clock
	g := NewGeneration(&clock, Shape{Shards: 4, Keys: 10_000})
	k, v := []byte("some key"), make([]byte, 100)
	g.Put(goodHash(k), k, 1, Header{Kind: Value}, v)
	clock.Publish(1)
	h := goodHash(k)
	require.Zero(t, testing.AllocsPerRun(100, func() { g.Get(h, k, 1) }))
	require.Zero(t, testing.AllocsPerRun(100, func() { g.Get(h+1, k, 1) }))
	lsn := uint64(1)
	require.LessOrEqual(t, testing.AllocsPerRun(5000, func() {
		lsn++
		g.Put(h, k, lsn, Header{Kind: Value}, v)
		clock.Publish(lsn)
	}), 1.0)
}

func BenchmarkGeneration(b *testing.B) {
	const keys = 200_000
	var clock Clock
	g := NewGeneration(&clock, Shape{Shards: 16})
	ks, hs := make([][]byte, keys), make([]uint64, keys)
	val := make([]byte, 256)
	for i := range ks {
		ks[i] = fmt.Appendf(nil, "user%012d", i)
		hs[i] = goodHash(ks[i])
		g.Put(hs[i], ks[i], uint64(i+1), Header{Kind: Value}, val)
		clock.Publish(uint64(i + 1))
	}
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, keys-1)
	idx := make([]int, 1<<16)
	for i := range idx {
		idx[i] = int(z.Uint64() * 7919 % keys)
	}
	b.Run("Get/hit", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; i < b.N; i++ {
			j := idx[i&0xffff]
			g.Get(hs[j], ks[j], keys)
		}
	})
	b.Run("Get/absent", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; i < b.N; i++ {
			j := idx[i&0xffff]
			g.Get(hs[j]+0x5bd1e995, ks[j], keys)
		}
	})
	b.Run("Put/overwrite", func(b *testing.B) {
		b.ReportAllocs()
		lsn := clock.Published()
		for i := 0; i < b.N; i++ {
			j := idx[i&0xffff]
			lsn++
			g.Put(hs[j], ks[j], lsn, Header{Kind: Value}, val)
			clock.Publish(lsn)
			if g.Bytes() > 256<<20 {
				b.StopTimer()
				g = NewGeneration(&clock, g.Next())
				b.StartTimer()
			}
		}
	})
	b.Run("Walk", func(b *testing.B) {
		g := NewGeneration(&clock, Shape{Shards: 16, Keys: keys})
		for i := range ks {
			j := (i * 7919) % keys
			g.Put(hs[j], ks[j], uint64(i+1), Header{Kind: Value}, val)
		}
		g.Sort()
		for b.Loop() {
			it := g.NewIter(keys)
			n := 0
			for ok := it.First(); ok; ok = it.Next() {
				n += int(it.Cell().Kind())
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/keys, "ns/key")
	})
	b.Run("Sort", func(b *testing.B) {
		for i := 0; i < b.N; i++ {
			b.StopTimer()
			g := NewGeneration(&clock, Shape{Shards: 16, Keys: keys})
			for i := range ks {
				g.Put(hs[i], ks[i], uint64(i+1), Header{Kind: Value}, nil)
			}
			b.StartTimer()
			g.Sort()
		}
	})
}
