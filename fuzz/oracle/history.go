package oracle

import (
	"fmt"
	"strconv"
	"sync"
)

// History is what writers asked of a store and what they were promised. Each writer
// has a [Lane] of its own: a prefix that nobody else writes under, and one commit
// after the other. It is safe for concurrent use, each lane by one goroutine.
type History struct {
	mu    sync.Mutex
	lanes []*Lane
}

// NewHistory returns a history with so many lanes.
func NewHistory(lanes int) *History {
	h := &History{}
	for i := range lanes {
		h.lanes = append(h.lanes, &Lane{h: h, ID: i, models: []Model{NewModel()}})
	}
	return h
}

// Lanes of the history.
func (h *History) Lanes() []*Lane { return h.lanes }

// Lane is one writer's part.
type Lane struct {
	h  *History
	ID int

	models []Model  // models[i] is the state after i commits
	lsns   []uint64 // of the acknowledged ones; lsns[i] belongs to models[i+1]
}

// unknown is the number of a commit that came back without having been acknowledged.
const unknown = 0

// Bounds of the lane's keys.
func (l *Lane) Bounds() Bounds { return Bounds{l.Key(""), fmt.Sprintf("w%d0", l.ID)} }

// Key is name under the lane's prefix.
func (l *Lane) Key(name string) string { return fmt.Sprintf("w%d/%s", l.ID, name) }

// Counter is the key that every commit of the lane must set to its number, as a
// decimal string; it tells how far the lane came.
func (l *Lane) Counter() string { return l.Key("!n") }

// Next returns the number of the lane's next commit, and a model to be changed as the
// commit will change the store.
func (l *Lane) Next() (n int, m Model) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	n = len(l.models)
	m = l.models[n-1].Copy()
	m.Put(l.Counter(), strconv.Itoa(n))
	return n, m
}

// After is the lane's part of the store after its first n commits. Nobody may change it.
func (l *Lane) After(n int) Model {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return l.models[n]
}

// Begin notes that the commit that leads to m is about to be made: from now on a
// crash may keep it.
func (l *Lane) Begin(m Model) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.models = append(l.models, m)
}

// Acked notes that the newest commit was acknowledged as number lsn. A commit that
// ends in doubt is noted by nothing at all, and ends the lane until Rewind.
func (l *Lane) Acked(lsn uint64) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.lsns = append(l.lsns, lsn)
}

// Refused notes that the newest commit certainly was not made.
func (l *Lane) Refused() {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.models = l.models[:len(l.models)-1]
}

// Promise is what must come back, lane by lane: at least and at most so many commits.
type Promise struct{ Least, Most []int }

// Promised returns the promise of this moment. survives tells of a commit number
// whether it survives the end that is near; nil: every acknowledged one does. Least
// must be taken before that end begins and Most after: take both then, and let
// [History.Raise] bring Most up to date afterwards.
func (h *History) Promised(survives func(lsn uint64) bool) Promise {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := Promise{make([]int, len(h.lanes)), make([]int, len(h.lanes))}
	for i, l := range h.lanes {
		for n, lsn := range l.lsns {
			if survives == nil || survives(lsn) {
				p.Least[i] = n + 1
			}
		}
		p.Most[i] = len(l.models) - 1
	}
	return p
}

// Raise brings the upper bound up to what was begun by now.
func (h *History) Raise(p *Promise) { p.Most = h.Promised(nil).Most }

// Check applies O1 to O4 to what came back. recovered is the commit number that the
// store says it is at; 0 if it does not.
func (h *History) Check(s Store, p Promise, recovered uint64) error {
	for i, l := range h.lanes {
		n, err := l.Survived(s)
		switch {
		case err != nil:
			return err
		case n < p.Least[i]:
			return Broken(Lost, l.Counter(), l.lsn(n+1), "%d commits came back, %d were promised", n, p.Least[i])
		case n > p.Most[i]:
			return Broken(Hole, l.Counter(), 0, "%d commits came back, %d were made", n, p.Most[i])
		}
		if err := l.models[n].Check(s, l.Bounds(), false); err != nil {
			return fmt.Errorf("writer %d at its commit %d: %w", i, n, err)
		}
		// With one order of commits, all at or below a number came back and none above.
		for j, lsn := range l.lsns {
			if recovered != 0 && lsn != unknown && (j < n) != (lsn <= recovered) {
				return Broken(Hole, l.Counter(), lsn, "the store is at %d, but %d commits of writer %d came back, this is its %dth",
					recovered, n, i, j+1)
			}
		}
	}
	return nil
}

