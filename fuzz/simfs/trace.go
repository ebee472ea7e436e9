package simfs

import (
	"fmt"
	"strings"
)

// Event is one call.
type Event struct {
	Call     int // which call, from 1
	Mutation int // which mutating call, from 1; 0: it is none
	Op       Op
	Path     string
	Path2    string // of a rename, a link, a reuse
	Off, N   int64  // of a read, a write, a preallocation; Off -1 is the handle's position
	Injected bool   // a rule had its hand in it
	Err      error  // nil too while the call is under way
}

// String is a line of a trace.
func (e *Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%6d ", e.Call)
	if e.Mutation > 0 {
		fmt.Fprintf(&b, "m%-5d ", e.Mutation)
	} else {
		b.WriteString("       ")
	}
	fmt.Fprintf(&b, "%-10s %s", e.Op, e.Path)
	if e.Path2 != "" {
		fmt.Fprintf(&b, " -> %s", e.Path2)
	}
	if e.N != 0 || e.Off != 0 {
		fmt.Fprintf(&b, " off %d len %d", e.Off, e.N)
	}
	if e.Injected {
		b.WriteString(" [fault]")
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// ring keeps the newest events.
type ring struct {
	max    int
	total  int
	events []*Event
}

func (r *ring) add(e Event) *Event {
	r.total++
	e.Call = r.total
	p := &e
	if len(r.events) < r.max {
		r.events = append(r.events, p)
	} else {
		r.events[(r.total-1)%r.max] = p
	}
	return p
}

// Events returns the newest calls, oldest first, at most Options.TraceLen.
func (fs *FS) Events() []Event {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	r := &fs.trace
	out := make([]Event, 0, len(r.events))
	for i := range r.events {
		at := i
		if r.total > r.max {
			at = (r.total + i) % r.max
		}
		out = append(out, *r.events[at])
	}
	return out
}

// Trace prints Events, a line each, for a report of a failure.
func (fs *FS) Trace() string {
	var b strings.Builder
	for _, e := range fs.Events() {
		b.WriteString(e.String())
		b.WriteByte('\n')
	}
	return b.String()
}
