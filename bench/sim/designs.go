package main

import (
	"encoding/binary"
	"time"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/maypok86/otter/v2"
)

// design is one way to spend the memory.
type design struct {
	name  string
	l1    float64 // share of the memory; the rest is L2's
	otter bool
	moves bool // the shares follow cache.Split, as the engine's do
	o     cache.Options
}

var designs = []design{
	{name: "L1 only", l1: 1},
	{name: "otter v2", otter: true},
	{name: "victim, plain, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicyVictim, Codec: cache.CodecOff}},
	{name: "probation, plain, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicyProbation, Codec: cache.CodecOff}},
	{name: "second, plain, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicySecond, Codec: cache.CodecOff}},
	{name: "victim, dict, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicyVictim}},
	{name: "probation, S2, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicyProbation, Codec: cache.CodecS2}},
	{name: "probation, dict, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicyProbation}},
	{name: "second, dict, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicySecond}},
	{name: "third, plain, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicyThird, Codec: cache.CodecOff}},
	{name: "third, dict, 1:1", l1: 0.5, o: cache.Options{Policy: cache.PolicyThird}},
	{name: "third, dict, 1:3", l1: 0.25, o: cache.Options{Policy: cache.PolicyThird}},
	{name: "third, dict, moving", l1: 0.5, moves: true, o: cache.Options{Policy: cache.PolicyThird}},
	{name: "second, dict, moving", l1: 0.5, moves: true, o: cache.Options{Policy: cache.PolicySecond}},
	{name: "probation, dict, 1:3", l1: 0.25, o: cache.Options{Policy: cache.PolicyProbation}},
	{name: "second, dict, 1:3", l1: 0.25, o: cache.Options{Policy: cache.PolicySecond}},
}

// outcome is what a replay counted in its second half.
type outcome struct {
	reads, l1, l2 int
	nanos         float64 // a call of Get, measured
	packed        bool    // L2 held compressed cells
	dropped       uint64
	filled        int     // cells that went into L2
	part          float64 // of the memory, L2's in the end
}

const (
	sampled = 16  // of so many reads one is timed
	pace    = 128 // misses between waits: a real miss leaves time for what follows it
	looks   = 40  // of cache.Split in a trace: each stands for five seconds,
	// in which a dictionary is made.
	training = 200 * time.Millisecond
)

func (d design) run(t []uint32, memory int64, value func(key uint32) []byte) (outcome, error) {
	if d.otter {
		return runOtter(t, memory, value)
	}
	o := d.o
	o.L1Bytes = int64(float64(memory) * d.l1)
	o.L2Bytes = memory - o.L1Bytes
	if d.moves {
		o.MaxL1Bytes = memory
	}
	c, err := cache.New(o)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close()
	h := cache.NewHorizon(1)
	var key [8]byte
	var out outcome
	var timed, spent time.Duration
	misses := 0
	split := cache.Split{Part: 1 - d.l1}
	var before cache.Metrics
	for i, k := range t {
		if i == len(t)/2 {
			before = c.Metrics()
		}
		look := d.moves && i%max(len(t)/looks, 1) == 0
		if look {
			time.Sleep(training)
		}
		if look && split.Look(c.Metrics(), cache.Cost{}) != "" {
			if l2 := int64(float64(memory) * split.Part); cache.WorthResize(o.L2Bytes, l2) {
				o.L1Bytes, o.L2Bytes = memory-l2, l2
				if err := c.Resize(o.L1Bytes, o.L2Bytes); err != nil {
					return outcome{}, err
				}
			}
		}
		binary.BigEndian.PutUint64(key[:], uint64(k))
		hash := mix(uint64(k))
		var start time.Time
		if i%sampled == 0 {
			start = time.Now()
		}
		_, tier := c.Get(h, hash, key[:])
		if i%sampled == 0 {
			spent += time.Since(start)
			timed++
		}
		if tier == cache.Miss {
			if _, err := c.Load(h, hash, key[:], func() ([]byte, error) { return value(k), nil }); err != nil {
				return outcome{}, err
			}
			if misses++; misses%pace == 0 {
				for c.Metrics().QueuedBytes > 0 {
					time.Sleep(20 * time.Microsecond)
				}
			}
		}
		if i >= len(t)/2 {
			out.count(tier)
		}
	}
	m := c.Metrics()
	out.nanos = float64(spent) / float64(timed)
	out.packed = m.StoredBytes < m.RawBytes*9/10
	out.dropped = m.Dropped
	out.filled = int(m.Victims - before.Victims)
	out.part = float64(o.L2Bytes) / float64(memory)
	return out, nil
}

func (o *outcome) count(t cache.Tier) {
	o.reads++
	switch t {
	case cache.L1:
		o.l1++
	case cache.L2:
		o.l2++
	}
}

func runOtter(t []uint32, memory int64, value func(key uint32) []byte) (outcome, error) {
	c, err := otter.New(&otter.Options[uint64, []byte]{
		MaximumWeight: uint64(memory),
		Weigher: func(_ uint64, v []byte) uint32 {
			return uint32(len(v) + len(v)/16 + overhead) // as we charge L1
		},
		Executor: func(f func()) { f() },
	})
	if err != nil {
		return outcome{}, err
	}
	defer c.StopAllGoroutines()
	var out outcome
	var timed, spent time.Duration
	for i, k := range t {
		var start time.Time
		if i%sampled == 0 {
			start = time.Now()
		}
		_, ok := c.GetIfPresent(uint64(k))
		if i%sampled == 0 {
			spent += time.Since(start)
			timed++
		}
		tier := cache.L1
		if !ok {
			tier = cache.Miss
			c.Set(uint64(k), value(k))
		}
		if i >= len(t)/2 {
			out.count(tier)
		}
	}
	out.nanos = float64(spent) / float64(timed)
	return out, nil
}
