package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// Exit codes; exitHelp tells users the same.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitLocked      = 4
	exitCorrupt     = 5
	exitNoStore     = 6
	exitDiskFull    = 7
	exitInterrupted = 130
)

const exitHelp = `Exit codes:
  0    done
  1    an error that is none of the below
  2    the command line is wrong
  3    the key has no value
  4    the store is locked: another process has it open
  5    the store is corrupt, a salvage had losses, or demo or torture found a loss
  6    there is no store, it is not one of ours, or a newer version wrote it
  7    the disk is full; nothing that was acknowledged is lost
  130  interrupted`

// errNoStore reports a directory that cannot be opened as a store.
var errNoStore = errors.New("no store")

// usageError is a wrong command line. path is the command whose help says more.
type usageError struct{ what, path string }

func (u *usageError) Error() string { return fmt.Sprintf("%s; see '%s --help'", u.what, u.path) }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), cmd.CommandPath()}
}

// between wants from least to most arguments; names say which.
func between(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least && most == 0, len(args) > most && most == 0:
			return usagef(cmd, "%s takes no arguments, got %d", called(cmd), len(args))
		case len(args) < least, most >= 0 && len(args) > most:
			return usagef(cmd, "%s wants %s, got %s", called(cmd), names, count(len(args), "argument"))
		}
		return nil
	}
}

// called is the command's name without the program's, which every error begins with.
func called(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// exclusive refuses more than one of the named flags. Cobra's own check has no way
// to say that its error is one of usage.
func exclusive(cmd *cobra.Command, names ...string) error {
	first := ""
	for _, n := range names {
		switch {
		case !cmd.Flags().Changed(n):
		case first != "":
			return usagef(cmd, "--%s and --%s exclude each other", first, n)
		default:
			first = n
		}
	}
	return nil
}

func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), errors.Is(err, engine.ErrOptions):
		return exitUsage
	case errors.Is(err, engine.ErrLocked):
		return exitLocked
	case errors.Is(err, engine.ErrForeign), errors.Is(err, engine.ErrVersion), errors.Is(err, errNoStore):
		return exitNoStore
	case isCorrupt(err), errors.Is(err, errLost), errors.Is(err, errBroken):
		return exitCorrupt
	case errors.Is(err, engine.ErrNotFound):
		return exitNotFound
	case errors.Is(err, engine.ErrDiskFull):
		return exitDiskFull
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitError
}

// storeError says in words of a user why the store in dir did not open.
func storeError(dir string, err error) error {
	switch {
	case errors.Is(err, engine.ErrLocked):
		return said(err, "the store in %s is locked: another process has it open", dir)
	case errors.Is(err, engine.ErrVersion):
		return said(err, "the store in %s was written by a newer version of this program: %s", dir, plain(err))
	case errors.Is(err, engine.ErrForeign):
		what := strings.TrimPrefix(plain(err), plain(engine.ErrForeign)+": ")
		if held, ok := strings.CutPrefix(what, dir+" holds "); ok {
			what = "it holds " + strings.TrimSuffix(held, " and no store")
		}
		return said(err, "%s is not a Holdfast store: %s", dir, what)
	case isCorrupt(err):
		return said(err, "the store in %s is corrupt: %s", dir, place(err))
	case errors.Is(err, os.ErrNotExist):
		return said(errors.Join(errNoStore, err), "there is no store in %s ('put' and 'import' make one)", dir)
	}
	return roomError(dir, err)
}

// roomError says what to do about a full disk, however many writes met it.
func roomError(dir string, err error) error {
	if errors.Is(err, engine.ErrDiskFull) && !errors.Is(err, engine.ErrInDoubt) && !isCorrupt(err) {
		return said(err, "the disk of the store in %s is full: free some space; reading still works", dir)
	}
	return err
}

// saidError has a text of its own and the identity of its cause.
type saidError struct {
	text  string
	cause error
}

func said(cause error, format string, args ...any) error {
	return &saidError{fmt.Sprintf(format, args...), cause}
}

func (s *saidError) Error() string { return s.text }
func (s *saidError) Unwrap() error { return s.cause }

// plain is err on one line, without the name of this program, which report puts in
// front.
func plain(err error) string {
	s := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	for _, sep := range []string{"; ", ": "} {
		s = strings.ReplaceAll(s, sep+"<corruption detail carrier>", "") // Pebble's, and says nothing
	}
	if s == context.Canceled.Error() {
		return "interrupted"
	}
	s = strings.TrimPrefix(s, "holdfast: ")
	return once(strings.ReplaceAll(strings.ReplaceAll(s, ": holdfast: ", ": "), "; holdfast: ", "; "))
}

// once drops from "a: b; b" what was said before: a failure that stops several things
// at once is joined from all of them.
func once(s string) string {
	var kept []string
	for part := range strings.SplitSeq(s, "; ") {
		again := slices.ContainsFunc(kept, func(k string) bool { return k == part || strings.HasSuffix(k, ": "+part) })
		if !again {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "; ")
}

// place says where the first corruption is: file, offset, what.
func place(err error) string {
	if found, _ := judge(err); len(found) > 0 {
		return found[0].String()
	}
	return plain(err)
}

// advice ends the message about a store that is corrupt.
func (a *app) advice(err error) string {
	switch {
	case !a.opened || !isCorrupt(err):
		return ""
	case a.rescue != "":
		return "; restore a checkpoint, or " + a.rescue
	case a.recover == salvage:
		return "; restore a checkpoint, or export what is left with --recover salvage --skip-bad"
	}
	return "; restore a checkpoint, or read what is left with --recover salvage"
}

// report writes the one line that an error is.
func (a *app) report(err error, args []string) {
	// A command line that does not parse may have failed before its --json.
	if a.json || slices.Contains(args, "--json") {
		line := struct {
			Error string `json:"error"`
			Code  int    `json:"code"`
		}{plain(err) + a.advice(err), exitCode(err)}
		enc := json.NewEncoder(a.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(line) // standard error is all there is to complain to
		return
	}
	fmt.Fprintf(a.err, "holdfast: %s%s\n", plain(err), a.advice(err))
}
