//go:build !schedule

package yield

import (
	"context"
	crypto "crypto/rand"
	"math/rand/v2"
	"sync"
	"time"
)

// Enabled says whether points do anything.
const Enabled = false

// Point is where another goroutine may go first.
func Point(string) {}

// Timer is a time.Timer.
type Timer = time.Timer

// NewTimer is time.NewTimer.
func NewTimer(d time.Duration) *Timer { return time.NewTimer(d) }

// Now is time.Now.
func Now() time.Time { return time.Now() }

// Mutex is a sync.Mutex.
type Mutex = sync.Mutex

// Sleep is time.Sleep.
func Sleep(d time.Duration) { time.Sleep(d) }

// WithTimeout is context.WithTimeout.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// Random fills b with random bytes, as crypto/rand.Read does: it never fails.
func Random(b []byte) { crypto.Read(b) } //nolint:errcheck

// Uint32 is math/rand's: cheap chance that reaches no file.
func Uint32() uint32 { return rand.Uint32() }
