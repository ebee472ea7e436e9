package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// mutating are the system calls that change a store, or that change what a later one
// does.
var mutating = []string{
	"write", "pwrite64", "fsync", "fdatasync", "sync_file_range", "renameat", "renameat2", "linkat",
	"unlinkat", "openat", "ftruncate", "fallocate", "mkdirat", "close",
}

var straceReady = sync.OnceValue(func() error {
	if _, err := exec.LookPath("strace"); err != nil {
		return errors.New("needs strace")
	}
	// It may be there and not be allowed to trace.
	err := tool(context.Background(), "strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO:when=1", "true")
	if err != nil {
		return fmt.Errorf("strace does not work here: %w", err)
	}
	return nil
})

// tracer runs children under strace.
type tracer struct {
	h Host

	mu    sync.Mutex     // guards what follows
	calls map[string]int // of each kind, and "" of all, that one thread makes at most
}

func newTracer(h Host) *tracer {
	// One thread at a time: strace counts the calls of each thread by themselves.
	h.Env = append(h.Env[:len(h.Env):len(h.Env)], "GOMAXPROCS=1")
	return &tracer{h: h}
}

// tracedJob is small, and ends by itself.
func tracedJob(dir string, seed uint64) Job {
	j := newJob(dir, seed)
	j.Lanes, j.Batches, j.FlushEvery, j.Segment = 1+int(seed%2), 25, 7, 16<<10
	return j
}

// trace runs a child under strace with more arguments.
func (t *tracer) trace(ctx context.Context, l *ledger, log string, args ...string) (end, error) {
	words := append([]string{"strace", "-f", "-qq", "-o", log}, args...)
	return l.live(ctx, t.h.command(ctx, &l.job, words...), aim{}, nil)
}

// most counts, once, how many calls of a kind a thread of the workload makes.
func (t *tracer) most(ctx context.Context, kind string) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls == nil {
		calls, err := t.count(ctx)
		if err != nil {
			return 0, fmt.Errorf("counting calls: %w", err)
		}
		t.calls = calls
	}
	return max(1, t.calls[kind]), nil
}

