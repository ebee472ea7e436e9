package simfs

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Effect is what a call with an injected error does to the disk.
type Effect uint8

const (
	// EffectDefault is EffectLost for a sync, and EffectNone for the rest.
	EffectDefault Effect = iota
	// EffectNone: the call has not happened. A sync leaves all unsynced.
	EffectNone
	// EffectDone: it has happened, and reports an error. A sync did reach the disk.
	EffectDone
	// EffectLost, for a sync: what it should have kept counts as clean and was never
	// written. Readers see it until Evict or a crash; a later sync succeeds and does
	// not bring it back.
	EffectLost
	// EffectKept, for a sync: all stays unsynced, and a later sync keeps it.
	EffectKept
)

// Rule says which calls go wrong, and how. Zero is an instruction to do nothing to
// the first call of any kind.
type Rule struct {
	// Which calls.

	// Name is for messages.
	Name string
	// Ops are the kinds. Zero is OpAll.
	Ops Op
	// Path is a glob of package path: with a slash for the whole path, without for
	// the base name. For two names, one must match. Empty matches all.
	Path string

	// When, among the calls that match.

	// Nth is the first that may go wrong, from 1. Zero is 1.
	Nth int
	// Every lets each kth from Nth on go wrong; 1 is sticky. Zero is only the Nth.
	Every int
	// Probability, above zero, lets each from Nth on go wrong by chance.
	Probability float64

	// What.

	// Err is returned. Nil is no error: a delay, a stall, a short transfer, or, with
	// an Effect, a disk that lies about a sync.
	Err error
	// Effect of a call that returns Err.
	Effect Effect
	// Short lets a read or a write transfer Keep bytes, half of them if Keep is zero.
	// Without Err a write returns io.ErrShortWrite, a ReadAt io.ErrUnexpectedEOF,
	// and a Read none.
	Short bool
	Keep  int
	// Delay passes before the call happens.
	Delay time.Duration
	// Stall holds the call until Fault.Release or Kill.
	Stall bool
}

// Fault is a Rule at work.
type Fault struct {
	fs       *FS
	rule     Rule
	rnd      *rand.Rand
	released chan struct{}
	open     bool

	matched, fired int
}

// Inject puts a rule to work, behind those that are there. The first rule that fires
// gives the error; delays add up. A path that is no glob is a panic.
func (fs *FS) Inject(r Rule) *Fault {
	if _, err := path.Match(r.Path, ""); err != nil {
		panic(fmt.Sprintf("simfs: rule %q: %v: %q", r.Name, err, r.Path))
	}
	if r.Ops == 0 {
		r.Ops = OpAll
	}
	if strings.Contains(r.Path, "/") {
		r.Path = clean(r.Path)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.made++
	f := &Fault{fs: fs, rule: r, released: make(chan struct{}), rnd: rand.New(rand.NewPCG(fs.opt.Seed, uint64(fs.made)))}
	fs.faults = append(fs.faults, f)
	return f
}

func (r *Rule) matches(op Op, name string) bool {
	if r.Ops&op == 0 || name == "" {
		return false
	}
	if r.Path == "" {
		return true
	}
	name = clean(name)
	if !strings.Contains(r.Path, "/") {
		name = path.Base(name)
	}
	ok, _ := path.Match(r.Path, name) // Inject has seen the pattern
	return ok
}

// bites reports that the rule changes the outcome of an op, not only its time.
func (r *Rule) bites(op Op) bool {
	switch {
	case r.Err != nil:
		return true
	case op&(OpReads|OpWrites) != 0:
		return r.Short
	case op&OpSyncs != 0:
		return r.Effect != EffectDefault
	}
	return false
}

// fires counts a matching call and decides.
func (f *Fault) fires() bool {
	f.matched++
	k := f.matched - max(1, f.rule.Nth)
	switch {
	case k < 0:
		return false
	case f.rule.Probability > 0:
		return f.rnd.Float64() < f.rule.Probability
	case f.rule.Every > 0:
		return k%f.rule.Every == 0
	}
	return k == 0
}

// strike asks every rule about a call.
func (fs *FS) strike(c *call) (delay time.Duration, stalls []*Fault) {
	hit := false
	for _, f := range fs.faults {
		if !f.rule.matches(c.op, c.name) && !f.rule.matches(c.op, c.name2) || !f.fires() {
			continue
		}
		hit = true
		f.fired++
		delay += f.rule.Delay
		if f.rule.Stall && !f.open {
			stalls = append(stalls, f)
		}
		if c.fault == nil && f.rule.bites(c.op) {
			c.fault = f
		}
	}
	key := coverKey{c.op, fs.opt.Class(clean(c.name))}
	row := fs.cover[key]
	if row == nil {
		row = &Coverage{Op: key.op, Class: key.class}
		fs.cover[key] = row
	}
	row.Calls++
	if hit {
		row.Injected++
	}
	c.event.Injected = hit
	return delay, stalls
}

// Matched is how many calls the rule's kinds and path fitted.
func (f *Fault) Matched() int {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.matched
}

// Fired is how many of them went wrong.
func (f *Fault) Fired() int {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fired
}

// Release lets stalled calls go on, and lets no later one stall.
func (f *Fault) Release() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if !f.open {
		f.open = true
		close(f.released)
	}
}

// Remove takes the rule away and releases what it stalls.
func (f *Fault) Remove() {
	f.Release()
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.fs.faults = slices.DeleteFunc(f.fs.faults, func(g *Fault) bool { return g == f })
}

type coverKey struct {
	op    Op
	class string
}

// Coverage is a row of the table of what was called and what went wrong.
type Coverage struct {
	Op              Op
	Class           string
	Calls, Injected int
}

// Coverage lists, per kind of call and class of path, the calls and the faults so
// far.
func (fs *FS) Coverage() []Coverage {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var rows []Coverage
	for _, row := range fs.cover {
		rows = append(rows, *row)
	}
	slices.SortFunc(rows, func(a, b Coverage) int {
		return cmp.Or(cmp.Compare(a.Op, b.Op), cmp.Compare(a.Class, b.Class))
	})
	return rows
}

// CoverageTable prints rows, as Coverage returns them, for people.
func CoverageTable(rows []Coverage) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "call\tfile\tcalls\tinjected")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", r.Op, r.Class, r.Calls, r.Injected)
	}
	w.Flush()
	return b.String()
}
