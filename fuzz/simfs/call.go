package simfs

import (
	"errors"
	"io"
	"math/bits"
	"os"
	"strings"
	"syscall"
	"time"
)

// Op is a kind of call, or a set of kinds.
type Op uint32

// The kinds of calls.
const (
	OpCreate Op = 1 << iota
	OpOpen
	OpOpenReadWrite
	OpOpenDir
	OpReuse
	OpLink
	OpRename
	OpRemove
	OpRemoveAll
	OpMkdir
	OpLock
	OpList
	OpStat
	OpDiskUsage
	OpRead
	OpReadAt
	OpWrite
	OpWriteAt
	OpTruncate
	OpPreallocate
	OpSync
	OpSyncDir
	OpSyncData
	OpSyncTo
	OpClose
	OpFileStat
	OpPrefetch
)

// Sets of kinds.
const (
	OpReads  = OpRead | OpReadAt
	OpWrites = OpWrite | OpWriteAt
	OpSyncs  = OpSync | OpSyncDir | OpSyncData
	OpOpens  = OpCreate | OpOpen | OpOpenReadWrite | OpOpenDir | OpReuse | OpLock
	OpNames  = OpCreate | OpOpenReadWrite | OpReuse | OpLink | OpRename | OpRemove | OpRemoveAll | OpMkdir | OpLock

	// OpMutations is what OnMutation and Mutations count: every call that may change
	// what a crash leaves.
	OpMutations = OpNames | OpWrites | OpTruncate | OpPreallocate | OpSyncs | OpSyncTo
	OpAll       = OpPrefetch<<1 - 1
)

var opNames = [...]string{
	"create", "open", "open-rw", "open-dir", "reuse", "link", "rename", "remove", "remove-all",
	"mkdir", "lock", "list", "stat", "disk-usage", "read", "read-at", "write", "write-at",
	"truncate", "preallocate", "sync", "sync-dir", "sync-data", "sync-to", "close", "file-stat", "prefetch",
}

// String is the name of a kind, or the names of a set with bars between.
func (o Op) String() string {
	var names []string
	for rest := uint32(o & OpAll); rest != 0; rest &= rest - 1 {
		names = append(names, opNames[bits.TrailingZeros32(rest)])
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "|")
}

// call is one call under way, from its count to its line in the trace.
type call struct {
	fs    *FS
	op    Op
	event *Event
	upto  uint64 // what a sync covers: the changes made before it began
	fault *Fault // nil: none fired
	name  string
	name2 string
	data  []byte // written
	off   int64  // where
}

// do counts a call, lets hooks and faults have their say, and runs fn, which returns
// bare errors, under the lock.
func (fs *FS) do(op Op, name, name2 string, fn func(*call) error) error {
	return fs.doAt(op, name, name2, 0, 0, fn)
}

func (fs *FS) doAt(op Op, name, name2 string, off, n int64, fn func(*call) error) error {
	c := &call{fs: fs, op: op, name: name, name2: name2}
	fs.watch.before(op, name)
	err := fs.begin(c, off, n)
	defer fs.mu.Unlock()
	if err == nil {
		err = fn(c)
	}
	if c.fault != nil && err == nil || c.fault != nil && c.partial() && err != io.EOF {
		err = c.injected()
	}
	c.event.Err = err
	fs.watch.after(c)
	return c.wrap(err)
}

// begin returns with the lock held. Its error means that the call must not happen.
func (fs *FS) begin(c *call, off, n int64) error {
	fs.mu.Lock()
	c.event = fs.trace.add(Event{Op: c.op, Path: c.name, Path2: c.name2, Off: off, N: n})
	if fs.dead {
		return ErrKilled
	}
	c.upto = fs.seq
	var hooks []func()
	if c.op&OpMutations != 0 {
		fs.mutations++
		c.event.Mutation = fs.mutations
		hooks = fs.hooks[fs.mutations]
		delete(fs.hooks, fs.mutations)
	}
	delay, stalls := fs.strike(c)
	if len(hooks) > 0 || delay > 0 || len(stalls) > 0 {
		fs.mu.Unlock()
		for _, h := range hooks {
			h()
		}
		if delay > 0 {
			fs.opt.Sleep(delay)
		}
		for _, f := range stalls {
			select {
			case <-f.released:
			case <-fs.killed:
			}
		}
		fs.mu.Lock()
		if fs.dead {
			return ErrKilled
		}
	}
	if c.fault != nil && !c.partial() && c.effect() == EffectNone {
		return c.injected()
	}
	return nil
}

