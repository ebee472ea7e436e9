package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var words = []string{"alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"}

// state is a cell as stores hold them: JSON of about n bytes. The family picks
// the names of its fields.
func state(family, i, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), uint64(family)))
	b := fmt.Appendf(nil, `{"id":"user-%08d","kind%d":"%s","mail":"%x@example.com","created":"2026-%02d-%02dT%02d:%02d:00Z"`,
		i, family, words[r.IntN(8)], r.Uint32(), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60))
	for k := 0; len(b) < n-40; k++ {
		b = fmt.Appendf(b, `,"field%d_%02d":{"value":%d,"unit":"%s"}`, family, k, r.IntN(1e6), words[r.IntN(8)])
	}
	b = append(b, '}')
	for j := range b {
		b[j] ^= byte(family) << 3 // no family's bytes are another's
	}
	return b
}

func noise(i, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 99))
	b := make([]byte, n)
	for j := range b {
		b[j] = byte(r.Uint32())
	}
	return b
}

func newCodec(mode Codec) *codec {
	c := &codec{mode: mode}
	c.size.Store(minAutoDict)
	c.maxCell.Store(256 << 10)
	return c
}

func (c *codec) entry(cell []byte) []byte {
	return c.encode(make([]byte, l2HeaderBytes-1), cell)
}

// teach feeds cells until a training has ended.
func (c *codec) teach(t testing.TB, family int) {
	for i := 0; !c.training.Load(); i++ {
		c.entry(state(family, i, 200+i%5*150))
		require.Less(t, i, 1_000_000, "no training")
	}
	c.wait.Wait()
}

func TestCodec_encode_roundTrip(t *testing.T) {
	// The goal: whatever the mode and the cell, an entry decodes to its cell.
	for _, mode := range []Codec{CodecAuto, CodecOff, CodecS2} {
		c := newCodec(mode)
		if c.dictOn() {
			c.teach(t, 1)
			require.EqualValues(t, 1, c.trainings.Load())
		}
		kinds := map[byte]int{}
		check := func(cell []byte) {
			e := c.entry(cell)
			kinds[e[l2HeaderBytes-1]]++
			got, err := c.decode(e)
			require.NoError(t, err)
			require.Equal(t, cell, got)
		}
		check(nil)
		check([]byte{})
		cells := 2000
		if raceEnabled {
			cells = 500
		}
		for i := range cells {
			check(state(1, i, 1+i*7%4000))
			check(noise(i, i*5%3000))
			check(bytes.Repeat([]byte{byte(i)}, i))
		}
		check(noise(1, 200<<10))
		check(state(2, 1, 250<<10))
		c.close()
		t.Logf("%s: kinds %v", mode, kinds)
		require.Equal(t, 1, kinds[kindAbsent])
		require.NotZero(t, kinds[kindCell])
		require.Equal(t, mode == CodecS2, kinds[kindS2] > 0)
		require.Equal(t, mode == CodecAuto, kinds[kindDict] > 0)
	}
}

func TestCodec_encode_pays(t *testing.T) {
	// The goal: by class of sizes. States compress to less than half with a
	// dictionary; noise is held as it is, and all but unmeasured.
	c := newCodec(CodecAuto)
	c.teach(t, 1)
	c.raw.Store(0)
	c.stored.Store(0)
	for i := range 2000 {
		c.entry(state(1, 1e6+i, 400))
	}
	ratio := float64(c.stored.Load()) / float64(c.raw.Load())
	require.Less(t, ratio, 0.5)
	for i := range 2000 {
		c.entry(noise(i, 1500))
	}
	k := &c.classes[classOf(1500)]
	require.Greater(t, k.ratio, 0.99)
	measured := c.sampler.measured
	c.entry(noise(1, 1600)) // number 2001: no trial
	require.Equal(t, measured, c.sampler.measured)
	t.Logf("ratio %.3f; noise %.3f", ratio, k.ratio)
	c.close()
}

