package machine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// ledger is what children were promised by one store, over all their lives.
type ledger struct {
	job     Job
	history *oracle.History
	durable uint64 // commits at or below it are, says the store
	counts  runner.Counts

	// What must come back now: after kills alone, and after a power cut.
	kill, cut oracle.Promise

	// Of the life under way.
	opened, ended bool
	acks          int
	fails         []fail
}

// fail is an error that a child reported.
type fail struct{ where, class, text string }

func (f fail) String() string { return fmt.Sprintf("%s: %s: %s", f.where, f.class, f.text) }

func newLedger(job Job) *ledger {
	l := &ledger{job: job, history: oracle.NewHistory(job.Lanes), counts: runner.Counts{}}
	l.kill = l.history.Promised(nil)
	l.cut = l.kill
	return l
}

// begin is called before each life.
func (l *ledger) begin() {
	l.job.Life++
	l.opened, l.ended, l.acks, l.fails = false, false, 0, nil
}

// read takes one report.
func (l *ledger) read(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "open":
		return l.found(strings.Fields(rest))
	case "fail":
		where, rest, _ := strings.Cut(rest, " ")
		class, text, _ := strings.Cut(rest, " ")
		l.fails = append(l.fails, fail{where, class, text})
		if class == classUntyped || class == classCorrupt {
			return fmt.Errorf("%s gives an error of a wrong type, %s: %s", where, class, text)
		}
		l.counts["typed errors"]++
		return nil
	case "end":
		l.ended = true
		return nil
	case "keys":
		return nil
	}
	var n [3]uint64
	fields := strings.Fields(rest)
	if len(fields) > len(n) {
		return fmt.Errorf("the child said %q", line)
	}
	for i, f := range fields {
		var err error
		if n[i], err = strconv.ParseUint(f, 10, 64); err != nil {
			return fmt.Errorf("the child said %q", line)
		}
	}
	if word == "durable" {
		l.durable = max(l.durable, n[0])
		return nil
	}
	if n[0] >= uint64(l.job.Lanes) {
		return fmt.Errorf("the child said %q", line)
	}
	lane := l.history.Lanes()[n[0]]
	switch word {
	case "begin":
		next, m := lane.Next()
		if next != int(n[1]) {
			return fmt.Errorf("writer %d makes commit %d, should be at %d", lane.ID, n[1], next)
		}
		change(m, l.job.batch(lane, next))
		lane.Begin(m)
	case "ack":
		lane.Acked(n[2])
		l.acks++
		l.counts["acknowledged"]++
	case "refused":
		lane.Refused()
	case "doubt":
	default:
		return fmt.Errorf("the child said %q", line)
	}
	return nil
}

// found checks what a child found when it opened, and goes on from there.
func (l *ledger) found(fields []string) error {
	if len(fields) != l.job.Lanes+1 {
		return fmt.Errorf("the child found %q", fields)
	}
	l.opened = true
	seen := counters{}
	for i, lane := range l.history.Lanes() {
		if fields[i+1] == "0" {
			fields[i+1] = ""
		}
		seen[lane.Counter()] = fields[i+1]
		n, err := lane.Survived(seen)
		if err != nil {
			return fmt.Errorf("a child opened: %w", err)
		}
		if n < l.kill.Least[i] {
			return oracle.Broken(oracle.Lost, lane.Counter(), 0, "a child found %d commits, %d were promised", n, l.kill.Least[i])
		}
	}
	l.counts["reopens"]++
	return l.shown(seen)
}

// counters is a store that knows how far each lane came, and no more.
type counters map[string]string

func (c counters) Get(key string) ([]byte, bool, error) { return []byte(c[key]), c[key] != "", nil }
func (c counters) Scan(oracle.Bounds, bool) iter.Seq2[oracle.Cell, error] {
	return func(func(oracle.Cell, error) bool) {}
}

// shown makes what a reader that may write found the beginning of what follows: it is
// durable, whatever the policy (O5).
func (l *ledger) shown(s oracle.Store) error {
	_, survived, err := l.history.Rewind(s)
	l.counts["survived"] += int64(survived)
	l.kill = l.history.Promised(nil)
	l.cut = l.kill
	return err
}

// dead notes that the child has ended, by a kill or before, or that the power did.
func (l *ledger) dead(power bool) {
	if l.opened {
		durable := func(lsn uint64) bool { return lsn <= l.durable }
		l.kill, l.cut = l.history.Promised(nil), l.history.Promised(durable)
		switch {
		case l.job.Sync == engine.SyncAlways:
			l.cut = l.kill
		case l.job.Sync == engine.SyncNever && (!l.ended || len(l.fails) > 0):
			l.kill = l.cut // some of it was in the log's buffer, and may not have left it
		}
	}
	if power {
		l.kill = l.cut
	}
}

// examine opens the store as it was left, checks everything that comes back, and
// opens it again.
func (l *ledger) examine() (err error) {
	o := l.job.options()
	e, err := engine.Open(l.job.Dir, o)
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	l.counts["reopens"]++
	first, err := l.look(e)
	if err == nil {
		err = l.shown(fuzz.Store{R: e})
	}
	if err = errors.Join(err, e.Close()); err != nil {
		return err
	}
	o.ReadOnly = l.job.Life%2 == 0
	if e, err = engine.Open(l.job.Dir, o); err != nil {
		return fmt.Errorf("second reopen: %w", err)
	}
	l.counts["reopens"]++
	second, err := oracle.Digest(fuzz.Store{R: e}, oracle.Bounds{})
	if err == nil && first != second {
		err = oracle.Broken(oracle.Unstable, "", 0, "digest %016x, then %016x", first, second)
	}
	return errors.Join(err, e.Close())
}

func (l *ledger) look(e *engine.Engine) (digest uint64, err error) {
	s := fuzz.Store{R: e}
	if err := l.history.Check(s, l.kill, e.Recovered().LSN); err != nil {
		return 0, err
	}
	if err := e.Check(context.Background()); err != nil {
		return 0, fmt.Errorf("check: %w", err)
	}
	return oracle.Digest(s, oracle.Bounds{})
}