// partial reports that the fault lets a read or a write happen in part.
func (c *call) partial() bool {
	return c.fault != nil && c.fault.rule.Short && c.op&(OpReads|OpWrites) != 0
}

// keep is how many of n bytes a call may transfer.
func (c *call) keep(n int) int {
	if !c.partial() {
		return n
	}
	if k := c.fault.rule.Keep; k > 0 {
		return min(n, k)
	}
	if c.op == OpRead && c.fault.rule.Err == nil {
		return min(n, max(1, n/2)) // nothing and no error would make a reader spin
	}
	return n / 2
}

// effect of the fault on this call.
func (c *call) effect() Effect {
	if c.fault == nil {
		return EffectDone
	}
	e := c.fault.rule.Effect
	if e == EffectDefault {
		if c.op&OpSyncs != 0 {
			return EffectLost
		}
		return EffectNone
	}
	if e != EffectDone && c.op&OpSyncs == 0 {
		return EffectNone
	}
	return e
}

// injected is the fault's error; a short transfer may have none.
func (c *call) injected() error {
	err := c.fault.rule.Err
	if err == nil && c.partial() {
		switch c.op {
		case OpRead:
			return nil
		case OpReadAt:
			err = io.ErrUnexpectedEOF
		default:
			err = io.ErrShortWrite
		}
	}
	if err == nil {
		return nil
	}
	return &injectedError{err, c.fault.rule.Name}
}

// wrap dresses an error as package os would.
func (c *call) wrap(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF || err == io.ErrShortWrite {
		return err
	}
	op := c.op.String()
	if c.name2 != "" {
		return &os.LinkError{Op: op, Old: c.name, New: c.name2, Err: err}
	}
	return &os.PathError{Op: op, Path: c.name, Err: err}
}

// Mutations is how many calls of OpMutations there were.
func (fs *FS) Mutations() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.mutations
}

// OnMutation runs fn when the kth mutating call comes, before it has any effect. fn
// may use the file system, cut the power, and kill it: then the call fails with
// ErrKilled.
func (fs *FS) OnMutation(k int, fn func()) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.hooks[k] = append(fs.hooks[k], fn)
}

// ErrInjected is in every error that comes from a Rule.
var ErrInjected = errors.New("simfs: injected")

type injectedError struct {
	err  error
	rule string
}

func (e *injectedError) Error() string {
	if e.rule == "" {
		return e.err.Error() + " (injected)"
	}
	return e.err.Error() + " (injected by " + e.rule + ")"
}

func (e *injectedError) Unwrap() error        { return e.err }
func (e *injectedError) Is(target error) bool { return target == ErrInjected }

// Delay is a Rule for a slow disk.
func Delay(ops Op, path string, d time.Duration) Rule {
	return Rule{Name: "delay", Ops: ops, Path: path, Every: 1, Delay: d}
}

// FailOnce is a Rule for an error at the nth matching call, and never again.
func FailOnce(ops Op, path string, nth int, err error) Rule {
	return Rule{Ops: ops, Path: path, Nth: nth, Err: err}
}

// FailFrom is a Rule for an error at the nth matching call and at all after it.
func FailFrom(ops Op, path string, nth int, err error) Rule {
	return Rule{Ops: ops, Path: path, Nth: nth, Every: 1, Err: err}
}

// FullDisk is a Rule that lets the nth matching write happen in part.
func FullDisk(path string, nth int) Rule {
	return Rule{Name: "full disk", Ops: OpWrites, Path: path, Nth: nth, Every: 1, Short: true, Err: syscall.ENOSPC}
}
