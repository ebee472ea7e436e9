package oracle

import (
	"runtime"
	"time"
)

// Within checks O11: it returns what f returns, or, if f does not return within d, a
// verdict. f then goes on behind it, and its goroutine is lost; stacks has what every
// goroutine was doing.
func Within(d time.Duration, name string, f func() error) (err error, stacks string) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case err := <-done:
		return err, ""
	case <-t.C:
		b := make([]byte, 1<<20)
		return Broken(Stuck, "", 0, "%s did not return within %s", name, d), string(b[:runtime.Stack(b, true)])
	}
}

// Honest checks O12: if faults were injected where they mattered, some call must have
// said so.
func Honest(mattered int, reported error, where string) error {
	if mattered > 0 && reported == nil {
		return Broken(Hushed, "", 0, "%d failures at %s, and no call reported one", mattered, where)
	}
	return nil
}
