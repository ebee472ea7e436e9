package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

var ctx = context.Background()

// budget is every store's memory in every row here, in bytes.
const budget = 256 << 20

// row is one line of the table: prepare fills a store, work runs against it and
// returns operations per second.
type row struct {
	id, what    string
	durable     bool
	floor, goal float64 // ratio to tuned Pebble: what may not be lost, and what is aimed at
	skip        map[string]string
	prepare     func(s store, d *data) error
	workers     int
	work        func(s store, d *data, w *worker) error // one operation
}

// data is the same for every store: keys scattered over the key space, and values
// that compress by about half.
type data struct {
	keys [][]byte
	zipf []int32
	val  []byte
}

func newData(n, valueBytes int) *data {
	d := &data{keys: make([][]byte, n), zipf: make([]int32, 1<<18), val: make([]byte, valueBytes)}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range d.keys {
		d.keys[i] = fmt.Appendf(nil, "client%016x", uint64(i)*0x9E3779B97F4A7C15)
	}
	for i := range d.val {
		if d.val[i] = 'a'; i%2 == 0 {
			d.val[i] = byte(rnd.IntN(256))
		}
	}
	z := rand.NewZipf(rnd, 1.01, 1, uint64(n-1))
	for i := range d.zipf {
		d.zipf[i] = int32(z.Uint64() * 2654435761 % uint64(n))
	}
	return d
}

func (d *data) hot(w *worker) []byte    { return d.keys[d.zipf[w.next()&0x3ffff]] }
func (d *data) anyKey(w *worker) []byte { return d.keys[w.next()%uint64(len(d.keys))] }

// worker is one goroutine of a row, with its own stream of random numbers.
type worker struct {
	x   uint64
	buf []byte
	sum int
	few [][]byte
}

func (w *worker) next() uint64 {
	w.x ^= w.x << 13
	w.x ^= w.x >> 7
	w.x ^= w.x << 17
	return w.x
}

// touch reads every byte: nothing wins by not looking.
func (w *worker) touch(v []byte) {
	for _, c := range v {
		w.sum += int(c)
	}
}

func load(s store, d *data) error {
	for i := 0; i < len(d.keys); i += 500 {
		if err := s.putBatch(d.keys[i:min(i+500, len(d.keys))], d.val); err != nil {
			return err
		}
	}
	return nil
}

const hotKeys = 60_000

var noPrepare = func(store, *data) error { return nil }

func durablePut(n int, floor, goal float64) row {
	return row{
		id: fmt.Sprintf("durable-put-%d", n), what: fmt.Sprintf("256 B, every put synced, %d writers", n),
		durable: true, floor: floor, goal: goal, prepare: noPrepare, workers: n,
		work: func(s store, d *data, w *worker) error { return s.put(d.anyKey(w), d.val) },
	}
}

var rows = []row{
	{
		id: "hot-get", what: "256 B in memory, zipf, no copy", floor: 10, goal: 15, prepare: load, workers: 2,
		work: func(s store, d *data, w *worker) error { return s.read(d.hot(w), w.touch) },
	},
	{
		id: "hot-get-copy", what: "the same, copied out", floor: 8, goal: 12, prepare: load, workers: 2,
		work: func(s store, d *data, w *worker) (err error) {
			w.buf, err = s.copyTo(w.buf[:0], d.hot(w))
			w.touch(w.buf)
			return err
		},
	},
	{
		id: "absent-get", what: "keys that are not there", floor: 3, goal: 6, workers: 2,
		prepare: func(s store, d *data) error {
			if err := load(s, d); err != nil {
				return err
			}
			return s.flush()
		},
		work: func(s store, d *data, w *worker) error {
			w.buf = append(append(w.buf[:0], d.anyKey(w)...), byte(w.x))
			return s.read(w.buf, w.touch)
		},
	},
	durablePut(1, 0.95, 1.2), durablePut(8, 1.5, 2.4), durablePut(64, 1.3, 2.5), durablePut(256, 2, 3.5),
	{
		id: "async-put", what: "256 B uniform over 1 M keys, not synced, 2 writers, flushes included",
		floor: 1.1, goal: 2, prepare: noPrepare, workers: 2,
		skip: map[string]string{"bbolt": "a transaction per put"},
		work: func(s store, d *data, w *worker) error { return s.put(d.anyKey(w), d.val) },
	},
	{
		id: "batch-1000", what: "durable batches of 1,000 x 256 B (operations are batches)", durable: true,
		floor: 1.5, goal: 2.5, prepare: noPrepare, workers: 1,
		work: func(s store, d *data, w *worker) error {
			w.few = w.few[:0]
			for range 1000 {
				w.few = append(w.few, d.anyKey(w))
			}
			return s.putBatch(w.few, d.val)
		},
	},
	{
		id: "scan-10", what: "10 keys from a random one, half in memory, half in L3", floor: 0.8, goal: 1.2, workers: 2,
		prepare: func(s store, d *data) error {
			half := *d
			half.keys = d.keys[:len(d.keys)/2]
			if err := load(s, &half); err != nil {
				return err
			}
			if err := s.flush(); err != nil {
				return err
			}
			half.keys = d.keys[len(d.keys)/2:]
			return load(s, &half)
		},
		work: func(s store, d *data, w *worker) error {
			return s.scan(d.anyKey(w), 10, func(k, v []byte) { w.touch(v) })
		},
	},
}

func (r row) keys() int {
	switch r.id {
	case "async-put":
		return 1_000_000
	case "durable-put-1", "durable-put-8", "durable-put-64", "durable-put-256", "batch-1000":
		return 200_000
	}
	return hotKeys
}

// run measures the row on one store for the given time and returns operations per
// second. What the writes left to do in the background counts: it ends with a flush.
func (r row) run(s store, d *data, seconds float64) (float64, error) {
	if err := r.prepare(s, d); err != nil {
		return 0, err
	}
	if p, ok := s.(*pebbleStore); ok && r.durable {
		if err := p.warm(); err != nil {
			return 0, err
		}
	}
	var ops atomic.Int64
	var wg sync.WaitGroup
	var stop atomic.Bool
	errs := make([]error, r.workers)
	began := time.Now()
	for i := range r.workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w := &worker{x: uint64(i+1) * 0x9E3779B97F4A7C15}
			n := int64(0)
			for ; !stop.Load(); n++ {
				if errs[i] = r.work(s, d, w); errs[i] != nil {
					break
				}
			}
			ops.Add(n)
		}()
	}
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	stop.Store(true)
	wg.Wait()
	if r.id == "async-put" {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	took := time.Since(began).Seconds()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(ops.Load()) / took, nil
}
