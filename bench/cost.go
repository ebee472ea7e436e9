package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cost is what the operations of an arm took beside the wall clock.
type cost struct {
	P50     float64 `json:"p50_us"` // of those that were timed
	P99     float64 `json:"p99_us"`
	P999    float64 `json:"p999_us"`
	Allocs  float64 `json:"allocs"`            // for an operation, background work included
	CPU     float64 `json:"cpu_s"`             // seconds for a million operations, likewise
	Written float64 `json:"written,omitempty"` // bytes toward the device for a byte that was put
}

// timedEvery is for rows that say nothing of it: two looks at the clock take as long as
// some reads.
const timedEvery = 16

// manyTimes is how many samples a p999 wants.
const manyTimes = 1000

// keptTimes bounds what is kept of them, by all workers together: the last ones.
const keptTimes = 1 << 18

func (w *worker) time(took time.Duration, workers int) {
	if most := keptTimes / workers; len(w.took) < most {
		w.took = append(w.took, took)
	} else {
		w.took[w.timed%most] = took
	}
	w.timed++
}

// spent is what the process has used up.
type spent struct {
	mallocs uint64
	cpu     time.Duration
	written int64
}

func readSpent() (s spent) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.mallocs = m.Mallocs
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		s.cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	s.written = deviceWrites()
	return s
}

// deviceWrites is how many bytes the device below the temporary folder was asked to
// write, by anybody; zero where the kernel does not say. What a process dirtied by its own
// account is no measure: a large folio counts whole for a byte.
func deviceWrites() int64 {
	var st unix.Stat_t
	f, err := os.Open(os.TempDir())
	if err != nil {
		return 0
	}
	defer f.Close()
	if unix.Syncfs(int(f.Fd())) != nil || unix.Fstat(int(f.Fd()), &st) != nil { // what waits in the page cache, too
		return 0
	}
	b, _ := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	fields := bytes.Fields(b)
	if len(fields) < 7 {
		return 0
	}
	sectors, _ := strconv.ParseInt(string(fields[6]), 10, 64) // zero for what is no number
	return sectors * 512
}

// costOf says what ops operations of the workers took since before.
func costOf(before spent, workers []*worker, ops int64) (c cost) {
	after := readSpent()
	var took []time.Duration
	put := int64(0)
	for _, w := range workers {
		took, put = append(took, w.took...), put+w.put
	}
	slices.Sort(took)
	at := func(q float64) float64 {
		if len(took) == 0 {
			return 0
		}
		return float64(took[int(q*float64(len(took)-1))].Nanoseconds()) / 1000
	}
	c.P50, c.P99 = at(0.5), at(0.99)
	if len(took) >= manyTimes {
		c.P999 = at(0.999)
	}
	if ops > 0 {
		c.Allocs = float64(after.mallocs-before.mallocs) / float64(ops)
		c.CPU = (after.cpu - before.cpu).Seconds() / float64(ops) * 1e6
	}
	if put > 0 && before.written > 0 && after.written > 0 {
		c.Written = float64(after.written-before.written) / float64(put)
	}
	return c
}
