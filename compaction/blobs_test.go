package compaction

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
)

// reference is what a cell holds of a blob.
func reference(at BlobAt, stored uint64) []byte {
	var b []byte
	for _, v := range []uint64{at.Pack, at.Offset, stored, 2 * stored, 7} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = append(b, byte(mmap.Zstd), 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// blob lets key name a blob.
func (b *bed) blob(key string, ref []byte) {
	b.lsn++
	k := []byte(key)
	b.g.Put(maphash.Bytes(seed, k), k, b.lsn, cow.Header{Kind: cow.Blob, Revision: b.lsn}, ref)
	b.clock.Publish(b.lsn)
}

// indexed is what the index of blobs names, and named what the cells do.
func (b *bed) indexed() map[BlobAt]string {
	out := make(map[BlobAt]string)
	sn := b.st.Current()
	defer sn.Release()
	require.NoError(b.t, sn.EachBlob(func(pack, offset, stored uint64, key []byte) error {
		out[BlobAt{pack, offset}] = fmt.Sprintf("%s:%d", key, stored)
		return nil
	}))
	return out
}

func (b *bed) named() map[BlobAt]string {
	out := make(map[BlobAt]string)
	sn := b.st.Current()
	defer sn.Release()
	it, err := sn.NewIter(nil, nil)
	require.NoError(b.t, err)
	for ok := it.First(); ok; ok = it.Next() {
		c, err := cow.ParseCell(it.Value())
		require.NoError(b.t, err)
		if c.Kind() == cow.Blob {
			r, err := mmap.DecodeRef(c.Payload())
			require.NoError(b.t, err)
			out[BlobAt{r.Pack, r.Offset}] = fmt.Sprintf("%s:%d", it.Key(), r.Stored)
		}
	}
	require.NoError(b.t, it.Close())
	return out
}

// life is a blob as the model knows it.
type life struct {
	key    string
	stored uint64
	placed uint64 // the last commit that named it
	died   uint64 // zero: it lives
}

// world drives an account beside a model of it, over a real generation and a real L3.
type world struct {
	*bed
	r       *rand.Rand
	acc     *Blobs
	ops     []func(*Blobs) // what the account was told, to tell it again
	since   int            // of ops: the first above flushed
	told    []uint64       // commit numbers of ops
	lives   map[BlobAt]*life
	current map[string]BlobAt
	ranges  []struct {
		lsn          uint64
		lower, upper string
	}
	flushed uint64
	snaps   []uint64
	places  uint64
}

func (w *world) tell(op func(*Blobs)) {
	op(w.acc)
	w.ops, w.told = append(w.ops, op), append(w.told, w.lsn)
}

func worldKey(key string) BlobKey { return BlobKey{uint64(key[0]), 1} }

func (w *world) key() string { return string(rune('a' + w.r.IntN(12))) }

// supersede lets the blob die that key names: commit lsn wrote something else to it.
func (w *world) supersede(key string) {
	if at, ok := w.current[key]; ok {
		w.lives[at].died = w.lsn
		delete(w.current, key)
	}
}

func (w *world) place(key string, at BlobAt, stored uint64) {
	w.blob(key, reference(at, stored))
	if w.current[key] != at {
		w.supersede(key)
	}
	w.lives[at] = &life{key: key, stored: stored, placed: w.lsn}
	w.current[key] = at
	lsn := w.lsn
	w.tell(func(acc *Blobs) { acc.Put(worldKey(key), at, stored, lsn) })
}

// step is one commit.
func (w *world) step() {
	key := w.key()
	switch p := w.r.IntN(10); {
	case p < 4:
		w.places++
		w.place(key, BlobAt{1 + w.r.Uint64N(3), 4096 * w.places}, 100+w.r.Uint64N(5000))
	case p < 6: // a batch is committed again: the same blob, whatever became of it
		all := slices.SortedFunc(maps.Keys(w.lives), func(a, b BlobAt) int { return int(a.Offset) - int(b.Offset) })
		if len(all) == 0 {
			return
		}
		at := all[len(all)-1-w.r.IntN(min(len(all), 8))]
		w.place(w.lives[at].key, at, w.lives[at].stored)
	case p < 8:
		w.put(key, []string{"small", "†"}[w.r.IntN(2)])
		w.supersede(key)
		lsn := w.lsn
		w.tell(func(acc *Blobs) { acc.Delete(worldKey(key), lsn) })
	case p < 9:
		upper := string(rune(key[0] + 1 + byte(w.r.IntN(3))))
		w.deleteRange(key, upper)
		w.ranges = append(w.ranges, struct {
			lsn          uint64
			lower, upper string
		}{w.lsn, key, upper})
	default:
		if len(w.snaps) < 3 {
			w.snaps = append(w.snaps, w.lsn)
		} else {
			i := w.r.IntN(len(w.snaps))
			w.snaps = slices.Delete(w.snaps, i, i+1)
		}
	}
}

// turn flushes the generation while commits go on.
func (w *world) turn() {
	g, last := w.g, w.lsn
	w.next()
	steps := func() {
		for range w.r.IntN(4) {
			w.step()
		}
	}
	steps()
	died := w.acc.Died(last)
	steps()
	s, err := Flush(context.Background(), g, w.st, storage.Watermark{LSN: last, Generation: 1}, died, func() {}, func() error { steps(); return nil })
	require.NoError(w.t, err)
	w.acc.Flushed(last, s.Turnover)
	for at, l := range w.lives {
		if l.died == 0 && w.hidden(l, last) {
			l.died = last
			delete(w.current, l.key)
			require.NotContains(w.t, s.Turnover.set, at)
		}
	}
	w.flushed = last
	for w.since < len(w.ops) && w.told[w.since] <= last {
		w.since++
	}
	require.Equal(w.t, w.named(), w.indexed(), "P4")
	for _, d := range w.acc.risen {
		require.Greater(w.t, d.lsn, last, "what L3 heard of is forgotten")
	}
}

// hidden says whether a range delete through number last took a blob.
func (w *world) hidden(l *life, last uint64) bool {
	for _, r := range w.ranges {
		if l.placed < r.lsn && r.lsn <= last && r.lower <= l.key && l.key < r.upper {
			return true
		}
	}
	return false
}

func (w *world) oldest() uint64 { return min(w.lsn, slices.Min(append([]uint64{w.lsn}, w.snaps...))) }

// collect forgets, in the account and in the model, and compares what is kept.
func (w *world) collect() {
	w.acc.Collect(w.oldest())
	w.forget(min(w.oldest(), w.flushed))
	w.compare(w.acc)
}

func (w *world) forget(bound uint64) {
	maps.DeleteFunc(w.lives, func(_ BlobAt, l *life) bool { return l.died > 0 && l.died <= bound })
}

func (w *world) compare(acc *Blobs) {
	w.t.Helper()
	var live, unflushed int64
	dead := 0
	want := map[uint64][]mmap.Extent{}
	bytes := map[uint64]int64{}
	for at, l := range w.lives {
		switch {
		case l.died == 0:
			live += int64(l.stored)
		default:
			dead++
			if l.died > w.flushed {
				unflushed += int64(l.stored)
			}
		}
		want[at.Pack] = append(want[at.Pack], mmap.Extent{Offset: at.Offset, Stored: l.stored})
		header, n := mmap.RewrittenBytes(l.stored)
		if bytes[at.Pack] == 0 {
			bytes[at.Pack] = header
		}
		bytes[at.Pack] += n
	}
	require.Equal(w.t, live, acc.Live())
	require.Equal(w.t, unflushed, acc.Unflushed())
	require.Equal(w.t, dead, acc.Dead())
	require.Equal(w.t, len(w.current), acc.Len())
	for pack := uint64(1); pack < 5; pack++ {
		slices.SortFunc(want[pack], func(a, b mmap.Extent) int { return int(a.Offset) - int(b.Offset) })
		require.Equal(w.t, want[pack], acc.Kept(pack), "pack %d", pack)
		require.Equal(w.t, bytes[pack], acc.KeptBytes(pack), "pack %d", pack)
	}
}

// reopen makes the account anew, from L3 and the commits above it.
func (w *world) reopen() {
	acc := NewBlobs(w.flushed)
	base := w.st.Current()
	defer base.Release()
	require.NoError(w.t, EachBlob(w.st, base, func(pack, offset, stored uint64, key []byte) error {
		acc.Load(worldKey(string(key)), BlobAt{pack, offset}, stored)
		return nil
	}))
	for _, op := range w.ops[w.since:] {
		op(acc)
	}
	w.acc, w.snaps = acc, nil
	w.forget(w.flushed)
	// What a commit above flushed found hidden already is not in L3 to die.
	maps.DeleteFunc(w.lives, func(_ BlobAt, l *life) bool { return l.died > 0 && w.hidden(l, w.flushed) })
	w.compare(w.acc)
}

// Goal (B1, B2, P4): whatever commits, snapshots, flushes and reopens come, in whatever
// order, the account keeps exactly the blobs that may still be read, and the index
// names exactly what the cells of L3 name.
func TestBlobs_againstModel(t *testing.T) {
	for run := range uint64(60) {
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			w := &world{
				bed: newBed(t), r: rand.New(rand.NewPCG(run, 4)), acc: NewBlobs(0),
				lives: make(map[BlobAt]*life), current: make(map[string]BlobAt),
			}
			for range 120 {
				switch p := w.r.IntN(12); {
				case p < 8:
					w.step()
				case p < 10:
					w.collect()
				case p < 11 || w.r.IntN(4) > 0:
					w.turn()
				default:
					w.reopen()
				}
			}
			w.turn()
			w.reopen()
		})
	}
}

