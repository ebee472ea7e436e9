package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// demo is one run of `holdfast demo`, and of its test.
type demo struct {
	app    *app
	ctx    context.Context
	source string
	dir    string // of the store
	work   string // temporary, beside the store
	seed   uint64
	kills  int
	limit  int64 // bytes of the source
	reads  time.Duration
	budget int64
	flags  []string // of the child
	env    []string
	early  int // of the killer

	screen *screen
	report demoReport
}

func newDemo(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Kill a store again and again, and prove that nothing was lost",
		Long: `Imports a directory tree, path to content, in a child process that is killed with
SIGKILL at random moments, each after it acknowledged something. After each kill the store is reopened, and every file
that had been acknowledged must be there byte for byte, no batch by half, and
nothing else. When the import is complete, the kills go on while files are
overwritten, deleted and restored. At the end a skewed workload is read, and a
table says what each tier answered, and what memory and disk the state took.

The tree is the Go source of the installed toolchain, or the current directory if
there is none. Only memory that --memory allows is used; the demo's own default is
64MiB, so that all tiers have something to do.`,
		Example: `  holdfast demo
  holdfast demo --kills 100 --source ~/src
  holdfast demo --dir /tmp/state --keep && holdfast scan -d /tmp/state --prefix batch/ --limit 3`,
		Args: between(0, 0, ""),
	}
	f := cmd.Flags()
	source := f.String("source", "", "directory to import; default is the Go source tree")
	kills := f.Int("kills", 20, "how many times to kill")
	seed := f.Uint64("seed", 0, "makes the kills and batches repeatable, as far as time is; 0 draws one")
	limit := f.String("limit", "256MiB", "import at most so much of the source")
	reads := f.Duration("read-for", 3*time.Second, "how long to read at the end")
	keep := f.Bool("keep", false, "keep the store, and say where it is")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("memory") {
			a.memory = "64MiB"
		}
		o, err := a.options(cmd)
		if err != nil {
			return err
		}
		most, err := humanize.ParseBytes(*limit)
		switch {
		case err != nil || most > 1<<40:
			return usagef(cmd, "--limit wants a size like 100MiB, not %q", *limit)
		case *kills < 0:
			return usagef(cmd, "--kills is %d", *kills)
		case *reads < 0:
			return usagef(cmd, "--read-for is %v", *reads)
		}
		d := &demo{
			app: a, ctx: cmd.Context(), source: *source, seed: *seed, kills: *kills,
			limit: int64(most), reads: *reads, budget: o.MemoryBudget, screen: newScreen(a),
		}
		return a.inOwnDirectory("demo", *keep, d.screen, func(work, dir string) error {
			d.work, d.dir = work, dir
			return d.run()
		})
	}
	return cmd
}

func (d *demo) run() error {
	began := time.Now()
	if d.seed == 0 {
		d.seed = rand.Uint64()
	}
	k, err := d.prepare()
	if err != nil {
		return err
	}
	if err := d.killLoop(k); err != nil {
		return err
	}
	if err := d.finish(k); err != nil {
		return err
	}
	d.report.Seconds = time.Since(began).Seconds()
	return d.report.print(d.app)
}

// prepare finds the files and makes the plan.
func (d *demo) prepare() (*killer, error) {
	if d.source == "" {
		d.source = goSource(d.ctx)
	}
	files, bytes, err := findFiles(d.source, d.limit)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(d.source)
	if err != nil {
		return nil, err
	}
	p := &plan{Root: root, Files: files, Seed: d.seed}
	p.deal()
	name := filepath.Join(d.work, "plan.json")
	if err := p.save(name); err != nil {
		return nil, err
	}
	d.report = demoReport{Source: root, SourceFiles: len(files), SourceBytes: bytes, Seed: d.seed, Budget: d.budget}
	d.screen.line("%s: %s files, %s, in %s by %s; seed %d", root, humanize.Comma(int64(len(files))),
		humanize.IBytes(uint64(bytes)), count(p.importBatches(), "batch"), count(len(p.lanes), "writer"), d.seed)
	return &killer{
		ctx: d.ctx, m: newModel(p), r: rand.New(rand.NewPCG(d.seed, 0)), dir: d.dir, plan: name,
		flags: d.flags, env: d.env, opts: engine.Options{MemoryBudget: d.budget}, early: d.early,
	}, nil
}

