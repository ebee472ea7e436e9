package main

import (
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// The modes of --recover, in the order of the help.
const (
	strict      = "strict"
	absolute    = "absolute"
	pointInTime = "point-in-time"
	salvage     = "salvage"
)

const recoverHelp = `With --recover you say what to do with a damaged log:
  strict         refuse a store that lost anything it had promised (the default)
  absolute       refuse any imperfect tail, also one that a crash may leave
  point-in-time  read up to the first damage
  salvage        skip what is damaged, and change nothing
What a mode gave up is told on standard error, one line each.`

// readFlags is for commands that read: a crashed store is read as it lies there,
// unless the user wants recovery to be written down.
func (a *app) readFlags(cmd *cobra.Command) func() access {
	readOnly := cmd.Flags().Bool("read-only", true, "change nothing; =false finishes the recovery of a crashed store on disk")
	cmd.Flags().StringVar(&a.recover, "recover", strict,
		"what to do with a damaged log: "+strings.Join([]string{strict, absolute, pointInTime, salvage}, ", "))
	cmd.Long += "\n\n" + recoverHelp
	return func() access {
		if *readOnly {
			return reads
		}
		return changes
	}
}

func (a *app) recovery(cmd *cobra.Command, how access) (engine.RecoveryMode, error) {
	switch a.recover {
	case "", strict:
		return engine.RecoverStrict, nil
	case absolute:
		return engine.RecoverAbsolute, nil
	case pointInTime:
		return engine.RecoverPointInTime, nil
	case salvage:
		if how != reads {
			return 0, usagef(cmd, "--recover salvage reads only: leave --read-only on")
		}
		return engine.RecoverSalvage, nil
	}
	return 0, usagef(cmd, "--recover is %s, %s, %s or %s, not %q", strict, absolute, pointInTime, salvage, a.recover)
}

// tellLost says what a forgiving mode gave up, whatever the command goes on to do
// with the rest.
func (a *app) tellLost(lost []string) {
	for _, l := range lost {
		a.note("lost", l)
	}
}

// note is one line on standard error that is no error. Nobody is left to hear that it
// could not be written.
func (a *app) note(kind, what string) {
	if a.json {
		_ = writeJSON(a.err, map[string]string{kind: what})
		return
	}
	fmt.Fprintf(a.err, "holdfast: %s: %s\n", kind, what)
}

// badValue is how pflag says that a flag's value does not parse. Its type for that
// is not one that we depend on.
var badValue = regexp.MustCompile(`(?s)^invalid argument "(.*)" for "(?:-\w, )?--([\w-]+)" flag: `)

// flagError turns what strconv thinks of a value into what the flag wants.
func flagError(cmd *cobra.Command, err error) error {
	m := badValue.FindStringSubmatch(err.Error())
	if m == nil || cmd.Flag(m[2]) == nil {
		return usagef(cmd, "%v", err)
	}
	wants := map[string]string{
		"uint64": "a whole number from 0 up", "int": "a whole number", "bool": "true or false",
		"duration": "a time like 3s",
	}[cmd.Flag(m[2]).Value.Type()]
	if wants == "" {
		return usagef(cmd, "%v", err)
	}
	return usagef(cmd, "--%s wants %s, not %q", m[2], wants, m[1])
}

// version is that of the module this command was built from.
func version() string {
	i, ok := debug.ReadBuildInfo()
	if !ok || i.Main.Version == "" || i.Main.Version == "(devel)" {
		return "devel"
	}
	return i.Main.Version
}
