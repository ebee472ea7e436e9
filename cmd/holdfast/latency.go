package main

import (
	"math/bits"
	"time"
)

// latency counts durations in a fixed number of buckets, each at most a sixteenth
// wide: millions of reads a second are too many to keep, and what they took should
// not show in the memory that the demo reports.
type latency struct {
	n       uint64
	buckets [64 * latencySteps]uint64
}

const latencySteps = 16

func (l *latency) add(d time.Duration) {
	l.n++
	l.buckets[bucket(uint64(max(d, 0)))]++
}

// bucket of v: exact below latencySteps, then sixteen per power of two.
func bucket(v uint64) int {
	if v < latencySteps {
		return int(v)
	}
	shift := bits.Len64(v) - 5
	return (shift+1)*latencySteps + int(v>>shift) - latencySteps
}

// lowest is the least value of bucket b.
func lowest(b int) uint64 {
	if b < latencySteps {
		return uint64(b)
	}
	shift := b/latencySteps - 1
	return uint64(b%latencySteps+latencySteps) << shift
}

func (l *latency) merge(o *latency) {
	l.n += o.n
	for i, n := range o.buckets {
		l.buckets[i] += n
	}
}

// quantile is the duration that a share q of all did not exceed, from below; zero
// if there were none.
func (l *latency) quantile(q float64) time.Duration {
	rank := uint64(q * float64(l.n))
	for b, n := range l.buckets {
		if n > rank {
			return time.Duration(lowest(b))
		}
		rank -= n
	}
	return 0
}

func (l *latency) report() latencyReport {
	return latencyReport{l.n, l.quantile(0.50), l.quantile(0.95), l.quantile(0.99), l.quantile(0.999)}
}