// Goal (B1): a blob that a commit named again lives, whether a range delete took it out
// of the flush before or of the same one.
func TestBlobs_namedAgain(t *testing.T) {
	at := BlobAt{1, 4096}
	for name, flushed := range map[string]bool{"after the flush froze": false, "in the same flush": true} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			acc := NewBlobs(0)
			b.blob("k", reference(at, 500))
			acc.Put(worldKey("k"), at, 500, b.lsn)
			last := b.lsn
			if flushed {
				acc.Flushed(last, b.flush().Turnover)
			}
			b.deleteRange("a", "z")
			last = b.lsn
			again := func() error {
				b.blob("k", reference(at, 500))
				acc.Put(worldKey("k"), at, 500, b.lsn)
				return nil
			}
			g := b.g
			if flushed {
				require.NoError(t, again())
				again = func() error { return nil }
				last = b.lsn
			} else {
				b.next()
			}
			s, err := Flush(context.Background(), g, b.st, storage.Watermark{LSN: last}, acc.Died(last), func() {}, again)
			require.NoError(t, err)
			acc.Flushed(last, s.Turnover)
			acc.Collect(b.lsn)
			require.Equal(t, []mmap.Extent{{Offset: 4096, Stored: 500}}, acc.Kept(1))
			require.EqualValues(t, 500, acc.Live())
			require.Zero(t, acc.Dead())
		})
	}
}

