package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// load is one run of `holdfast load`.
type load struct {
	app      *app
	scenario *scenario
	rate     int // operations a second, all clients together; zero: as fast as it goes
	clients  int
	keys     int
	size     int64 // of a value
	length   time.Duration
	seed     uint64
	profiles profiles

	e      *engine.Engine
	screen *screen
	tape   *tape
	report loadReport
}

// scenario is a way to use a store.
type scenario struct {
	name, about         string
	rate, clients, keys int
	size                int64
	fill                func(l *load, ctx context.Context) error
	client              func(l *load, ctx context.Context, id int) error // until ctx ends
}

var scenarios = []*scenario{
	{
		name: "sustained", about: "10,000 mixed operations a second on 100,000 states of 1 KiB",
		rate: 10_000, clients: 64, keys: 100_000, size: 1 << 10, fill: (*load).fillStates, client: (*load).mixed,
	},
	{
		name: "burst", about: "100,000 mixed operations a second on 100,000 states of 1 KiB",
		rate: 100_000, clients: 256, keys: 100_000, size: 1 << 10, fill: (*load).fillStates, client: (*load).mixed,
	},
	{
		name: "large", about: "objects of 1 GiB: streamed in, read whole, read at random, deleted",
		clients: 1, size: 1 << 30, client: (*load).objects,
	},
	{
		name: "clients", about: "10,000 clients, each reads and updates its own state of 1 KiB, 100,000 operations a second together",
		rate: 100_000, clients: 10_000, keys: 10_000, size: 1 << 10, fill: (*load).fillStates, client: (*load).own,
	},
}

func newLoad(a *app) *cobra.Command {
	var about strings.Builder
	for _, s := range scenarios {
		fmt.Fprintf(&about, "  %-10s %s\n", s.name, s.about)
	}
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Put a store under load, and say what it did",
		Long: `Put a store under load, and say what it did.

Scenarios:
` + about.String() + `
Clients follow a schedule: what an operation waited for the one before it counts as its
time. Mixed operations are 70 % reads, 25 % writes, 3 % deletes and 2 % scans of ten
keys, of keys drawn by a zipf distribution. Values carry the key that they belong to, and
every read looks at it: one that is wrong ends the command with exit code 5.

The store is a temporary one, or a new one in the directory that --dir names, which
stays. --sync and --memory are the store's. A line a second tells how it goes; at the end
there is a table.`,
		Example: `  holdfast load --scenario sustained --minutes 60
  holdfast load --scenario burst --pprof ./profiles --trace ./profiles
  holdfast load --scenario large --size 4GiB --minutes 5`,
		Args: between(0, 0, ""),
	}
	f := cmd.Flags()
	name := f.String("scenario", "sustained", "sustained, burst, large or clients")
	minutes := f.Float64("minutes", 1, "how long; fractions are fine")
	rate := f.Int("rate", 0, "operations a second, all clients together (default: the scenario's)")
	clients := f.Int("clients", 0, "clients at a time (default: the scenario's)")
	keys := f.Int("keys", 0, "states that there are (default: the scenario's)")
	size := f.String("size", "", "of a value, like 1KiB (default: the scenario's)")
	seed := f.Uint64("seed", 0, "makes the clients draw the same keys again; 0 draws one")
	pprofDir := f.String("pprof", "", "write profiles of CPU, heap, blocking and mutexes here, for each phase")
	traceDir := f.String("trace", "", "write an execution trace here, for each phase")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		i := slices.IndexFunc(scenarios, func(s *scenario) bool { return s.name == *name })
		if i < 0 {
			return usagef(cmd, "--scenario is sustained, burst, large or clients, not %q", *name)
		}
		s := scenarios[i]
		l := &load{
			app: a, scenario: s, rate: s.rate, clients: s.clients, keys: s.keys, size: s.size, seed: *seed,
			length: time.Duration(*minutes * float64(time.Minute)), screen: newScreen(a), profiles: profiles{*pprofDir, *traceDir},
		}
		switch {
		case !(*minutes > 0 && *minutes < 1e6):
			return usagef(cmd, "--minutes must be above zero, and below a million")
		case *rate < 0 || *rate > 1e9:
			return usagef(cmd, "--rate is %d", *rate)
		case *clients < 0 || *clients > 1e6:
			return usagef(cmd, "--clients is %d; at most a million", *clients)
		case *keys < 0 || *keys > 1e8:
			return usagef(cmd, "--keys is %d; at most a hundred million", *keys)
		case *keys > 0 && (s.keys == 0 || s.keys == s.clients):
			return usagef(cmd, "--keys is not for --scenario %s", s.name)
		case *rate > 0 && s.rate == 0:
			return usagef(cmd, "--rate is not for --scenario %s", s.name)
		}
		if *rate > 0 {
			l.rate = *rate
		}
		if *keys > 0 {
			l.keys = *keys
		}
		if *clients > 0 {
			if l.clients = *clients; s.clients == s.keys { // each has its own
				l.keys = *clients
			}
		}
		if *size != "" {
			n, err := humanize.ParseBytes(*size)
			if err != nil || n < leastState || n > 64<<30 || n > mostState && s.fill != nil {
				return usagef(cmd, "--size wants a size from %d bytes to %s, not %q", leastState,
					map[bool]string{true: "1MiB", false: "64GiB"}[s.fill != nil], *size)
			}
			l.size = int64(n)
		}
		o, err := a.options(cmd)
		if err != nil {
			return err
		}
		return a.inOwnDirectory("load", false, l.screen, func(_, dir string) error { return l.run(cmd.Context(), dir, o) })
	}
	return cmd
}

