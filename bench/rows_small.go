package main

import "fmt"

var (
	all      = []string{"pebble", "badger", "bbolt", "goleveldb", "sqlite"}
	inMemory = append(all[:len(all):len(all)], "map", "xsync")
)

const hotKeys = 60_000

func hotData(int64) *data { return plain(hotKeys, 256) }

// readRows answer from memory.
var readRows = []*row{
	{
		id: "hot-get", timed: 256, what: "256 B in memory, zipf, no copy", floor: 10, goal: 15, peers: inMemory, workers: 2,
		data: hotData, prepare: (*arm).load,
		work: func(a *arm, w *worker) error { _, k := w.hot(a.data, a.zipf); return a.read(k, w.touch) },
	},
	{
		id: "hot-get-copy", timed: 256, what: "the same, copied out", floor: 8, goal: 12, peers: inMemory, workers: 2,
		data: hotData, prepare: (*arm).load,
		work: func(a *arm, w *worker) (err error) {
			_, k := w.hot(a.data, a.zipf)
			w.value, err = a.copyTo(w.value[:0], k)
			w.touch(w.value)
			return err
		},
	},
	{
		id: "absent-get", timed: 256, what: "keys that are not there", floor: 3, goal: 6, peers: all, workers: 2,
		data: hotData, prepare: func(a *arm) error {
			if err := a.load(); err != nil {
				return err
			}
			return a.flush()
		},
		work: func(a *arm, w *worker) error {
			_, k := w.any(a.data)
			w.value = append(append(w.value[:0], k...), byte(w.x))
			return a.read(w.value, w.touch)
		},
	},
	{
		id: "scan-10", what: "10 keys from a random one, half in memory, half in L3", floor: 0.8, goal: 1.2, peers: all, workers: 2,
		data: hotData, prepare: halfInL3,
		work: func(a *arm, w *worker) error {
			_, k := w.any(a.data)
			return a.scan(k, 10, func(k, v []byte) { w.touch(v) })
		},
	},
	{
		id: "scan-all", timed: 1, what: "all keys, half in memory, half in L3 (operations are scans)", floor: 0.8, goal: 1.2, peers: all, workers: 1,
		data: hotData, prepare: halfInL3,
		work: func(a *arm, w *worker) error {
			return a.scan(nil, a.data.n, func(k, v []byte) { w.touch(v) })
		},
	},
}

func halfInL3(a *arm) error {
	if err := a.loadPart(0, a.data.n/2); err != nil {
		return err
	}
	if err := a.flush(); err != nil {
		return err
	}
	return a.loadPart(a.data.n/2, a.data.n)
}

func putAny(a *arm, w *worker) error {
	i, k := w.any(a.data)
	return a.put(k, w.fresh(a.data, i))
}

func durablePut(n int, floor, goal float64) *row {
	return &row{
		id: fmt.Sprintf("durable-put-%d", n), what: fmt.Sprintf("256 B, every put synced, %d writers", n),
		durable: true, floor: floor, goal: goal, peers: all, workers: n, timed: 1, work: putAny,
		data: func(int64) *data { return plain(fewKeys, 256) },
	}
}

// writeRows are of 256 B.
var writeRows = []*row{
	durablePut(1, 0.95, 1.2), durablePut(8, 1.5, 2.4), durablePut(64, 1.3, 2.5), durablePut(256, 2, 3.5),
	{
		id: "async-put", what: "256 B uniform over 1 M keys, not synced, 2 writers, flushes included", floor: 1.1, goal: 2,
		peers: []string{"pebble", "badger", "goleveldb"}, // bbolt and SQLite have a transaction per put
		data:  func(int64) *data { return plain(1_000_000, 256) }, workers: 2, work: putAny, settle: true,
	},
	{
		id: "overwrite-zipf", what: "the same, zipf 0.99", floor: 2, goal: 4, peers: []string{"pebble", "badger", "goleveldb"},
		data: func(int64) *data { return plain(1_000_000, 256) }, workers: 2, settle: true,
		work: func(a *arm, w *worker) error {
			i, k := w.hot(a.data, a.zipf)
			return a.put(k, w.fresh(a.data, i))
		},
	},
	{
		id: "batch-1000", timed: 1, what: "durable batches of 1,000 x 256 B (operations are batches)", durable: true,
		floor: 1.5, goal: 2.5, peers: all, data: func(int64) *data { return plain(fewKeys, 256) }, workers: 1,
		work: func(a *arm, w *worker) error {
			return a.putBatch(1000, func(int) (k, v []byte) {
				i, k := w.any(a.data)
				return k, w.fresh(a.data, i)
			})
		},
	},
}