func (t *tracer) count(ctx context.Context) (map[string]int, error) {
	dir, remove, err := t.h.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	log := filepath.Join(dir, "log")
	l := newLedger(tracedJob(filepath.Join(dir, "store"), 1))
	e, err := t.trace(ctx, l, log, "-e", "trace="+strings.Join(mutating, ","))
	if err == nil {
		err = e.peaceful(l)
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	threads := map[[2]string]int{}
	most := map[string]int{}
	for line := range bytes.Lines(text) {
		pid, call, _ := strings.Cut(string(line), " ")
		kind, _, is := strings.Cut(strings.TrimSpace(call), "(")
		if !is || strings.ContainsAny(kind, " <") {
			continue
		}
		for _, k := range []string{kind, ""} {
			threads[[2]string{pid, k}]++
			most[k] = max(most[k], threads[[2]string{pid, k}])
		}
	}
	return most, nil
}

// SyscallKills kills a child at the nth call that changes something, for every n in
// turn: of all kinds, or of one.
func SyscallKills(h Host) runner.Runner {
	t := newTracer(h)
	return runner.Runner{
		Name:  "kills at system calls",
		About: "SIGKILL at the nth system call that changes the store",
		Ready: straceReady,
		Case:  t.onStore(t.killAtCalls),
	}
}

// onStore makes a case of what is played on a store in a directory of its own.
func (t *tracer) onStore(play func(context.Context, *ledger, uint64) error) func(context.Context, uint64) (runner.Counts, error) {
	return func(ctx context.Context, seed uint64) (runner.Counts, error) {
		dir, remove, err := t.h.scratch()
		if err != nil {
			return nil, err
		}
		defer remove()
		l := newLedger(tracedJob(filepath.Join(dir, "store"), seed))
		err = canceled(ctx, play(ctx, l, seed))
		return l.counts, oracle.WithSeed(err, seed)
	}
}

// callsPerCase is how many calls a case kills at; the store goes through all.
const callsPerCase = 4

func (t *tracer) killAtCalls(ctx context.Context, l *ledger, seed uint64) error {
	for i := range uint64(callsPerCase) {
		// Kinds in turn, and for each of them every n in turn.
		kinds := uint64(len(mutating) + 1)
		slot := (seed-1)*callsPerCase + i
		kind, set := "", strings.Join(mutating, ",")
		if k := slot % kinds; k > 0 {
			kind = mutating[k-1]
			set = kind
		}
		most, err := t.most(ctx, kind)
		if err != nil {
			return err
		}
		n := 1 + slot/kinds*7%uint64(most+1) // in strides, one too many: nothing happens
		l.begin()
		e, err := t.trace(ctx, l, os.DevNull, "-e", "trace="+set, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", set, n))
		if err == nil {
			err = e.killed(l)
		}
		if err != nil {
			return fmt.Errorf("%s %d: %w", set, n, err)
		}
		if e.signal != 0 {
			l.counts["kills"]++
			if !l.opened {
				l.counts["kills before the store was open"]++
			}
		} else {
			l.counts["finished"]++
		}
		l.dead(false)
		if slot%3 == 0 && i < callsPerCase-1 {
			continue // the next child meets the wreck
		}
		if err := l.examine(); err != nil {
			return fmt.Errorf("%s %d: %w", set, n, err)
		}
	}
	return nil
}

// fault is a call that fails, and how.
type fault struct{ call, errno string }

var faults = []fault{
	{"fdatasync", "EIO"}, {"pwrite64", "EIO"}, {"write", "EIO"}, {"openat", "EIO"}, {"fsync", "EIO"},
	{"renameat", "EIO"}, {"fallocate", "ENOSPC"}, {"pwrite64", "ENOSPC"}, {"write", "ENOSPC"},
	{"openat", "ENOSPC"}, {"openat", "EMFILE"}, {"fdatasync", "ENOSPC"}, {"renameat", "ENOSPC"},
	{"linkat", "EIO"}, {"mkdirat", "ENOSPC"}, {"unlinkat", "EIO"}, {"ftruncate", "EIO"}, {"pread64", "EIO"},
	{"mmap", "ENOMEM"}, {"sync_file_range", "EIO"}, {"fallocate", "EOPNOTSUPP"}, {"close", "EIO"},
}

// SyscallFaults lets system calls of a child fail: one, or all from one on. The child
// must live, say what it met in errors of known types, and lose nothing.
func SyscallFaults(h Host) runner.Runner {
	t := newTracer(h)
	return runner.Runner{
		Name:  "failing system calls",
		About: "EIO, ENOSPC, EMFILE, ENOMEM from the nth call on; typed errors, nothing lost",
		Ready: straceReady,
		Case:  t.onStore(t.failCalls),
	}
}

func (t *tracer) failCalls(ctx context.Context, l *ledger, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 0x6661756c74))
	if seed/uint64(len(faults))%3 > 0 { // else the store is made among faults
		l.begin()
		e, err := l.live(ctx, t.h.command(ctx, &l.job), aim{}, nil)
		if err == nil {
			err = e.peaceful(l)
		}
		if err != nil {
			return fmt.Errorf("preparing: %w", err)
		}
		l.dead(false)
	}
	f := faults[seed%uint64(len(faults))]
	most, err := t.most(ctx, f.call)
	if err != nil {
		return err
	}
	when := fmt.Sprint(1 + min(rnd.IntN(max(most, 8)), rnd.IntN(max(most, 8)))) // early ones hit more threads
	if rnd.IntN(2) == 0 {
		when += "+"
	}
	args := []string{"-e", "trace=" + f.call, "-e", fmt.Sprintf("inject=%s:error=%s:when=%s", f.call, f.errno, when)}
	switch f.call {
	case "write", "mmap", "close", "pread64": // the runtime, and the reports, need theirs
		args = append(args, filesOf(l.job.Dir)...)
	case "fdatasync":
		if f.errno == "EIO" { // of the log alone: each of them matters
			args = append(args, named(l.job.Dir, logNames)...)
		}
	}
	l.begin()
	log := l.job.Dir + ".calls"
	e, err := t.trace(ctx, l, log, append(args, "-y")...)
	switch {
	case err != nil:
	case e.unborn(): // the calls that failed were those of the dynamic loader
		l.counts["children that never began"]++
	default:
		if err = e.peaceful(l); err == nil {
			err = t.heard(l, f, log)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s, %s: %w", f.call, f.errno, when, err)
	}
	l.dead(false)
	if err := l.examine(); err != nil {
		return fmt.Errorf("after %s %s, %s: %w", f.call, f.errno, when, err)
	}
	return nil
}

// heard counts the calls that failed, and wants those to be reported that were to
// make the log durable (O12).
func (t *tracer) heard(l *ledger, f fault, log string) error {
	text, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	mattered := 0
	for line := range bytes.Lines(text) {
		if !bytes.Contains(line, []byte("(INJECTED)")) {
			continue
		}
		l.counts["failed calls"]++
		if f.call == "fdatasync" && f.errno == "EIO" {
			mattered++
		}
	}
	var reported error
	if len(l.fails) > 0 {
		l.counts["children that met one"]++
		reported = errors.New(l.fails[0].String())
	}
	return oracle.Honest(mattered, reported, "syncs of the log")
}

const logNames = "log/%020d.wal"

// filesOf names, for strace, the files that a small store in dir may ever have.
func filesOf(dir string) []string {
	args := []string{"-P", filepath.Join(dir, "STATE"), "-P", filepath.Join(dir, "STATE.tmp")}
	for _, format := range []string{
		logNames, "log/spare-%020d.tmp", "packs/%020d.pack", "l3-staging/%d.sst", "l3/%06d.sst",
		"l3/%06d.log", "l3/MANIFEST-%06d", "l3/temporary.%06d.dbtmp",
	} {
		args = append(args, named(dir, format)...)
	}
	return args
}

func named(dir, format string) (args []string) {
	for i := 1; i <= 40; i++ {
		args = append(args, "-P", filepath.Join(dir, fmt.Sprintf(format, i)))
	}
	return args
}
