package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"
)

// data is what a row stores, the same for every store: keys scattered over the key
// space, and a value for each. Of many keys it keeps nothing, so that what is resident
// is the store's; few are made before the clock runs.
type data struct {
	n     int
	value func(i int, into []byte) []byte // of key i, appended
	keys  [][]byte                        // of few
}

const (
	fewKeys  = 200_000
	keyBytes = 22
)

func newData(n int, value func(i int, into []byte) []byte) *data {
	d := &data{n: n, value: value}
	if n <= fewKeys {
		d.keys = make([][]byte, n)
		for i := range d.keys {
			d.keys[i] = appendKey(nil, i)
		}
	}
	return d
}

func appendKey(b []byte, i int) []byte {
	return strconv.AppendUint(append(b, "client"...), mix(uint64(i))|1<<63, 16)
}

// plain values of one size compress by half.
func plain(n, size int) *data {
	block := make([]byte, size+4096)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range block {
		if block[i] = 'a'; i%2 == 0 {
			block[i] = byte(rnd.IntN(256))
		}
	}
	return newData(n, func(i int, into []byte) []byte {
		at := mix(uint64(i)) % 4096
		return append(into, block[at:at+uint64(size)]...)
	})
}

// jsonStates are states of 300 B to 2 KB as a service keeps them: names that all of
// them share, and numbers, words and an identity of their own.
func jsonStates(bytes int64) *data {
	const mean = 1150
	words := []string{"active", "pending", "closed", "eur", "usd", "north", "south", "none"}
	return newData(int(bytes/mean), func(i int, into []byte) []byte {
		x := mix(uint64(i))
		size := len(into) + 300 + int(x%1700)
		into = fmt.Appendf(into, `{"id":"client-%016x","state":"%s","balance":%d.%02d`, x, words[x>>60&7], x>>20&0xfffff, x>>8%100)
		for field := 0; len(into) < size; field++ {
			x = mix(x)
			into = fmt.Appendf(into, `,"session_%02d":{"opened":%d,"region":"%s","retries":%d}`, field, 1_700_000_000+x>>40, words[x&7], x>>3&15)
		}
		return append(into, '}')
	})
}

// mix is the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// zipfian draws ranks with YCSB's constant, by the closed form of Gray et al., "Quickly
// generating billion-record synthetic databases" (SIGMOD 1994). It is read by all workers.
type zipfian struct {
	n, theta, alpha, zetan, eta, half float64
	drawn                             []int32 // of few keys, before the clock runs
}

func newZipfian(n int, theta float64) *zipfian {
	z := &zipfian{n: float64(n), theta: theta, alpha: 1 / (1 - theta), half: 1 + math.Pow(0.5, theta)}
	for i := 1; i <= n; i++ {
		z.zetan += 1 / math.Pow(float64(i), theta)
	}
	z.eta = (1 - math.Pow(2/z.n, 1-theta)) / (1 - z.half/z.zetan)
	if n <= fewKeys {
		drawn, w := make([]int32, 1<<18), &worker{x: 1}
		for i := range drawn {
			drawn[i] = int32(z.rank(w.uniform()))
		}
		z.drawn = drawn
	}
	return z
}

func (z *zipfian) rank(uniform float64) int {
	uz := uniform * z.zetan
	switch {
	case uz < 1:
		return 0
	case uz < z.half:
		return 1
	}
	return min(int(z.n*math.Pow(z.eta*uniform-z.eta+1, z.alpha)), int(z.n)-1)
}

// worker is one goroutine of a row, with its own stream of random numbers and buffers.
type worker struct {
	id         int
	added      int // records of its own
	x          uint64
	key, value []byte
	sum        int
	took       []time.Duration // of operations that were timed
	timed      int
	put        int64 // bytes of keys and values
}

func (w *worker) next() uint64 {
	w.x ^= w.x << 13
	w.x ^= w.x >> 7
	w.x ^= w.x << 17
	return w.x
}

func (w *worker) uniform() float64 { return float64(w.next()>>11) / (1 << 53) }

// touch reads every byte: nothing wins by not looking. It adds up words of eight, since
// byte by byte 256 of them take as long as our whole read.
func (w *worker) touch(v []byte) {
	for ; len(v) >= 8; v = v[8:] {
		w.sum += int(binary.LittleEndian.Uint64(v))
	}
	for _, c := range v {
		w.sum += int(c)
	}
}

// any, hot are keys of the data; the key is valid until the next.
func (w *worker) any(d *data) (i int, key []byte) { return w.at(d, int(w.next()%uint64(d.n))) }

func (w *worker) hot(d *data, z *zipfian) (i int, key []byte) {
	if z.drawn != nil {
		return w.at(d, int(z.drawn[w.next()&(1<<18-1)])) // keys are scattered already
	}
	return w.at(d, z.rank(w.uniform()))
}

func (w *worker) at(d *data, i int) (int, []byte) {
	if d.keys != nil {
		return i, d.keys[i]
	}
	w.key = appendKey(w.key[:0], i)
	return i, w.key
}

// fresh makes the value of a key anew.
func (w *worker) fresh(d *data, i int) []byte {
	w.value = d.value(i, w.value[:0])
	w.put += int64(len(w.value)) + keyBytes
	return w.value
}
