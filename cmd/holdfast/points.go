package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

func newPut(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put KEY [VALUE]",
		Short: "Set a key to a value",
		Long: `Sets KEY to VALUE, or to everything on standard input if no VALUE is given, of any
size: it is streamed, and shows its progress on a terminal. An empty value is a value.
The store is made if there is none. When the command returns, the value survives what
--sync says; if it is interrupted, the key is as it was.`,
		Example: `  holdfast put -d ./state greeting hello
  holdfast put -d ./state photo < photo.jpg
  holdfast put -d ./state -- -5 'a key that begins with a dash'
  holdfast put -d ./state --hex 00ff01 'a binary key'`,
		Args: between(1, 2, "KEY [VALUE]"),
	}
	keys := keyFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := keys.parseOne(cmd, args[0])
		if err != nil {
			return err
		}
		in := a.in
		switch {
		case len(args) == 2:
			in = strings.NewReader(args[1])
		case isTerminal(a.in):
			return usagef(cmd, "no VALUE, and standard input is a terminal")
		}
		return a.withStore(cmd, creates, func(e *engine.Engine) error {
			n, err := a.putStream(cmd.Context(), e, key, in)
			if err != nil || !a.json {
				return err
			}
			info, err := e.Stat(key) // the lock keeps everybody else out
			if err != nil {
				return err
			}
			return a.printJSON(newKeyJSON(key, n, info.Revision))
		})
	}
	return cmd
}

func newGet(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Prints the value of KEY as it is. A newline is added only on a terminal. Exit
code 3 means that the key has no value. A large value is streamed; into a file or a pipe
it shows its progress on a terminal.

With --range OFFSET:LENGTH only that part is printed, in bytes: 4096:100 are a hundred
from offset 4096, 4096: is the rest, :100 the first hundred. What lies beyond the end is
left out; an OFFSET beyond the end is an error. Of a compressed value only the frames
that it touches are read.

With --json the line is {"key", "value", "revision", "size"}; a value that is not
UTF-8 is in base64 and has "encoding":"base64".`,
		Example: `  holdfast get -d ./state greeting
  holdfast get -d ./state photo > photo.jpg
  holdfast get -d ./state photo --range 0:16 | xxd`,
		Args: between(1, 1, "one KEY"),
	}
	keys, how := keyFlag(cmd), a.readFlags(cmd)
	ranged := cmd.Flags().String("range", ":", "the part OFFSET:LENGTH of the value")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := keys.parseOne(cmd, args[0])
		if err != nil {
			return err
		}
		p, err := parsePart(cmd, *ranged)
		if err != nil {
			return err
		}
		if a.json && cmd.Flags().Changed("range") {
			return usagef(cmd, "--json prints the whole value, --range a part")
		}
		return a.withStore(cmd, how(), func(e *engine.Engine) error {
			if a.json {
				return a.getJSON(e, key)
			}
			return a.getStream(cmd, e, key, p)
		})
	}
	return cmd
}

func (a *app) getJSON(e *engine.Engine, key []byte) error {
	// The lock keeps everybody else out, so the two reads see one value.
	info, err := e.Stat(key)
	if err != nil {
		return ofKey(key, err)
	}
	r := newKeyJSON(key, info.Size, info.Revision)
	err = e.View(key, func(value []byte) error {
		r.setValue(value)
		return nil
	})
	if err != nil {
		return ofKey(key, err)
	}
	return a.printJSON(r)
}

// ofKey adds the key to an error.
func ofKey(key []byte, err error) error { return fmt.Errorf("key %s: %w", escape(key), err) }

func newDel(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "del KEY... | del --range LOWER UPPER | del --prefix P",
		Short: "Delete keys, a range of keys, or all keys with a prefix",
		Long: `Deletes the given keys in one batch, or with --range every key from LOWER up to,
but not including, UPPER, or with --prefix every key that begins with P. Deleting a
key that is not there is no error.`,
		Example: `  holdfast del -d ./state greeting photo
  holdfast del -d ./state --range log/2024 log/2025
  holdfast del -d ./state --prefix session/
  holdfast del -d ./state --all`,
		Args: between(0, -1, "keys"),
	}
	keys := keyFlag(cmd)
	ranged := cmd.Flags().Bool("range", false, "the arguments are LOWER and UPPER")
	prefix := cmd.Flags().String("prefix", "", "every key that begins with this")
	all := cmd.Flags().Bool("all", false, "every key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := exclusive(cmd, "range", "prefix", "all"); err != nil {
			return err
		}
		fill, err := delBatch(cmd, keys, args, *ranged, *all, *prefix)
		if err != nil {
			return err
		}
		return a.withStore(cmd, changes, func(e *engine.Engine) error {
			b := e.NewBatch()
			defer b.Close()
			if err := fill(b); err != nil {
				return err
			}
			lsn, err := e.ApplyContext(cmd.Context(), b)
			if err != nil || !a.json {
				return err
			}
			return a.printJSON(struct {
				LSN uint64 `json:"lsn"`
			}{lsn})
		})
	}
	return cmd
}

// delBatch turns the command line into what goes into the batch.
func delBatch(cmd *cobra.Command, k *keys, args []string, ranged, all bool, prefix string) (func(*engine.Batch) error, error) {
	byPrefix := cmd.Flags().Changed("prefix")
	switch {
	case (all || byPrefix) && len(args) > 0:
		return nil, usagef(cmd, "--prefix and --all take no keys")
	case byPrefix && prefix == "":
		return nil, usagef(cmd, "an empty --prefix is every key: say --all")
	case ranged && len(args) != 2:
		return nil, usagef(cmd, "--range wants LOWER and UPPER, got %d arguments", len(args))
	case !all && !byPrefix && len(args) == 0:
		return nil, usagef(cmd, "no key given")
	case all:
		return func(b *engine.Batch) error { return b.DeleteRange(nil, nil) }, nil
	case byPrefix:
		p, err := k.parseOne(cmd, prefix)
		if err != nil {
			return nil, err
		}
		r := engine.Prefix(p)
		return func(b *engine.Batch) error { return b.DeleteRange(r.Lower, r.Upper) }, nil
	}
	parsed := make([][]byte, len(args))
	for i, s := range args {
		var err error
		if parsed[i], err = k.parseOne(cmd, s); err != nil {
			return nil, err
		}
	}
	if ranged && bytes.Compare(parsed[0], parsed[1]) > 0 {
		return nil, invertedf(cmd, "LOWER", "UPPER", parsed[0], parsed[1])
	}
	if ranged {
		return func(b *engine.Batch) error { return b.DeleteRange(parsed[0], parsed[1]) }, nil
	}
	return func(b *engine.Batch) error {
		for _, key := range parsed {
			if err := b.Delete(key); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
