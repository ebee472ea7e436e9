package live

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/yield"
)

// hands are the goroutines of one case: some do a share of work, the others go on
// around them until it is done. The first error, or the end of the case's context,
// stops all.
type hands struct {
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	around sync.WaitGroup

	mu     sync.Mutex // guards the fields up to the next blank line
	err    error
	counts runner.Counts
}

func newHands(ctx context.Context) *hands {
	h := &hands{counts: runner.Counts{}}
	h.ctx, h.cancel = yield.WithTimeout(ctx, longest)
	return h
}

// longest is what a case works at most, on however slow a machine: it then checks
// what was done.
const longest = 5 * time.Second

// going is false once everybody should stop.
func (h *hands) going() bool { return h.ctx.Err() == nil }

// share starts a hand that ends by itself when its work is done.
func (h *hands) share(f func() error) { h.start(&h.work, f) }

// background starts a hand that goes on while h.going.
func (h *hands) background(f func() error) { h.start(&h.around, f) }

func (h *hands) start(wg *sync.WaitGroup, f func() error) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		if err := f(); err != nil {
			h.fail(err)
		}
	}()
}

func (h *hands) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
	h.cancel()
}

func (h *hands) count(name string, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[name] += n
}

// join waits for the work, stops the others, and returns the first error.
func (h *hands) join() error {
	h.work.Wait()
	h.cancel()
	h.around.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// chance makes the choices of one hand.
func chance(seed uint64, hand int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 0x6c697665<<16|uint64(hand)))
}

// breathe lets others run: mostly not at all, sometimes for a moment, rarely long
// enough for a flush.
func breathe(rnd *rand.Rand) {
	switch n := rnd.IntN(32); {
	case n == 0:
		yield.Sleep(time.Duration(rnd.IntN(300)) * time.Microsecond)
	case n < 8:
		yield.Point("breathe")
		runtime.Gosched()
	}
}
