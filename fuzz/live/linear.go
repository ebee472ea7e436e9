package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Linear checks O7: small histories of some clients over few keys, with flushes and
// compactions going on, each of which must have an order that explains all answers.
// Keys come in groups, and no call touches two groups: single keys are judged one by
// one, groups of keys, with batches, range deletes, scans and snapshots over them,
// as a whole. Some histories have calls in doubt: a log that fails, callers that stop
// waiting.
func Linear() runner.Runner {
	return runner.Runner{
		Name:  "linear histories",
		About: "every answer fits into one order of all calls, whatever goes on below",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			l := &linear{hands: newHands(ctx), seed: seed, seen: map[int32]uint64{}}
			err := l.run()
			return l.counts, oracle.WithSeed(err, seed)
		},
	}
}

// linear is one history under way.
type linear struct {
	*hands
	seed      uint64
	e         *engine.Engine
	groups    int
	size      int // keys in a group
	each      int // calls of one client
	failing   bool
	impatient bool
	clock     atomic.Int64
	ids       atomic.Int32

	callsMu sync.Mutex       // guards the fields below
	calls   [][]*call        // by group
	seen    map[int32]uint64 // revisions by value
}

func (l *linear) run() (err error) {
	defer l.cancel()
	rnd := chance(l.seed, 0)
	d, err := newDisk(rnd, l.seed, false)
	if err != nil {
		return err
	}
	defer d.remove()
	o := settings(rnd, l.seed)
	if l.e, err = d.open(o); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.forgive(l.e.Close())) }()
	clients := 3 + rnd.IntN(4)
	l.shape(rnd, clients)
	switch n := rnd.IntN(6); {
	case n == 0:
		l.impatient = true
	case n < 3 && d.sim != nil:
		l.failing = true
		d.sim.Inject(simfs.FailFrom(simfs.OpWrites|simfs.OpSyncs, storeDir+"/log/*", 20+rnd.IntN(200), syscall.EIO))
	}
	for i := range clients {
		l.share(func() error { return l.client(i, chance(l.seed, 1+i)) })
	}
	l.background(func() error { return churn(l.hands, l.e, chance(l.seed, 100), l.forgive) })
	if rnd.IntN(4) == 0 {
		l.background(func() error { return crowd(l.hands, l.e, chance(l.seed, 101), l.forgive) })
	}
	if err := l.join(); err != nil {
		return err
	}
	if err := l.last(&d, o, !l.failing && rnd.IntN(3) == 0); err != nil {
		return err
	}
	return l.judge()
}

// shape chooses how many keys belong together. The more do, the shorter a history
// can be judged.
func (l *linear) shape(rnd *rand.Rand, clients int) {
	calls := 0
	switch rnd.IntN(3) {
	case 0:
		l.groups, l.size, calls = 6, 1, 300+rnd.IntN(200)
	case 1:
		l.groups, l.size, calls = 3, 2, 200+rnd.IntN(150)
	default:
		l.groups, l.size, calls = 1, 3+rnd.IntN(maxKeys-2), 120+rnd.IntN(100)
	}
	l.each = calls / clients
	l.calls = make([][]*call, l.groups)
}

// last reads all keys once more, sometimes after a reopen, and lets that be part of
// the history.
func (l *linear) last(d *disk, o engine.Options, reopen bool) error {
	if reopen {
		if err := l.e.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
		e, err := d.open(o)
		if err != nil {
			return err
		}
		l.e = e
		l.counts["reopens"]++
	}
	c := client{linear: l, rnd: chance(l.seed, 99)}
	for g := range l.groups {
		c.group = g
		if err := c.scan(0, l.size-1); err != nil {
			return err
		}
		for k := range l.size {
			if err := c.read(k); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *linear) judge() error {
	l.counts["histories"]++
	for g, calls := range l.calls {
		l.counts["operations"] += int64(len(calls))
		name := l.name(g)
		if err := learn(calls, l.seen, name); err != nil {
			return err
		}
		decided, err := checkHistory(settle(calls), name)
		if err != nil {
			return err
		}
		if !decided {
			l.counts["undecided"]++
		}
	}
	return nil
}

func (l *linear) name(group int) string {
	if l.size == 1 {
		return string(l.key(group, 0))
	}
	return fmt.Sprintf("%s to %s", l.key(group, 0), l.key(group, l.size-1))
}

func (l *linear) key(group, k int) []byte { return fmt.Appendf(nil, "group %d key %d", group, k) }

// span is the key range of keys lo to hi of a group.
func (l *linear) span(group, lo, hi int) engine.Range {
	return engine.Range{Lower: l.key(group, lo), Upper: append(l.key(group, hi), 0)}
}

// forgive excuses what a store says whose log is made to fail.
func (l *linear) forgive(err error) error {
	if l.failing && (errors.Is(err, engine.ErrReadOnly) || errors.Is(err, engine.ErrInDoubt)) {
		return nil
	}
	return err
}

// add notes a call that is over.
func (l *linear) add(group int, c *call) {
	if c.end == never {
		l.count("in doubt", 1)
	}
	l.callsMu.Lock()
	defer l.callsMu.Unlock()
	l.calls[group] = append(l.calls[group], c)
}

// revision notes what a reader saw beside the value id.
func (l *linear) revision(id int32, rev uint64, key []byte) error {
	l.callsMu.Lock()
	defer l.callsMu.Unlock()
	if old := l.seen[id]; id == 0 || rev == 0 || old == rev {
		return nil
	} else if old != 0 {
		return oracle.Broken(oracle.Lied, string(key), rev, "value %d had revision %d before", id, old)
	}
	l.seen[id] = rev
	return nil
}

// value is what the write id puts: short mostly, sometimes large enough for a pack.
func value(id int32) []byte {
	n := 10 + int(id)*7%200
	switch id % 16 {
	case 3:
		n = largeBytes + int(id)
	case 7, 11:
		n = largeBytes / 2
	}
	v := fmt.Appendf(make([]byte, 0, n), "%09d", id)
	for len(v) < n {
		v = append(v, byte('a'+(len(v)+int(id))%26))
	}
	return v
}

// parse is the reverse of value; whatever else is there is a wrong answer.
func parse(key, v []byte) (int32, error) {
	var id int32
	if len(v) >= 9 {
		_, _ = fmt.Sscanf(string(v[:9]), "%09d", &id)
	}
	if id <= 0 || !slices.Equal(v, value(id)) {
		return 0, oracle.Broken(oracle.Lied, string(key), 0, "nobody wrote %.40q (%d bytes)", v, len(v))
	}
	return id, nil
}

// waitAtMost is how long an impatient caller waits for a commit.
func waitAtMost(rnd *rand.Rand) time.Duration {
	return time.Duration(20+rnd.IntN(400)) * time.Microsecond
}
