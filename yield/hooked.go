//go:build schedule

package yield

import (
	"context"
	crypto "crypto/rand"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Enabled says whether points do anything.
const Enabled = true

// Hook decides who goes first, and what time it is.
type Hook interface {
	// Point returns when the calling goroutine may go on.
	Point(name string)
	// Start makes c receive once d has passed. stop takes that back.
	Start(c chan<- time.Time, d time.Duration) (stop func() bool)
	Now() time.Time
	// Random fills b.
	Random(b []byte)
}

var hook atomic.Pointer[Hook]

// Set makes h the hook; nil takes it away.
func Set(h Hook) {
	if h == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&h)
}

// Point is where another goroutine may go first.
func Point(name string) {
	if h := hook.Load(); h != nil {
		(*h).Point(name)
	}
}

// Now is the hook's time.
func Now() time.Time {
	if h := hook.Load(); h != nil {
		return (*h).Now()
	}
	return time.Now()
}

// Sleep is like time.Sleep in the hook's time.
func Sleep(d time.Duration) { <-NewTimer(d).C }

// WithTimeout is like context.WithTimeout in the hook's time; its error is Canceled.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if hook.Load() == nil {
		return context.WithTimeout(ctx, d)
	}
	ctx, cancel := context.WithCancel(ctx)
	t := NewTimer(d)
	go func() {
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Random fills b with the hook's bytes, or as crypto/rand.Read does.
func Random(b []byte) {
	if h := hook.Load(); h != nil {
		(*h).Random(b)
		return
	}
	crypto.Read(b) //nolint:errcheck
}

// Uint32 is the hook's, or math/rand's: chance that reaches no file.
func Uint32() uint32 {
	if hook.Load() == nil {
		return rand.Uint32()
	}
	var b [4]byte
	Random(b[:])
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// Timer is like a time.Timer in the hook's time, or, if none is set when it is made,
// is one.
type Timer struct {
	C    <-chan time.Time
	c    chan time.Time
	hook Hook
	stop func() bool
	real *time.Timer
}

// NewTimer is like time.NewTimer.
func NewTimer(d time.Duration) *Timer {
	h := hook.Load()
	if h == nil {
		t := time.NewTimer(d)
		return &Timer{C: t.C, real: t}
	}
	t := &Timer{c: make(chan time.Time, 1), hook: *h}
	t.C = t.c
	t.stop = t.hook.Start(t.c, d)
	return t
}

// Stop is like that of a time.Timer.
func (t *Timer) Stop() bool {
	if t.real != nil {
		return t.real.Stop()
	}
	was := t.stop()
	select {
	case <-t.c:
	default:
	}
	return was
}

// Reset is like that of a time.Timer.
func (t *Timer) Reset(d time.Duration) bool {
	if t.real != nil {
		return t.real.Reset(d)
	}
	was := t.Stop()
	t.stop = t.hook.Start(t.c, d)
	return was
}
