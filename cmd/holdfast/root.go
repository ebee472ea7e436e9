package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime/debug"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/holdfastdb/holdfast/engine"
)

// app is one run of the command: its streams and its global flags.
type app struct {
	in       io.Reader
	out, err io.Writer

	ownsProcess bool // the garbage collector is ours to set

	dir     string
	sync    string
	memory  string
	json    bool
	verbose bool
	recover string // of commands that read; empty is strict

	rescue string // what a survey said that salvage can do; ends the advice

	opened bool // withStore was asked for a store, so there is one to advise about
}

// dirEnv names the store for those who do not want to repeat --dir.
const dirEnv = "HOLDFAST_DIR"

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "An embedded, persistent key-value state engine",
		Long: `holdfast works on a store: a directory that keeps values under keys, and that
keeps every acknowledged write through a crash.

Name the store with --dir, or once for all with the environment variable
` + dirEnv + `. 'put' and 'import' make a store where there is none. Commands that
only read never change a byte of it, and several of them may run side by side; a
command that writes has the store for itself.

` + exitHelp,
		Example: `  holdfast demo                                  see what it is about
  holdfast put -d ./state user/42 '{"name":"Ada"}'
  holdfast get -d ./state user/42
  holdfast import tree -d ./state /usr/share/doc --prefix doc/
  holdfast scan -d ./state --prefix doc/ --limit 10 --keys-only
  holdfast check -d ./state
  holdfast salvage ./state ./rescued             when check finds damage`,
		Version:      version(),
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return flagError(cmd, err)
	})
	f := root.PersistentFlags()
	f.StringVarP(&a.dir, "dir", "d", "", "directory of the store (or "+dirEnv+")")
	f.BoolVar(&a.json, "json", false, "print JSON, errors too")
	f.StringVar(&a.sync, "sync", "always", "what an acknowledged write survives: always (power cut), interval, never")
	f.StringVar(&a.memory, "memory", "256MiB", "memory budget, at least 16MiB")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "tell what the engine notices")
	root.AddCommand(
		newDemo(a), newDemoChild(a), newTortureChild(a),
		newPut(a), newGet(a), newDel(a), newScan(a),
		newImport(a), newExport(a),
		newStat(a), newInspect(a), newCompact(a), newCheck(a), newSalvage(a), newLoad(a), newTorture(a),
	)
	root.SetHelpCommand(newHelp(root))
	return root
}

// newHelp is cobra's help command, but for a wrong topic, which is an error.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(root, args[0])
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// group is a command that is only a name for its subcommands.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef(cmd, "%s wants a format", called(cmd))
		}
		return unknownCommand(cmd, args[0])
	}
	return cmd
}

func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(name); len(s) > 0 {
		return usagef(cmd, "unknown command %q, did you mean %q?", name, s[0])
	}
	return usagef(cmd, "unknown command %q", name)
}

// access is what a command wants to do with a store.
type access int

const (
	reads   access = iota // read-only
	changes               // writes to a store that must be there
	creates               // writes, and makes the store if there is none
)

func (a *app) storeDir(cmd *cobra.Command) (string, error) {
	dir := a.dir
	if dir == "" && !cmd.Flags().Changed("dir") {
		dir = os.Getenv(dirEnv)
	}
	if dir == "" {
		return "", usagef(cmd, "no store named: use --dir DIR or set %s", dirEnv)
	}
	return dir, nil
}

// options turns the global flags into the engine's.
func (a *app) options(cmd *cobra.Command) (*engine.Options, error) {
	o := &engine.Options{}
	switch a.sync {
	case "always":
	case "interval":
		o.Sync = engine.SyncInterval
	case "never":
		o.Sync = engine.SyncNever
	default:
		return nil, usagef(cmd, "--sync is always, interval or never, not %q", a.sync)
	}
	n, err := humanize.ParseBytes(a.memory)
	if err != nil || n > math.MaxInt64 {
		return nil, usagef(cmd, "--memory wants a size like 256MiB, not %q", a.memory)
	}
	if n < leastMemory {
		return nil, usagef(cmd, "--memory wants at least 16 MiB, not %q; 16MiB is a little more than 16MB", a.memory)
	}
	o.MemoryBudget = int64(n)
	if a.ownsProcess {
		// The process is there for the store alone, so that the heap may not grow to
		// twice what lives in it while the budget has no room for that. A limit much
		// below what lives would only make the collector run without end.
		debug.SetMemoryLimit(max(o.MemoryBudget, leastHeap))
	}
	if a.verbose {
		o.Logger = slog.New(slog.NewTextHandler(a.err, nil))
	}
	return o, nil
}

const (
	leastHeap   = 48 << 20
	leastMemory = 16 << 20 // the engine's own, told in the words of the flag
)

// withStore opens the store that the flags name, calls fn and closes it.
func (a *app) withStore(cmd *cobra.Command, how access, fn func(*engine.Engine) error) error {
	dir, err := a.storeDir(cmd)
	if err != nil {
		return err
	}
	o, err := a.options(cmd)
	if err != nil {
		return err
	}
	o.ReadOnly = how == reads
	o.MustExist = how != creates
	if o.Recovery, err = a.recovery(cmd, how); err != nil {
		return err
	}
	if i, err := os.Stat(dir); err == nil && !i.IsDir() {
		return said(errNoStore, "%s is not a directory", dir)
	}
	a.opened = true
	e, err := engine.Open(dir, o)
	if err != nil {
		return storeError(dir, err)
	}
	a.tellLost(e.Recovered().Lost)
	return roomError(dir, errors.Join(fn(e), e.Close()))
}

// printJSON writes v as one line.
func (a *app) printJSON(v any) error { return writeJSON(a.out, v) }

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// isTerminal says whether w is somebody's screen.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}
