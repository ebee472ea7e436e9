package main

import (
	"math"
	"math/rand/v2"
	"sort"
)

// trace is a workload: the keys that are read, in order.
type trace struct {
	name string
	make func(p params) []uint32
}

// params scale a trace to the memory: fits is how many plain cells it holds.
type params struct {
	reads, keys, fits int
}

var traces = []trace{
	{"zipf 0.7", func(p params) []uint32 { return zipfian(p, 0.7) }},
	{"zipf 0.9", func(p params) []uint32 { return zipfian(p, 0.9) }},
	{"zipf 0.99", func(p params) []uint32 { return zipfian(p, 0.99) }},
	{"zipf 1.2", func(p params) []uint32 { return zipfian(p, 1.2) }},
	{"scan", scan},
	{"loop", loop},
	{"shift", shift},
	{"one-hit", wonders},
}

// scatter is a bijection of 32 bits: neighbours in rank are none in the key space.
func scatter(rank int) uint32 {
	x := uint32(rank) * 2654435761
	x ^= x >> 15
	return x * 2246822519
}

// ranks draws from a zipf distribution of any exponent; rand.Zipf only knows those
// above one.
func ranks(r *rand.Rand, n int, exponent float64) func() int {
	sum, total := make([]float64, n), 0.0
	for i := range sum {
		total += math.Pow(float64(i+1), -exponent)
		sum[i] = total
	}
	return func() int { return min(sort.SearchFloat64s(sum, r.Float64()*total), n-1) }
}

func random() *rand.Rand { return rand.New(rand.NewPCG(7, 11)) }

func zipfian(p params, exponent float64) []uint32 {
	rank := ranks(random(), p.keys, exponent)
	t := make([]uint32, p.reads)
	for i := range t {
		t[i] = scatter(rank())
	}
	return t
}

// scan is zipf 0.99 with scans of 2,000 keys between, a fifth of all reads.
func scan(p params) []uint32 {
	t, at := zipfian(p, 0.99), 0
	for i := 0; i+10_000 <= len(t); i += 10_000 {
		for j := range 2000 {
			t[i+8000+j] = scatter(at % p.keys)
			at += 37
		}
	}
	return t
}

// loop goes round a fifth more than the memory holds as it is.
func loop(p params) []uint32 {
	t := make([]uint32, p.reads)
	for i := range t {
		t[i] = scatter(i % (p.fits * 6 / 5))
	}
	return t
}

// shift is zipf 0.99 whose hot keys are others after each tenth.
func shift(p params) []uint32 {
	rank := ranks(random(), p.keys, 0.99)
	t := make([]uint32, p.reads)
	for i := range t {
		t[i] = scatter((rank() + i/(p.reads/10)*p.keys/7) % p.keys)
	}
	return t
}

// wonders is zipf 0.99 for half of the reads; the others are of keys that never
// come again.
func wonders(p params) []uint32 {
	t := zipfian(p, 0.99)
	for i := 0; i < len(t); i += 2 {
		t[i] = scatter(p.keys + i)
	}
	return t
}
