package fault

import (
	"errors"
	"io"
	"syscall"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Kind is a way to go wrong.
type Kind struct {
	Name string
	Rule simfs.Rule // Nth and Every are the sweep's
}

// Kinds are all of them. A close that fails has closed the file, as on Linux. A short
// ReadAt always has an error: that is what the interface says. A short Read transfers something,
// for nothing at all, and no error, would be the end of a file.
func Kinds() []Kind {
	return []Kind{
		{"EIO", simfs.Rule{Ops: simfs.OpAll &^ simfs.OpClose, Err: syscall.EIO}},
		{"ENOSPC", simfs.Rule{Ops: simfs.OpMutations, Err: syscall.ENOSPC}},
		{"EMFILE", simfs.Rule{Ops: simfs.OpOpens, Err: syscall.EMFILE}},
		{"short", simfs.Rule{Ops: simfs.OpRead | simfs.OpWrites, Short: true, Keep: 100}},
		{"short EINTR", simfs.Rule{Ops: simfs.OpReads | simfs.OpWrites, Short: true, Err: syscall.EINTR}},
		{"full in part", simfs.Rule{Ops: simfs.OpWrites, Short: true, Err: syscall.ENOSPC}},
		{"sync lost", simfs.Rule{Ops: simfs.OpSyncs, Err: syscall.EIO, Effect: simfs.EffectLost}},
		{"sync done", simfs.Rule{Ops: simfs.OpSyncs, Err: syscall.EIO, Effect: simfs.EffectDone}},
		{"done EIO", simfs.Rule{Ops: simfs.OpMutations | simfs.OpClose, Err: syscall.EIO, Effect: simfs.EffectDone}},
	}
}

// at is the rule for the nth call, and for all after it if it is sticky.
func (k Kind) at(nth int, sticky bool) simfs.Rule {
	r := k.Rule
	r.Name, r.Nth = k.Name, nth
	if sticky {
		r.Every = 1
	}
	return r
}

// cause says that an error has what was injected in it.
func (k Kind) cause(err error) bool {
	return errors.Is(err, simfs.ErrInjected) || k.Rule.Err != nil && errors.Is(err, k.Rule.Err) ||
		k.Rule.Short && (errors.Is(err, io.ErrShortWrite) || errors.Is(err, io.ErrUnexpectedEOF))
}

// door are the errors that the engine may give under a failure, beside the cause
// itself.
var door = []error{engine.ErrInDoubt, engine.ErrReadOnly, engine.ErrDiskFull, engine.ErrBusy, engine.ErrClosed}

// typed says that an error is one of the closed list.
func (k Kind) typed(err error) bool {
	if errors.Is(err, engine.ErrCorrupt) || errors.Is(err, engine.ErrForeign) || errors.Is(err, engine.ErrVersion) {
		return false
	}
	if k.cause(err) {
		return true
	}
	for _, d := range door {
		if errors.Is(err, d) {
			return true
		}
	}
	return false
}
