package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// probes are what the machine itself does, measured beside each arm: where they differ
// much between the arms of a row, so did the machine, and the row says so.
type probes struct {
	spin, copy, sync time.Duration
}

const unsteady = 1.25 // slowest to fastest probe of a row

// copied is larger than what a core caches, and small beside what the arms have.
var copied [32 << 20]byte

func probe() (p probes, err error) {
	x := uint64(1)
	began := time.Now()
	for range 20_000_000 {
		x = x*6364136223846793005 + 1442695040888963407
	}
	if p.spin = time.Since(began); x == 0 {
		return p, nil // it never is; the loop must not be dropped
	}
	var took []time.Duration
	for i := range copied {
		copied[i] = byte(i) // pages that nobody wrote are all one
	}
	for range 5 {
		began = time.Now()
		copy(copied[:len(copied)/2], copied[len(copied)/2:])
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	p.copy = took[len(took)/2]
	p.sync, err = syncTime()
	return p, err
}

// syncTime is the median of some syncs after 4 KiB over what was written before.
func syncTime() (time.Duration, error) {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	if _, err := f.Write(b); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	var took []time.Duration
	for i := range 50 {
		began := time.Now()
		if _, err := f.WriteAt(b[:4096], int64(i)*4096); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// drift describes how far probes lie apart, if far.
func drift(all []probes, durable bool) string {
	out := ""
	for _, k := range []struct {
		name string
		of   func(probes) time.Duration
		on   bool
	}{
		{"a loop", func(p probes) time.Duration { return p.spin }, true},
		{"a copy", func(p probes) time.Duration { return p.copy }, true},
		{"a sync", func(p probes) time.Duration { return p.sync }, durable},
	} {
		var x []float64
		for _, p := range all {
			x = append(x, float64(k.of(p)))
		}
		if r := slices.Max(x) / slices.Min(x); k.on && r > unsteady {
			out += fmt.Sprintf(" %s took %.2f times as long beside one arm as beside another;", k.name, r)
		}
	}
	return out
}