// goSource is the source tree of the Go toolchain, or the current directory.
func goSource(ctx context.Context) string {
	roots := []string{os.Getenv("GOROOT")}
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		roots = append(roots, strings.TrimSpace(string(out)))
	}
	//lint:ignore SA1019 a binary that runs where it was built knows its toolchain
	roots = append(roots, runtime.GOROOT())
	for _, r := range roots {
		src := filepath.Join(r, "src")
		if i, err := os.Stat(filepath.Join(src, "runtime")); r != "" && err == nil && i.IsDir() {
			return src
		}
	}
	return "."
}

// churnPerKill is the most batches between two kills once the import is through.
const churnPerKill = 40

// killLoop kills, reopens and proves. Two thirds of the kills are spread over the
// import, whatever its size; the others come when it is complete.
func (d *demo) killLoop(k *killer) error {
	importKills := max(1, 2*d.kills/3)
	for n := 1; n <= d.kills; n++ {
		if n > importKills && !k.m.imported() {
			if _, err := k.run(nil); err != nil {
				return err
			}
		}
		most, left := churnPerKill, k.m.importLeft()
		if left > 0 {
			// Twice the mean that is left for each kill, but no more than there is.
			most = min(left, max(2, 2*left/(importKills-n+2)))
		}
		at := k.aimFor(most, left > 0)
		acks, err := k.run(&at)
		if err != nil {
			return err
		}
		l, err := k.examine()
		if err != nil {
			return err
		}
		phase := "importing"
		if k.m.imported() {
			phase = "overwriting and deleting"
			d.report.ChurnKills++
		}
		d.report.add(acks, &l)
		d.screen.status("kill %*d/%d  %s: %s acknowledged, reopened%s in %v, %s files and markers (%s) proved in %v",
			len(fmt.Sprint(d.kills)), n, d.kills, phase, count(acks, "batch"), map[bool]string{true: " read-only"}[l.readOnly], l.open.Round(time.Millisecond/10),
			humanize.Comma(int64(l.Keys)), humanize.IBytes(uint64(l.Bytes)), l.proof.Round(time.Millisecond))
		if err := l.err(n); err != nil {
			return err
		}
	}
	d.screen.status("")
	return nil
}

// finish lets the child complete the import, proves everything once more, and
// reads.
func (d *demo) finish(k *killer) (err error) {
	if !k.m.imported() {
		if _, err := k.run(nil); err != nil {
			return err
		}
	}
	e, err := engine.Open(d.dir, &k.opts)
	if err != nil {
		return storeError(d.dir, err)
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	v, err := k.m.verify(e)
	if err == nil {
		err = v.err(d.kills)
	}
	if err != nil {
		return err
	}
	d.report.Keys, d.report.Bytes = v.Keys, v.Bytes
	// So that every tier has a part in the reads, and no flush runs beside them.
	if err := e.Flush(d.ctx); err != nil {
		return err
	}
	if d.reads > 0 {
		if err := d.read(k, e); err != nil {
			return err
		}
	}
	d.report.Memory = readResidency()
	if err := e.Check(d.ctx); err != nil {
		return err
	}
	d.report.DiskBytes, err = diskBytes(d.dir)
	return err
}

func (d *demo) read(k *killer, e *engine.Engine) error {
	files := k.m.live()
	if len(files) == 0 {
		return nil
	}
	d.screen.status("reading for %v", d.reads)
	if err := k.m.warmMap(e, files, k.r); err != nil {
		return err
	}
	// The proof has read and hashed gigabytes; what that left behind is not what
	// the store takes.
	debug.FreeOSMemory()
	keys := make([][]byte, len(files))
	for i, f := range files {
		keys[i] = k.m.p.key(f)
	}
	r, err := readSkewed(d.ctx, e, keys, d.seed, d.reads)
	if err == nil {
		err = d.ctx.Err()
	}
	d.report.Read = r
	d.screen.status("")
	return err
}
