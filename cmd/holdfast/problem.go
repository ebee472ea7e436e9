package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/holdfastdb/holdfast/engine"
)

// problem is one thing that is wrong with a store, or with reading it.
type problem struct {
	File   string `json:"file,omitempty"`
	Offset *int64 `json:"offset,omitempty"`
	What   string `json:"what"`

	Costs *lossJSON `json:"costs,omitempty"` // what of a user's it held

	corrupt bool
}

func (p problem) String() string {
	s := p.What
	if p.Offset != nil {
		s = fmt.Sprintf("offset %d: %s", *p.Offset, s)
	}
	if p.File != "" {
		s = p.File + ": " + s
	}
	return s
}

// judge splits what went wrong into corruption and everything else.
func judge(err error) (corrupt, others []problem) {
	corrupt, others = []problem{}, []problem{}
	for _, p := range problems(err) {
		if p.corrupt {
			corrupt = append(corrupt, p)
		} else {
			others = append(others, p)
		}
	}
	return corrupt, others
}

// isCorrupt says whether anything in err is damage. A file that the system does not
// let us read is none, whatever a room made of it: people throw corrupt stores away.
func isCorrupt(err error) bool {
	return errors.Is(err, engine.ErrCorrupt) &&
		slices.ContainsFunc(problems(err), func(p problem) bool { return p.corrupt })
}

// isSystem says whether the operating system refused, and not the bytes.
func isSystem(err error) bool {
	switch e := err.(type) {
	case nil:
		return false
	case syscall.Errno:
		return slices.Contains([]syscall.Errno{
			syscall.EACCES, syscall.EPERM, syscall.EMFILE, syscall.ENFILE, syscall.EIO, syscall.ENOMEM,
		}, e)
	case interface{ Unwrap() error }:
		return isSystem(e.Unwrap())
	case interface{ Unwrap() []error }:
		if list := joined(err); list != nil { // one real damage among them is enough
			return !slices.ContainsFunc(list, func(e error) bool { return !isSystem(e) })
		}
		return slices.ContainsFunc(e.Unwrap(), isSystem)
	}
	return false
}

// problems takes apart what Check joined.
func problems(err error) []problem {
	out := []problem{}
	if err == nil {
		return out
	}
	if s, ok := err.(*saidError); ok && errors.Is(s.cause, engine.ErrCorrupt) {
		return problems(s.cause) // its text is a headline over these
	}
	if list := joined(err); list != nil {
		for _, e := range list {
			for _, p := range problems(e) {
				if !slices.ContainsFunc(out, func(q problem) bool { return p.String() == q.String() }) {
					out = append(out, p)
				}
			}
		}
		return out
	}
	corrupt := errors.Is(err, engine.ErrCorrupt) && !isSystem(err)
	var c *engine.CorruptError
	if !errors.As(err, &c) {
		return append(out, problem{What: plain(err), corrupt: corrupt})
	}
	if list := joined(c.Err); len(list) > 1 { // a room's own list, given one name at the door
		for _, e := range list {
			what := plain(e)
			if room, rest, ok := strings.Cut(what, ": corrupt: "); ok && !strings.Contains(room, " ") {
				what = rest
			}
			out = append(out, problem{What: what, corrupt: !isSystem(e)})
		}
		return out
	}
	p := problem{File: c.File, What: c.What + cause(c), corrupt: corrupt}
	if c.Offset >= 0 {
		p.Offset = &c.Offset
	}
	if c.File == "" { // with the key that led there
		p.What = strings.TrimPrefix(plain(err), "corrupt: ") + cause(c)
	}
	return append(out, p)
}

// cause is what c says on top of its own text: the first error below it that says
// something else.
func cause(c *engine.CorruptError) string {
	for e := c.Err; e != nil; {
		if !strings.Contains(e.Error(), c.What) {
			return ": " + plain(e)
		}
		if list := joined(e); len(list) == 1 {
			e = list[0]
			continue
		}
		e = errors.Unwrap(e)
	}
	return ""
}

// joined is the list in an error made by errors.Join. One made with several %w has
// a list, too, but that is of causes of one problem.
func joined(err error) []error {
	list, ok := err.(interface{ Unwrap() []error })
	if !ok || fmt.Sprintf("%T", err) != fmt.Sprintf("%T", errors.Join(errNoStore)) {
		return nil
	}
	return list.Unwrap()
}
