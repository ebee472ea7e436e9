package main

import (
	"bufio"
	"bytes"

	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// span is the flags that choose a range of keys.
type span struct {
	keys             *keys
	prefix, from, to string
	reverse          bool
}

func spanFlags(cmd *cobra.Command) *span {
	s := &span{keys: keyFlag(cmd)}
	f := cmd.Flags()
	f.StringVar(&s.prefix, "prefix", "", "only keys that begin with this")
	f.StringVar(&s.from, "from", "", "first key, itself included")
	f.StringVar(&s.to, "to", "", "end, itself not included")
	f.BoolVar(&s.reverse, "reverse", false, "from the highest key down")
	return s
}

// parse returns where prefix and the two bounds overlap.
func (s *span) parse(cmd *cobra.Command) (engine.Range, error) {
	var r engine.Range
	prefix, err := s.keys.parse(cmd, s.prefix)
	if err != nil {
		return r, err
	}
	if len(prefix) > 0 {
		r = engine.Prefix(prefix)
	}
	from, err := s.keys.parse(cmd, s.from)
	if err != nil {
		return r, err
	}
	if bytes.Compare(from, r.Lower) > 0 {
		r.Lower = from
	}
	if cmd.Flags().Changed("to") {
		to, err := s.keys.parse(cmd, s.to)
		if err != nil {
			return r, err
		}
		if bytes.Compare(from, to) > 0 {
			return r, invertedf(cmd, "--from", "--to", from, to)
		}
		if r.Upper == nil || bytes.Compare(to, r.Upper) < 0 {
			r.Upper = to
		}
	}
	if r.Upper != nil && bytes.Compare(r.Lower, r.Upper) > 0 {
		// Bounds that exclude each other name no key; that is no mistake when one
		// of them is a prefix.
		r.Lower = r.Upper
	}
	r.Reverse = s.reverse
	return r, nil
}

func newScan(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "List keys and values in order",
		Long: `Lists keys and their values in the order of the keys, as they were at one moment:
key, tab, value, one per line. What is not printable is escaped as in a Go string
(\n, \t, \x00, \\). With --json each line is
{"key", "value", "revision", "size"}, with base64 for what is not UTF-8.`,
		Example: `  holdfast scan -d ./state
  holdfast scan -d ./state --prefix user/ --limit 10
  holdfast scan -d ./state --from log/2024 --to log/2025 --reverse --keys-only`,
		Args: between(0, 0, ""),
	}
	span, how := spanFlags(cmd), a.readFlags(cmd)
	limit := cmd.Flags().Uint64("limit", 0, "stop after this many keys; 0 is all")
	keysOnly := cmd.Flags().Bool("keys-only", false, "print keys, read no values")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := span.parse(cmd)
		if err != nil {
			return err
		}
		return a.withStore(cmd, how(), func(e *engine.Engine) error {
			return a.scan(cmd, e, r, *limit, *keysOnly)
		})
	}
	return cmd
}

func (a *app) scan(cmd *cobra.Command, e *engine.Engine, r engine.Range, limit uint64, keysOnly bool) (err error) {
	out := bufio.NewWriterSize(a.out, 64<<10)
	defer func() {
		if flushErr := out.Flush(); err == nil {
			err = flushErr
		}
	}()
	var n uint64
	for item, err := range e.Scan(r) {
		if err == nil {
			err = cmd.Context().Err()
		}
		if err != nil {
			return err
		}
		if err := a.printItem(out, item, keysOnly); err != nil {
			return err
		}
		if n++; n == limit {
			break
		}
	}
	return nil
}

func (a *app) printItem(out *bufio.Writer, item engine.Item, keysOnly bool) error {
	var value []byte
	if !keysOnly {
		var err error
		if value, err = item.Value(); err != nil {
			return ofKey(item.Key(), err)
		}
	}
	if a.json {
		rec := newKeyJSON(item.Key(), item.Size(), item.Revision())
		if !keysOnly {
			rec.setValue(value)
		}
		return writeJSON(out, rec)
	}
	_, err := out.WriteString(escape(item.Key()))
	if err == nil && !keysOnly {
		_, err = out.WriteString("\t" + escape(value))
	}
	if err == nil {
		err = out.WriteByte('\n')
	}
	return err
}
