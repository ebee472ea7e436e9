package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

var ctx = context.Background()

// budget is every store's memory in a row that names none, in bytes.
const budget = 256 << 20

// row is one line of the table: prepare fills a store, work is one operation of a
// worker. A row of another shape has its own run.
type row struct {
	id, what    string
	unit        string  // ops/s, if it names none
	less        bool    // less is better
	floor, goal float64 // ratio to the first peer: what may not be lost, and what is aimed at
	peers       []string
	durable     bool
	budget      int64
	same        bool // the peer's budget is tuned until both have the same peak resident size
	data        func(budget int64) *data
	prepare     func(a *arm) error
	workers     int
	timed       int     // one operation of so many; zero is timedEvery
	warm        float64 // times the length of an arm that runs before the clock
	work        func(a *arm, w *worker) error
	settle      bool // what the writes left to do in the background counts: it ends with a flush
	run         func(a *arm) (float64, error)
}

// arm is one store that one row is measured on, in a process of its own.
type arm struct {
	store
	row     *row
	name    string // of the store
	dir     string
	budget  int64
	seconds float64
	data    *data
	zipf    *zipfian // over the data, YCSB's
	note    string   // what the figure does not say
	cost    cost
	ops     int64
}

func (r *row) takesPart(peer string) bool {
	for _, p := range r.peers {
		if p == peer {
			return true
		}
	}
	return false
}

// load stores everything, in batches.
func (a *arm) load() error { return a.loadPart(0, a.data.n) }

func (a *arm) loadPart(from, to int) error {
	w := &worker{}
	for i := from; i < to; {
		n := min(to-i, 500)
		err := a.putBatch(n, func(j int) (k, v []byte) {
			_, k = w.at(a.data, i+j)
			return k, w.fresh(a.data, i+j)
		})
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// measure prepares the store and returns the row's figure.
func (a *arm) measure() (float64, error) {
	if a.row.prepare != nil {
		if err := a.row.prepare(a); err != nil {
			return 0, fmt.Errorf("prepare: %w", err)
		}
	}
	if s, ok := a.store.(interface{ warm() error }); ok && a.row.durable && a.row.unit != resident {
		if err := s.warm(); err != nil {
			return 0, err
		}
	}
	if a.row.run != nil {
		return a.row.run(a)
	}
	return a.clocked()
}

// clocked drives fresh workers, and gives the operations of a second.
func (a *arm) clocked() (float64, error) {
	workers := make([]*worker, a.row.workers)
	for i := range workers {
		workers[i] = &worker{id: i, x: uint64(i+1) * 0x9E3779B97F4A7C15}
	}
	if a.row.warm > 0 {
		if _, err := a.drive(workers, a.row.warm*a.seconds); err != nil {
			return 0, err
		}
	}
	for _, w := range workers {
		w.took, w.timed, w.put = w.took[:0], 0, 0
	}
	_ = deviceWrites() // what the preparation left is none of the arm's
	before, began := readSpent(), time.Now()
	mark(markBegin)
	ops, err := a.drive(workers, a.seconds)
	if err == nil && a.row.settle {
		err = a.flush()
	}
	mark(markEnd)
	took := time.Since(began)
	a.cost, a.ops = costOf(before, workers, ops), ops
	return float64(ops) / took.Seconds(), err
}

// drive lets the workers work for so long.
func (a *arm) drive(workers []*worker, seconds float64) (int64, error) {
	var ops atomic.Int64
	var stop atomic.Bool
	errs := make([]error, len(workers))
	every := int64(a.row.timed)
	if every == 0 {
		every = timedEvery
	}
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() {
			n := int64(0)
			for ; !stop.Load(); n++ {
				timed := n%every == 0
				var began time.Time
				if timed {
					began = time.Now()
				}
				if errs[i] = a.row.work(a, w); errs[i] != nil {
					break
				}
				if timed {
					w.time(time.Since(began), len(workers))
				}
			}
			ops.Add(n)
		})
	}
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	stop.Store(true)
	wg.Wait()
	return ops.Load(), errors.Join(errs...)
}
