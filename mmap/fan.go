package mmap

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// fan calls f for 0 to n-1 from width goroutines, the caller's among them, and
// returns when all have ended. After an f that returned false no new one
// begins, and fan returns false. A panic of any f comes out of fan: the bytes
// that f reads may be a caller's mapping under [guard], and a fault in it must
// reach that guard from here too.
func fan(n, width int, f func(i int) bool) bool {
	width = min(width, n)
	if width <= 1 {
		for i := range n {
			if !f(i) {
				return false
			}
		}
		return true
	}
	var next atomic.Int64
	var stop atomic.Bool
	work := func() {
		for !stop.Load() {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			if !f(i) {
				stop.Store(true)
			}
		}
	}
	// The setting is one of the goroutine, and cannot be asked for.
	faults := debug.SetPanicOnFault(true)
	debug.SetPanicOnFault(faults)
	var mu sync.Mutex
	var panicked any
	var wg sync.WaitGroup
	for range width - 1 {
		wg.Go(func() {
			debug.SetPanicOnFault(faults)
			defer func() {
				if r := recover(); r != nil {
					stop.Store(true)
					mu.Lock()
					panicked = r
					mu.Unlock()
				}
			}()
			work()
		})
	}
	func() {
		done := false
		defer func() {
			if !done {
				stop.Store(true)
			}
			wg.Wait()
		}()
		work()
		done = true
	}()
	if panicked != nil {
		panic(panicked)
	}
	return !stop.Load()
}

// firstError keeps the error of the lowest index, whoever was faster.
type firstError struct {
	mu  sync.Mutex
	i   int
	err error
}

// at notes what i came to, and says whether that is well.
func (e *firstError) at(i int, err error) bool {
	if err == nil {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil || i < e.i {
		e.i, e.err = i, err
	}
	return false
}
