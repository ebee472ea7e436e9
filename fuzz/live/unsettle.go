//go:build schedule

package live

import (
	crypto "crypto/rand"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

// Unsettle makes every goroutine wait by chance where its order matters, so that
// windows of a few instructions are met, until undo is called. It needs -tags
// schedule and does nothing in an ordinary build.
func Unsettle() (undo func()) {
	yield.Set(unsettled{})
	return func() { yield.Set(nil) }
}

// unsettled is a yield.Hook in real time.
type unsettled struct{}

func (unsettled) Point(string) {
	switch n := rand.Uint32N(256); {
	case n == 0:
		time.Sleep(time.Duration(rand.Uint32N(200)) * time.Microsecond)
	case n < 64:
		runtime.Gosched()
	}
}

func (unsettled) Start(c chan<- time.Time, d time.Duration) (stop func() bool) {
	return time.AfterFunc(d, func() {
		select {
		case c <- time.Now():
		default:
		}
	}).Stop
}

func (unsettled) Now() time.Time { return time.Now() }

func (unsettled) Random(b []byte) { crypto.Read(b) } //nolint:errcheck
