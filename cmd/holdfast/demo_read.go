package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/engine"
)

// readReport is the skewed workload.
type readReport struct {
	Reads   uint64        `json:"reads"`
	Seconds float64       `json:"seconds"`
	Bytes   int64         `json:"bytes"`
	Tiers   []tierReport  `json:"tiers"`
	Small   latencyReport `json:"small"` // whole reads of values below largeBytes
	Large   latencyReport `json:"large"` // and of the others
}

const (
	largeBytes = 64 << 10 // the engine's default for LargeValue
	zipfS      = 1.1
)

// reader is one goroutine of the workload.
type reader struct {
	small, large latency
	reads        uint64
	bytes        int64
	err          error
}

// readSkewed reads keys with a zipf distribution for a while.
func readSkewed(ctx context.Context, e *engine.Engine, keys [][]byte, seed uint64, long time.Duration) (readReport, error) {
	// Which keys are hot has nothing to do with their order.
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	ctx, stop := context.WithTimeout(ctx, long)
	defer stop()
	before, began := e.Metrics(), time.Now()
	readers := make([]reader, min(4, runtime.GOMAXPROCS(0)))
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(2+i)))
			readers[i].run(ctx, e, keys, r)
		})
	}
	all.Wait()
	out := readReport{Seconds: time.Since(began).Seconds()}
	after := e.Metrics()
	var sum reader
	for i := range readers {
		r := &readers[i]
		if r.err != nil {
			return out, r.err
		}
		sum.small.merge(&r.small)
		sum.large.merge(&r.large)
		out.Reads += r.reads
		out.Bytes += r.bytes
	}
	// Latencies are since the store was opened: the few reads before these, which warmed
	// the map, are in them.
	out.Tiers = reportTiers(&before, &after, out.Reads)
	out.Small, out.Large = sum.small.report(), sum.large.report()
	return out, nil
}

func (r *reader) run(ctx context.Context, e *engine.Engine, keys [][]byte, rnd *rand.Rand) {
	zipf := rand.NewZipf(rnd, zipfS, 1, uint64(len(keys)-1))
	for ctx.Err() == nil {
		for range 64 { // ctx is not free to ask
			key := keys[zipf.Uint64()]
			r.reads++
			var n int
			began := time.Now()
			err := e.View(key, func(value []byte) error {
				n = len(value)
				return nil
			})
			took := time.Since(began)
			switch {
			case err != nil:
				r.err = ofKey(key, err)
				return
			case n >= largeBytes:
				r.large.add(took)
			default:
				r.small.add(took)
			}
			r.bytes += int64(n)
		}
	}
}

// warmMap rewrites some files with what they hold, so that the map has a part in
// the reads: everything else was flushed.
func (m *model) warmMap(e *engine.Engine, files []int, r *rand.Rand) error {
	const share = 20
	for range 1 + len(files)/share {
		key := m.p.key(files[r.IntN(len(files))])
		value, err := e.Get(key)
		if err != nil {
			return ofKey(key, err)
		}
		if len(value) >= largeBytes {
			continue
		}
		if err := e.Put(key, value); err != nil {
			return ofKey(key, err)
		}
	}
	return nil
}

// errLost reports a demo that failed.
var errLost = errors.New("the store did not keep its promise")

func (v *verdict) err(kills int) error {
	if !v.bad() {
		return nil
	}
	return fmt.Errorf("%w after %s: %d lost, %d partial, %d wrong: %s", errLost, count(kills, "kill"),
		v.Lost, v.Partial, v.Wrong, v.Details[0])
}