func TestCodec_decode_generations(t *testing.T) {
	// The goal: versions. An entry decodes with the dictionary it was made with
	// as long as that one is alive, and is an error, not other bytes, when it is gone.
	c := newCodec(CodecAuto)
	var old [][]byte
	cell := state(0, 1e6, 500)
	for family := range maxDicts + 2 {
		c.sampler.resting = false
		c.teach(t, family)
		require.EqualValues(t, family+1, c.trainings.Load())
		e := c.entry(cell)
		require.EqualValues(t, kindDict, e[l2HeaderBytes-1])
		old = append(old, e)
		require.LessOrEqual(t, len(*c.book.Load()), maxDicts)
	}
	for i, e := range old {
		got, err := c.decode(bytes.Clone(e))
		if i < len(old)-maxDicts {
			require.Error(t, err)
			require.Nil(t, got)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, cell, got)
	}
	c.forget()
	_, err := c.decode(old[len(old)-1])
	require.Error(t, err)
	// And what was forgotten is learnt again, under a number of its own.
	c.teach(t, 1)
	require.EqualValues(t, maxDicts+3, (*c.book.Load())[0].id)
}

func TestCodec_sample_retrains(t *testing.T) {
	// The goal: another dictionary when the data changed and the ratio is worse,
	// and none before; the sample is bounded meanwhile.
	c := newCodec(CodecAuto)
	c.size.Store(2 * minTrainBytes)
	feed := func(family, bytes int) {
		for i := 0; bytes > 0; i++ {
			cell := state(family, i, 600)
			c.entry(cell)
			bytes -= len(cell)
			require.LessOrEqual(t, c.sampler.held.Load(), int64(sampleBytes+sampleCell))
			c.wait.Wait()
		}
	}
	feed(1, 2<<20)
	require.EqualValues(t, 1, c.trainings.Load())
	// The same again, past the rest of minTrainBytes stored.
	feed(1, 5*minTrainBytes)
	require.Greater(t, c.stored.Load()-c.sampler.since, uint64(minTrainBytes))
	require.EqualValues(t, 1, c.trainings.Load())
	t.Logf("ratio %.3f", c.sampler.ratio)
	feed(7, 4<<20)
	require.EqualValues(t, 2, c.trainings.Load())
}

func TestCodec_train_refuses(t *testing.T) {
	// The goal: what shares nothing makes no dictionary and no panic, and is not
	// tried again soon.
	for name, cells := range map[string][][]byte{
		"noise": {noise(1, 4000), noise(2, 4000)}, "one": {state(1, 1, 3000)}, "short": {{1}, {2}, {}},
		"equal": {make([]byte, 4000), make([]byte, 4000)}, "none": nil,
	} {
		t.Run(name, func(t *testing.T) {
			c := newCodec(CodecAuto)
			c.train(cells)
			require.Zero(t, c.trainings.Load())
			require.Nil(t, c.book.Load())
		})
	}
	c := newCodec(CodecAuto)
	starts := 0
	for i := range 8000 {
		c.entry(noise(i, 1000)) // 8 MB
		if c.training.Load() {
			starts++
			c.wait.Wait()
		}
	}
	require.LessOrEqual(t, starts, 1)
	require.Zero(t, c.trainings.Load())
}

