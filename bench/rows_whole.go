package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Rows with a shape of their own.
var wholeRows = []*row{
	{
		id: "open", what: "open after a kill with 60,000 unflushed puts of 1 KB, until 1,000 reads and a durable put are done",
		unit: "ms", less: true, floor: 1, goal: 2, peers: []string{"pebble", "badger"}, durable: true, budget: 768 << 20,
		data: func(int64) *data { return plain(60_000, 1024) }, run: openAfterKill,
	},
	{
		id: "clients-10k", what: "10,000 clients with 1 KB of state, each reads and updates its own, durable, 100K ops/s together",
		unit: resident, less: true, peers: []string{"pebble"}, durable: true, budget: 16 << 20,
		data: func(int64) *data { return plain(10_000, 1024) }, prepare: (*arm).load, run: clients,
	},
	seed("create", 12_053, func(a *arm, w *worker, n int) error {
		w.key = fmt.Appendf(w.key[:0], "new%x-%x", w.id, n)
		return a.put(w.key, w.fresh(a.data, n%a.data.n))
	}),
	seed("read", 95_238, func(a *arm, w *worker, _ int) error {
		_, k := w.any(a.data)
		return a.read(k, w.touch)
	}),
	seed("update", 10_526, func(a *arm, w *worker, _ int) error { return putAny(a, w) }),
	{
		id: "large-put-1m", timed: 1, what: "durable puts of 1 MiB that do not compress", floor: 1.5, goal: 2.5, peers: []string{"pebble", "badger", "files"},
		durable: true, data: func(int64) *data { return noise(500, 1<<20) }, workers: 1, work: putAny, settle: true,
	},
	{
		id: "large-write", what: "one value streamed in, durable, beside a plain file and fsync", unit: "MiB/s", floor: 0.8, goal: 0.95,
		peers: []string{"files"}, durable: true, run: func(a *arm) (float64, error) {
			began := time.Now()
			err := a.store.(streams).stream("large", randomBytes(largeBytes()))
			return float64(largeBytes()>>20) / time.Since(began).Seconds(), err
		},
	},
	{
		id: "large-read", what: "one raw value, hot, all of it, beside os.ReadFile", unit: "MiB/s", floor: 1, goal: 3,
		peers: []string{"files"}, budget: 9 << 30, prepare: func(a *arm) error { // only what is synced is mapped
			return errors.Join(a.store.(streams).stream("large", randomBytes(largeBytes())), a.flush())
		},
		run: func(a *arm) (float64, error) {
			w := &worker{}
			var took []time.Duration
			for range 6 {
				began := time.Now()
				if err := a.read([]byte("large"), w.touchLines); err != nil {
					return 0, err
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			return float64(largeBytes()>>20) / took[2].Seconds(), nil
		},
	},
}

// streams is a store that takes a value of any size from a reader.
type streams interface {
	stream(key string, r io.Reader) error
}

func largeBytes() int64 {
	if *suite == "full" {
		return 1 << 30
	}
	return 64 << 20
}

func randomBytes(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
}

// noise is values that do not compress.
func noise(n, size int) *data {
	block := make([]byte, 2*size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(block)
	return newData(n, func(i int, into []byte) []byte {
		at := mix(uint64(i)) % uint64(size)
		return append(into, block[at:at+uint64(size)]...)
	})
}

// touchLines reads a byte of every cache line.
func (w *worker) touchLines(v []byte) {
	for i := 0; i < len(v); i += 64 {
		w.sum += int(v[i])
	}
}

// seed is an operation of the seed figures: durable, 64 clients. The floor is in
// operations per second, and the peer is beside it only.
func seed(op string, least float64, work func(a *arm, w *worker, n int) error) *row {
	return &row{
		id: "seed-" + op, what: fmt.Sprintf("%s, 256 B, durable, 64 clients (%.0f/s are asked for, ten times as many the goal)", op, least),
		peers: []string{"pebble"}, durable: true, workers: 64,
		data: func(int64) *data { return plain(fewKeys, 256) }, prepare: (*arm).load,
		work: func(a *arm, w *worker) error { w.added++; return work(a, w, w.added) },
	}
}

// openAfterKill lets another process fill the store and be killed, then opens it. The
// store that the arm was given makes room first: it is closed.
func openAfterKill(a *arm) (float64, error) {
	if err := a.close(); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	c := exec.Command(self, "-suite", *suite, "-fill", a.dir, "-arm-row", a.row.id, "-arm-of", a.name)
	c.Stderr = os.Stderr
	var left *exec.ExitError
	if err := c.Run(); !errors.As(err, &left) || left.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return 0, fmt.Errorf("filling: %w", err)
	}
	began := time.Now()
	if a.store, err = open(a.name, a.dir, a.budget, true); err != nil {
		return 0, err
	}
	w := &worker{x: 1}
	for range 1000 {
		i, k := w.any(a.data)
		right := false
		err := a.read(k, func(v []byte) { right = bytes.Equal(v, w.fresh(a.data, i)) })
		if err != nil || !right {
			return 0, fmt.Errorf("key %s is lost: %w", k, err)
		}
	}
	err = a.put([]byte("one more"), []byte("durable"))
	return float64(time.Since(began).Microseconds()) / 1000, err
}

// fill is the process that is killed: all but what stays in the log is flushed.
func fill(r *row, name, dir string) error {
	s, err := open(name, dir, r.budget, false)
	if err != nil {
		return err
	}
	a := &arm{store: s, row: r, data: r.data(r.budget)}
	if err := errors.Join(a.load(), a.flush(), a.load()); err != nil {
		return err
	}
	time.Sleep(time.Second) // the last writes leave the buffer of a log that is not synced
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// clients runs them for the length of an arm and gives what is resident, as the kernel
// counts it; the parent asks. What a put takes is in the note.
func clients(a *arm) (float64, error) {
	const pairs = 50_000 // a second, of a read and an update
	n := a.data.n
	every := time.Duration(float64(n) / pairs * float64(time.Second))
	var wg sync.WaitGroup
	var stop atomic.Bool
	var done atomic.Int64
	failed := make(chan error, n)
	slow := make([]int32, n) // the longest put of each client, in microseconds
	over := make([]int32, n) // of its puts, those above 20 ms
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			w := &worker{id: i}
			time.Sleep(every * time.Duration(i) / time.Duration(n))
			for next := time.Now(); !stop.Load(); next = next.Add(every) {
				time.Sleep(time.Until(next))
				_, k := w.at(a.data, i)
				if err := a.read(k, w.touch); err != nil {
					failed <- err
					return
				}
				put := time.Now()
				if err := a.put(k, a.data.value(i, nil)); err != nil {
					failed <- err
					return
				}
				us := int32(time.Since(put).Microseconds())
				slow[i] = max(slow[i], us)
				if us > 20_000 {
					over[i]++
				}
				done.Add(2)
			}
		})
	}
	time.Sleep(time.Duration(max(a.seconds, 3) * float64(time.Second)))
	stop.Store(true)
	wg.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
	}
	total := int64(0)
	for _, o := range over {
		total += int64(o)
	}
	rate := float64(done.Load()) / time.Since(began).Seconds()
	a.note = fmt.Sprintf("%.0f ops/s; %.2f %% of puts above 20 ms, the longest %.1f ms", rate, 200*float64(total)/float64(done.Load()), float64(slices.Max(slow))/1000)
	return 0, nil
}