// Goal: deaths that arrive out of their order are collected in it.
func TestBlobs_deathsOutOfOrder(t *testing.T) {
	acc := NewBlobs(0)
	for i := range uint64(4) {
		acc.Put(BlobKey{i}, BlobAt{1, 4096 * (1 + i)}, 100, 1+i)
	}
	for i, lsn := range []uint64{9, 7, 8} {
		acc.Delete(BlobKey{uint64(i)}, lsn)
	}
	require.Equal(t, []BlobAt{{1, 2 * 4096}, {1, 3 * 4096}}, acc.Died(8))
	require.EqualValues(t, 300, acc.Unflushed())
	acc.Flushed(8, Turnover{set: map[BlobAt]bool{{1, 4 * 4096}: true}})
	require.EqualValues(t, 100, acc.Unflushed())
	acc.Collect(7)
	require.Equal(t, 2, acc.Dead())
	acc.Collect(100)
	require.Equal(t, 1, acc.Dead(), "no flush has 9")
	require.Empty(t, acc.Kept(2))
	require.Zero(t, acc.KeptBytes(2))
}

// Goal: the pack with the most garbage is rewritten, and none while the garbage is
// within what was allowed, or too little for the work.
func TestVictim(t *testing.T) {
	for name, c := range map[string]struct {
		packs []Pack
		amp   float64
		slack int64
		want  uint64
	}{
		"none":            {nil, 1.5, 0, 0},
		"no garbage":      {[]Pack{{1, 100, 100}, {2, 100, 100}}, 1, 0, 0},
		"within amp":      {[]Pack{{1, 150, 100}}, 1.5, 0, 0},
		"above amp":       {[]Pack{{1, 151, 100}}, 1.5, 0, 1},
		"within slack":    {[]Pack{{1, 300, 100}}, 1.5, 201, 0},
		"at slack":        {[]Pack{{1, 300, 100}}, 1.5, 200, 1},
		"worst share":     {[]Pack{{1, 1000, 500}, {2, 100, 10}, {3, 100, 50}}, 1.5, 0, 2},
		"all garbage":     {[]Pack{{1, 100, 0}}, 1.5, 0, 1},
		"more than full":  {[]Pack{{1, 100, 120}}, 1, 0, 0},
		"others are full": {[]Pack{{1, 1000, 1000}, {2, 100, 0}}, 1.5, 0, 0},
	} {
		got, ok := Victim(c.packs, c.amp, c.slack)
		require.Equal(t, c.want != 0, ok, name)
		require.Equal(t, c.want, got.Num, name)
	}
}

// Goal: a range delete over as many large values as died since takes no time that grows
// with both.
func TestBlobs_Flushed_many(t *testing.T) {
	const n = 50_000
	b := NewBlobs(1)
	tu := Turnover{set: map[BlobAt]bool{}}
	for i := range uint64(n) {
		b.Load(BlobKey{i, 1}, BlobAt{1, i * 8}, 65536)
		tu.hidden = append(tu.hidden, BlobAt{1, i * 8})
		b.Load(BlobKey{i, 2}, BlobAt{2, i * 8}, 65536)
	}
	for i := range uint64(n) { // deletes that came while the flush through 2 ran
		b.Delete(BlobKey{i, 2}, 3+i)
	}
	began := time.Now()
	b.Flushed(2, tu)
	require.Less(t, time.Since(began), time.Second) // 5.3 s where each was merged alone
	require.Equal(t, 2*n, b.Dead())
	require.Zero(t, b.Live())
	b.Collect(2)
	require.Equal(t, n, b.Dead())
}
