package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// tightBudget is that of rows whose data are many times larger.
const tightBudget = 64 << 20

func eightTimes(budget int64) *data { return jsonStates(8 * budget) }

func getHot(a *arm, w *worker) error {
	_, k := w.hot(a.data, a.zipf)
	return a.read(k, w.touch)
}

func loadAndFlush(a *arm) error {
	if err := a.load(); err != nil {
		return err
	}
	return a.flush()
}

// tightRows have data eight times the budget.
var tightRows = []*row{
	{
		id: "cold-get", what: "uniform over JSON states of 300 B to 2 KB, 8 x the budget, page cache warm", floor: 0.95, goal: 1.1,
		peers: []string{"pebble", "badger"}, budget: tightBudget, data: eightTimes, prepare: loadAndFlush, workers: 2, warm: 0.5,
		work: func(a *arm, w *worker) error { _, k := w.any(a.data); return a.read(k, w.touch) },
	},
	{
		id: "ltm-get", what: "the same, zipf 0.99, the same peak resident size", floor: 2, goal: 4,
		peers: []string{"pebble"}, budget: tightBudget, same: true, data: eightTimes, prepare: loadAndFlush, workers: 2, warm: 4, work: getHot,
	},
	{
		id: "ltm-get-l2", what: "the same beside ourselves, with all of L2's memory in L1", floor: 0.97, goal: 1.15,
		peers: []string{"holdfast-l1"}, budget: tightBudget, data: eightTimes, prepare: loadAndFlush, workers: 2, warm: 4, work: getHot,
	},
	{
		id: "ltm-get-l2-device", what: "the same, L3 read from the device", floor: 1.3, goal: 1.8,
		peers: []string{"holdfast-l1"}, budget: tightBudget, data: eightTimes, workers: 2, warm: 4, work: getHot,
		prepare: func(a *arm) error {
			if err := loadAndFlush(a); err != nil {
				return err
			}
			go a.forgetPages()
			return nil
		},
	},
}

// forgetPages keeps the tables of a store out of the page cache until the process ends.
func (a *arm) forgetPages() {
	for {
		tables, _ := filepath.Glob(filepath.Join(a.dir, "l3", "*.sst"))
		for _, name := range tables {
			if f, err := os.Open(name); err == nil { // it may be gone by now
				_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
				f.Close()
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ycsb is a workload of Cooper et al., "Benchmarking cloud serving systems with YCSB"
// (SoCC 2010): 1 KB records, four times the budget.
func ycsb(letter byte, floor, goal float64, op func(a *arm, w *worker) error) *row {
	return &row{
		id: "ycsb-" + string(letter), what: fmt.Sprintf("YCSB %c, 1 KB, 4 x the budget", letter-'a'+'A'), floor: floor, goal: goal,
		peers: []string{"pebble", "badger", "goleveldb"}, budget: tightBudget, workers: 2, warm: 1, settle: true,
		data:    func(budget int64) *data { return plain(int(4*budget/1024), 1024) },
		prepare: loadAndFlush, work: op,
	}
}

func (a *arm) readHot(w *worker) error { return getHot(a, w) }

func (a *arm) updateHot(w *worker) error {
	i, k := w.hot(a.data, a.zipf)
	return a.put(k, w.fresh(a.data, i))
}

// latest reads near the newest record, insert adds one: each worker has its own.
func (a *arm) latest(w *worker) error {
	back := a.zipf.rank(w.uniform())
	if back < w.added {
		return a.read(w.own(w.added-back), w.touch)
	}
	_, k := w.at(a.data, a.data.n-1-(back-w.added))
	return a.read(k, w.touch)
}

func (a *arm) insert(w *worker) error {
	w.added++
	return a.put(w.own(w.added), w.fresh(a.data, w.added))
}

func (w *worker) own(n int) []byte {
	w.key = fmt.Appendf(w.key[:0], "client%016x", mix(uint64(n))<<8|uint64(w.id))
	return w.key
}

func (a *arm) scanHot(w *worker) error {
	_, k := w.hot(a.data, a.zipf)
	return a.scan(k, 1+int(w.next()%100), func(k, v []byte) { w.touch(v) })
}

// oneOf does the second in so many percent of all operations.
func oneOf(first, second func(a *arm, w *worker) error, percent uint64) func(a *arm, w *worker) error {
	return func(a *arm, w *worker) error {
		if w.next()>>7%100 < percent {
			return second(a, w)
		}
		return first(a, w)
	}
}

var ycsbRows = []*row{
	ycsb('a', 1.5, 3, oneOf((*arm).readHot, (*arm).updateHot, 50)),
	ycsb('b', 1.5, 3, oneOf((*arm).readHot, (*arm).updateHot, 5)),
	ycsb('c', 1.5, 3, (*arm).readHot),
	ycsb('d', 1.5, 3, oneOf((*arm).latest, (*arm).insert, 5)),
	ycsb('e', 0.8, 1.2, oneOf((*arm).scanHot, (*arm).insert, 5)),
	ycsb('f', 1.5, 3, oneOf((*arm).readHot, func(a *arm, w *worker) (err error) {
		i, k := w.hot(a.data, a.zipf)
		if w.value, err = a.copyTo(w.value[:0], k); err != nil {
			return err
		}
		w.touch(w.value)
		return a.put(k, w.fresh(a.data, i))
	}, 50)),
}