// inOwnDirectory runs what makes a store of its own in a temporary directory, or in the
// one that --dir names, which stays: never in that of HOLDFAST_DIR, which is somebody's
// store. work is for other files, and goes.
func (a *app) inOwnDirectory(what string, keep bool, s *screen, run func(work, dir string) error) error {
	work, err := os.MkdirTemp("", "holdfast-"+what+"-")
	if err != nil {
		return err
	}
	dir := filepath.Join(work, "store")
	if a.dir != "" {
		names, err := os.ReadDir(a.dir)
		switch {
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return errors.Join(err, os.RemoveAll(work))
		case len(names) > 0:
			return errors.Join(fmt.Errorf("%s is not empty: %s wants a directory for itself", a.dir, what), os.RemoveAll(work))
		}
		dir, keep = a.dir, true
	}
	err = roomError(dir, run(work, dir))
	if !keep {
		return errors.Join(err, os.RemoveAll(work))
	}
	s.line("the store is in %s", dir)
	if a.dir != "" {
		err = errors.Join(err, os.RemoveAll(work))
	}
	return err
}

// run opens the store and lets the phases follow each other. A run that is interrupted
// says what it did until then.
func (l *load) run(ctx context.Context, dir string, o *engine.Options) (err error) {
	if l.seed == 0 {
		l.seed = rand.Uint64() >> 16
	}
	if err := l.profiles.prepare(); err != nil {
		return err
	}
	o.TuneGC = l.app.ownsProcess
	if l.e, err = engine.Open(dir, o); err != nil {
		return storeError(dir, err)
	}
	defer func() { err = errors.Join(err, l.e.Close()) }()
	l.screen.line("%s: %s; %s at a time, values of %s, seed %d", l.scenario.name, l.scenario.about,
		count(l.clients, "client"), humanize.IBytes(uint64(l.size)), l.seed)
	l.tape = newTape()
	if l.scenario.fill != nil {
		if err := l.phase(ctx, "fill", func(ctx context.Context) error { return l.scenario.fill(l, ctx) }); err != nil {
			return err
		}
		if err := l.e.Flush(ctx); err != nil {
			return err
		}
	}
	var before, after moment // inside of the phase: profiles take their time
	broken := l.phase(ctx, "run", func(ctx context.Context) error {
		before = l.look()
		err := l.drive(ctx)
		after = l.look()
		return err
	})
	l.report.finish(l, before, after)
	if err := l.report.print(l.app); err != nil || broken != nil {
		return errors.Join(err, broken)
	}
	return ctx.Err()
}

// phase is a part of the run with profiles of its own.
func (l *load) phase(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	stop, err := l.profiles.start(l.scenario.name + "-" + name)
	if err != nil {
		return err
	}
	ended := l.live(name)
	err = fn(ctx)
	ended()
	return errors.Join(err, stop())
}

// drive lets the clients work for the length of the run. The first error ends it for all.
func (l *load) drive(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, l.length)
	defer stop()
	return l.together(ctx, l.clients, func(ctx context.Context, id int) error { return l.scenario.client(l, ctx, id) })
}