func (l *Lane) lsn(n int) uint64 {
	if n > 0 && n <= len(l.lsns) {
		return l.lsns[n-1]
	}
	return unknown
}

// Survived is how many commits of the lane a reader finds.
func (l *Lane) Survived(s Store) (int, error) {
	v, found, err := s.Get(l.Counter())
	if err != nil {
		return 0, Broken(Lied, l.Counter(), 0, "get: %w", err)
	}
	if !found {
		return 0, nil
	}
	n, err := strconv.Atoi(string(v))
	if err != nil || n < 1 || n >= len(l.models) {
		return 0, Broken(Hole, l.Counter(), 0, "is %s after %d commits", show(string(v)), len(l.models)-1)
	}
	return n, nil
}

// Whole checks that a reader sees the lane as it was after a whole commit (O3), and
// returns which. The lane's writer may go on meanwhile; s must be of one moment, or
// only its scans are looked at.
func (l *Lane) Whole(s Store) (n int, err error) {
	got := NewModel()
	for c, err := range s.Scan(l.Bounds(), false) {
		if err != nil {
			return 0, Broken(Lied, "", 0, "scan: %w", err)
		}
		got.Put(string(c.Key), string(c.Value))
	}
	if v, ok := got.Get(l.Counter()); ok {
		if n, err = strconv.Atoi(v); err != nil {
			return 0, Broken(Torn, l.Counter(), 0, "is %s", show(v))
		}
	}
	l.h.mu.Lock()
	made := len(l.models) - 1
	want := l.models[min(n, made)]
	l.h.mu.Unlock()
	if n > made {
		return n, Broken(Hole, l.Counter(), 0, "is %d after %d commits", n, made)
	}
	if err := want.Check(mapStore{got}, l.Bounds(), false); err != nil {
		return n, fmt.Errorf("writer %d at its commit %d: %w", l.ID, n, err)
	}
	return n, nil
}

// At checks that a snapshot shows exactly the commits at or below its number, as far
// as they are acknowledged by now (O2).
func (h *History) At(s Store, lsn uint64) error {
	for _, l := range h.lanes {
		n, err := l.Whole(s)
		if err != nil {
			return err
		}
		h.mu.Lock()
		lsns := l.lsns
		h.mu.Unlock()
		for j, at := range lsns {
			if at != unknown && (j < n) != (at <= lsn) {
				return Broken(Hole, l.Counter(), at, "a snapshot at %d shows %d commits of writer %d, this is its %dth", lsn, n, l.ID, j+1)
			}
		}
	}
	return nil
}

// Shown raises p to what a reader finds now: it must stay (O5).
func (h *History) Shown(s Store, p *Promise) error {
	p.Least = append([]int(nil), p.Least...)
	for i, l := range h.lanes {
		n, err := l.Survived(s)
		if err != nil {
			return err
		}
		p.Least[i] = n
	}
	return nil
}

// Rewind makes what came back the beginning of what follows, and returns how many
// commits were begun and how many came back.
func (h *History) Rewind(s Store) (begun, survived int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lanes {
		n, err := l.Survived(s)
		if err != nil {
			return begun, survived, err
		}
		begun += len(l.models) - 1
		survived += n
		l.models = l.models[:n+1]
		for len(l.lsns) < n {
			l.lsns = append(l.lsns, unknown) // in doubt when its process ended, and there
		}
		l.lsns = l.lsns[:n]
	}
	return begun, survived, nil
}