func TestCodec_decode_hostile(t *testing.T) {
	// The goal: bytes that are not ours are an error; never a panic, and never
	// an allocation that the bytes ask for.
	c := newCodec(CodecAuto)
	c.teach(t, 1)
	r := rand.New(rand.NewPCG(1, 2))
	good := [][]byte{c.entry(state(1, 5, 500)), c.entry(state(1, 5, 3000)), c.entry(bytes.Repeat([]byte("ab"), 500)), c.entry(nil),
		pad(c.entry(nil), 60), pad(c.entry(state(1, 5, 500)), 600)}
	failed := 0
	for i := range 60_000 {
		e := bytes.Clone(good[i%len(good)])
		switch r.IntN(3) {
		case 0:
			e = e[:r.IntN(len(e)+1)]
		case 1:
			e[8+r.IntN(len(e)-8)] ^= byte(1 << r.IntN(8))
		case 2:
			e = append(e, noise(i, r.IntN(20))...)
			e[8] = byte(r.IntN(6)) | kindPadded*byte(r.IntN(2))
		}
		cell, err := c.decode(e)
		if err != nil {
			failed++
			require.Nil(t, cell)
		}
		require.LessOrEqual(t, int64(len(cell)), c.maxCell.Load())
	}
	require.Greater(t, failed, 10_000)
	// A block that claims to be long.
	c.maxCell.Store(1000)
	_, err := c.decode(c.entry(state(1, 5, 3000)))
	require.Error(t, err)
	e := append(make([]byte, 8), kindS2)
	_, err = c.decode(append(e, 0xff, 0xff, 0xff, 0x7f))
	require.Error(t, err)
}

func TestCache_Get_compressed(t *testing.T) {
	// The goal: a compressed L2 holds more cells, gives them back as they were,
	// counts what it holds, and costs three allocations.
	keys := 40_000
	if raceEnabled {
		keys = 34_000 // twice what the tier holds of them plain
	}
	held := func(mode Codec) int {
		c := open(t, Options{L2Bytes: 16 << 20, Codec: mode, Policy: PolicySecond})
		h := NewHorizon(1)
		for i := range keys {
			fill(t, c, h, i, state(1, i, 700))
			if i%500 == 0 {
				c.settle()
			}
		}
		c.settle()
		n := 0
		for i := range keys {
			hash, k := key(i)
			if cell, tier := c.Get(h, hash, k); tier == L2 {
				require.Equal(t, state(1, i, 700), cell)
				n++
			}
		}
		m := c.Metrics()
		require.LessOrEqual(t, m.L2Bytes, int64(16<<20))
		require.Equal(t, mode != CodecOff, m.StoredBytes < m.RawBytes*3/4)
		require.Equal(t, mode == CodecAuto, m.Dictionaries > 0)
		t.Logf("%s: %d cells; %+v", mode, n, m)
		if mode == CodecAuto && !raceEnabled {
			hash, k := key(keys - 1)
			require.LessOrEqual(t, testing.AllocsPerRun(2000, func() {
				if _, tier := c.Get(h, hash, k); tier != L2 {
					t.Fatal(tier)
				}
			}), 3.0)
		}
		return n
	}
	plain, packed := held(CodecOff), held(CodecAuto)
	require.Greater(t, packed, plain*17/10)
}

func BenchmarkCodec(b *testing.B) {
	for _, mode := range []Codec{CodecS2, CodecAuto} {
		for _, n := range []int{200, 600, 2000} {
			c := newCodec(mode)
			if mode == CodecAuto {
				c.teach(b, 1)
			}
			cell := state(1, 1e6, n)
			b.Run(fmt.Sprintf("op=encode/codec=%s/value=%d", mode, n), func(b *testing.B) {
				var dst []byte
				for b.Loop() {
					dst = c.encode(dst[:0], cell)
				}
				b.ReportMetric(float64(len(dst)-1)/float64(len(cell)), "ratio")
			})
			e := c.entry(cell)
			b.Run(fmt.Sprintf("op=decode/codec=%s/value=%d", mode, n), func(b *testing.B) {
				b.ReportAllocs()
				scratch := bytes.Clone(e)
				for b.Loop() {
					copy(scratch, e) // decode overwrites the header
					if _, err := c.decode(scratch); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func TestCache_Close_training(t *testing.T) {
	// The goal: C8. Close waits for a training that is under way.
	c, err := New(Options{L2Bytes: 2 << 20})
	require.NoError(t, err)
	c.codec.wait.Add(1)
	closed := make(chan error)
	go func() { closed <- c.Close() }()
	select {
	case <-closed:
		t.Fatal("Close left a training behind")
	case <-time.After(20 * time.Millisecond):
	}
	c.codec.wait.Done()
	require.NoError(t, <-closed)
}
