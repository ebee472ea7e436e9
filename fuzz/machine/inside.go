package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// What follows does in this process what a child does in its own, where nothing kills
// it.

// commit makes the next commit of a lane. class says what an error is, and is empty
// for none; err is a broken promise.
func (l *ledger) commit(e *engine.Engine, lane *oracle.Lane) (class string, err error) {
	n, m := lane.Next()
	writes := l.job.batch(lane, n)
	b := e.NewBatch()
	defer b.Close()
	if err := fill(b, writes); err != nil {
		return judge("put", err)
	}
	change(m, writes)
	lane.Begin(m)
	lsn, err := e.Apply(b)
	if err == nil {
		lane.Acked(lsn)
		return "", nil
	}
	if class, err = judge("apply", err); unmade(class) {
		lane.Refused()
	}
	return class, err
}

// judge names an error, or says that it is a broken promise.
func judge(where string, cause error) (class string, err error) {
	class = classOf(cause)
	if class == classUntyped || class == classCorrupt {
		err = fmt.Errorf("%s gives an error of a wrong type, %s: %w", where, class, cause)
	}
	return class, err
}

// commitAll lets every lane commit until it fails in one way several times running,
// or in a way that cannot end, or has made so many commits. It returns how often each
// class of error came.
func (l *ledger) commitAll(e *engine.Engine, most, patience int) (classes map[string]int64, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	classes = map[string]int64{}
	errs := make([]error, l.job.Lanes)
	for i, lane := range l.history.Lanes() {
		wg.Go(func() {
			refused, acked := 0, int64(0)
			for n := 0; n < most && refused < patience && errs[i] == nil; n++ {
				var class string
				if class, errs[i] = l.commit(e, lane); class == "" {
					refused = 0
					acked++
					continue
				}
				mu.Lock()
				classes[class]++
				mu.Unlock()
				if refused++; class != "disk-full" && class != "busy" {
					break // in doubt, or for good
				}
			}
			mu.Lock()
			l.counts["acknowledged"] += acked
			mu.Unlock()
		})
	}
	wg.Wait()
	return classes, errors.Join(errs...)
}

// readable checks that a store in trouble still answers everything.
func (l *ledger) readable(e *engine.Engine) error {
	if err := l.history.Check(fuzz.Store{R: e}, l.history.Promised(nil), 0); err != nil {
		return fmt.Errorf("reading beside the failure: %w", err)
	}
	l.counts["reads beside a failure"]++
	return nil
}

// closed closes, and lets an error of a known type pass. Nothing of the store may stay
// open behind it (O10).
func (l *ledger) closed(e *engine.Engine) error {
	if err := e.Close(); err != nil {
		if _, err := judge("close", err); err != nil {
			return err
		}
	}
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil // nobody counts them here
	}
	for _, d := range descriptors {
		if name, err := os.Readlink("/proc/self/fd/" + d.Name()); err == nil && strings.HasPrefix(name, l.job.Dir) {
			return oracle.Broken(oracle.Leaked, "", 0, "%s is open after Close", name)
		}
	}
	return nil
}
