// Command holdfast opens a Holdfast store from a shell: it puts, gets, deletes and
// scans keys, moves whole data sets in and out, describes and checks a store, puts one
// under load, and shows in a demo that an acknowledged write survives SIGKILL.
//
// # Where you are
//
// Above engine and, for torture, the kit under fuzz/. This room knows flags, wire
// formats, terminal output and exit codes, and nothing of how a store keeps its
// promises. Start reading at [app.execute]; each command is in the file of its name.
//
// # Always true
//
//   - Values go to standard output, everything else to standard error.
//   - An error is one line on standard error, the last one, and an exit code of
//     errors.go.
//   - A command that only reads opens the store read-only, and changes no byte.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// An interrupt ends a command between two batches, so that what it says it
	// did is what it did. A second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop()
	}()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, ownsProcess: true}
	os.Exit(a.execute(ctx, os.Args[1:]))
}

// execute runs one command line and returns its exit code. Tests call it, too.
func (a *app) execute(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	a.report(err, args)
	return exitCode(err)
}
