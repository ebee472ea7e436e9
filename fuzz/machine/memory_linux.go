package machine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// exhaustionsPerCase is how often a case runs out of memory.
const exhaustionsPerCase = 3

// OutOfMemory lets writers live in a memory cgroup that they fill, until the kernel kills
// them: in the middle of an allocation, a page fault or a write to the page cache, where
// no signal of ours would come. It counts as any other kill (F-09).
func OutOfMemory(h Host) runner.Runner {
	return runner.Runner{
		Name:  "out of memory",
		About: "the kernel kills a writer whose cgroup is full; nothing acknowledged is lost",
		Ready: cgroupReady,
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			dir, remove, err := h.scratch()
			if err != nil {
				return nil, err
			}
			defer remove()
			l := newLedger(newJob(filepath.Join(dir, "store"), seed))
			if l.job.Sync == engine.SyncInterval {
				l.job.Sync = engine.SyncAlways // what the row is about
			}
			err = canceled(ctx, exhaustAgain(ctx, &h, l, rand.New(rand.NewPCG(seed, 0x6f6f6d))))
			return l.counts, oracle.WithSeed(err, seed)
		},
	}
}

func exhaustAgain(ctx context.Context, h *Host, l *ledger, rnd *rand.Rand) error {
	for round := range exhaustionsPerCase {
		l.begin()
		l.job.Hoard = 128 << 10 << rnd.IntN(4)
		limit := int64(16+rnd.IntN(56)) << 20 // from less than it takes to recover
		if err := l.exhaust(ctx, h, limit); err != nil {
			return fmt.Errorf("round %d: %d MiB: %w", round, limit>>20, err)
		}
		l.counts["kills by the kernel"]++
		if !l.opened {
			l.counts["kills before the store was open"]++
		}
		l.dead(false)
		if err := l.examine(); err != nil { // outside, where there is room
			return fmt.Errorf("round %d: %d MiB: %w", round, limit>>20, err)
		}
	}
	return nil
}

// exhaust is one life in a cgroup of its own. It ends by the kernel's hand, or it is an
// error.
func (l *ledger) exhaust(ctx context.Context, h *Host, limit int64) (err error) {
	g, err := newCgroup(limit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	// The shell moves itself before the child begins, so all of it counts.
	cmd := h.command(ctx, &l.job, "sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs"))
	e, err := l.live(ctx, cmd, aim{}, nil)
	if err != nil {
		return err
	}
	kills, err := g.kills()
	if err == nil && (e.signal != syscall.SIGKILL || kills == 0) {
		err = fmt.Errorf("a child was not killed for its memory: signal %v, code %d, %d kills: %s", e.signal, e.code, kills, e.said)
	}
	return err
}

// cgroup is a memory cgroup of its own, of version 1 or 2.
type cgroup struct{ dir, counter string }

func newCgroup(limit int64) (*cgroup, error) {
	root, most, counter := "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"
	if _, err := os.Stat(root); err != nil {
		root, most, counter = "/sys/fs/cgroup", "memory.max", "memory.events"
	}
	dir, err := os.MkdirTemp(root, "holdfast-machine-")
	if err != nil {
		return nil, err
	}
	g := &cgroup{dir, filepath.Join(dir, counter)}
	err = os.WriteFile(filepath.Join(dir, most), strconv.AppendInt(nil, limit, 10), 0o644)
	if err == nil {
		_, err = g.kills()
	}
	if err != nil {
		return nil, errors.Join(err, g.remove())
	}
	// Without this a machine with swap would page for minutes. Where there is no such
	// file, there is none to turn off.
	for _, f := range []string{"memory.swap.max", "memory.swappiness"} {
		_ = os.WriteFile(filepath.Join(dir, f), []byte("0"), 0o644)
	}
	return g, nil
}

// kills is how many processes the kernel killed in it.
func (g *cgroup) kills() (int, error) {
	b, err := os.ReadFile(g.counter)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, fmt.Errorf("%s does not count kills", g.counter)
}

// remove waits until the kernel is through with the dead.
func (g *cgroup) remove() error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := os.Remove(g.dir); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// cgroupReady says why there can be no memory cgroup; it tries once.
var cgroupReady = sync.OnceValue(func() error {
	g, err := newCgroup(64 << 20)
	if err != nil {
		return fmt.Errorf("no memory cgroup can be made here: %w", err)
	}
	return g.remove()
})
