package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

func newExport(a *app) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "export",
		Short: "Export keys and values as JSON lines or as a directory tree",
		Long:  `Exports keys and their values, as they were at one moment.`,
	})
	cmd.AddCommand(newExportJSONL(a), newExportTree(a))
	return cmd
}

func newExportJSONL(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jsonl [FILE]",
		Short: "Export JSON lines",
		Long: `Writes one line {"key", "value", "revision", "size"} per key to FILE, or to
standard output. Keys and values that are not UTF-8 are in base64, and say so in
"key_encoding" and "encoding". 'import jsonl --native' reads it back; revisions are
given anew there.

When the store turns out to be corrupt, what was written to FILE before that is kept
as FILE.partial. With --skip-bad a value that cannot be read is counted, its key is
told on standard error, and the export goes on.`,
		Example: `  holdfast export jsonl -d ./state > all.jsonl
  holdfast export jsonl -d ./state users.jsonl --prefix user/
  holdfast export jsonl -d ./damaged rest.jsonl --recover salvage --skip-bad`,
		Args: between(0, 1, "at most one FILE"),
	}
	span, how := spanFlags(cmd), a.readFlags(cmd)
	overwrite := cmd.Flags().Bool("overwrite", false, "replace FILE if it is there")
	skipBad := cmd.Flags().Bool("skip-bad", false, "count values that cannot be read, and go on")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := span.parse(cmd)
		if err != nil {
			return err
		}
		return a.withStore(cmd, how(), func(e *engine.Engine) error {
			x := exporter{app: a, cmd: cmd, e: e, r: r, skipBad: *skipBad}
			if len(args) == 0 || args[0] == "-" {
				err := x.jsonl(a.out)
				if x.sum.Bad > 0 {
					a.note("skipped", count(int(x.sum.Bad), "bad entry"))
				}
				return err
			}
			return x.jsonlFile(args[0], *overwrite)
		})
	}
	return cmd
}

// exporter walks a range of keys.
type exporter struct {
	*app
	cmd     *cobra.Command
	e       *engine.Engine
	r       engine.Range
	sum     exportSummary
	skipBad bool
}

type exportSummary struct {
	Keys    int64   `json:"keys"`
	Bytes   int64   `json:"bytes"`
	Bad     int64   `json:"bad"`
	Seconds float64 `json:"seconds"`
}

func (x *exporter) each(fn func(item engine.Item, value []byte) error) error {
	began := time.Now()
	bar := x.newProgress("exporting", -1)
	defer bar.done()
	for item, err := range x.e.Scan(x.r) {
		if err == nil {
			err = x.cmd.Context().Err()
		}
		if err != nil {
			return err
		}
		value, err := item.Value()
		if err != nil && x.skipBad && unreadable(err) {
			x.sum.Bad++
			x.note("skipped", plain(ofKey(item.Key(), err)))
			continue
		}
		if err != nil {
			return ofKey(item.Key(), err)
		}
		err = fn(item, value)
		var bad *badEntry
		switch {
		case errors.As(err, &bad) && x.skipBad:
			x.sum.Bad++
			continue
		case err != nil:
			return err
		}
		bar.add(int64(len(value)))
		x.sum.Keys++
		x.sum.Bytes += int64(len(value))
	}
	x.sum.Seconds = time.Since(began).Seconds()
	return nil
}

// unreadable says whether it is this one value that cannot be read. Too few file
// handles or a store that gave way would make every other value look bad, too.
func unreadable(err error) bool {
	return errors.Is(err, engine.ErrCorrupt) || errors.Is(err, syscall.EIO) || errors.Is(err, fs.ErrPermission)
}

// summary says what was written where; it is not for an export to standard output.
func (x *exporter) summary() error {
	if x.json {
		return x.printJSON(x.sum)
	}
	line := fmt.Sprintf("exported %s, %s in %.2f s", count(int(x.sum.Keys), "key"),
		humanize.IBytes(uint64(x.sum.Bytes)), x.sum.Seconds)
	if x.sum.Bad > 0 {
		line += "; skipped " + count(int(x.sum.Bad), "bad entry")
	}
	return x.printf("%s\n", line)
}

func (x *exporter) jsonl(w io.Writer) error {
	out := bufio.NewWriterSize(w, 256<<10)
	err := x.each(func(item engine.Item, value []byte) error {
		r := newKeyJSON(item.Key(), int64(len(value)), item.Revision())
		r.setValue(value)
		return writeJSON(out, r)
	})
	return errors.Join(err, out.Flush())
}

// jsonlFile writes beside the file and renames, so that a broken export leaves
// whatever was there. What was read of a corrupt store may be all that there is of
// it, so that is kept, under a name that nobody takes for the whole.
func (x *exporter) jsonlFile(name string, overwrite bool) error {
	if _, err := os.Lstat(name); !overwrite && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, existsError(name))
	}
	tmp := name + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	err = x.jsonl(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil && x.sum.Keys > 0 && isCorrupt(err) {
		partial := name + ".partial"
		if renameErr := os.Rename(tmp, partial); renameErr != nil {
			return errors.Join(err, renameErr)
		}
		return said(err, "%s; %s before it: in %s; --skip-bad goes on behind it", plain(err), count(int(x.sum.Keys), "key"), partial)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return x.summary()
}

func existsError(name string) error {
	return fmt.Errorf("%s is there already; --overwrite replaces it", name)
}

func newExportTree(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tree DIR",
		Short: "Export a directory tree: key to path, value to content",
		Long: `Writes each value to the file that its key names below DIR: the inverse of
'import tree'. With --prefix only keys that begin with it are written, without it.
Nothing is ever written outside of DIR: a key that is no clean relative path (empty
parts, '.', '..', a leading or trailing slash) is refused, or passed over with
--skip-bad.`,
		Example: `  holdfast export tree -d ./state ./out --prefix doc/`,
		Args:    between(1, 1, "one DIR"),
	}
	keys, how := keyFlag(cmd), a.readFlags(cmd)
	prefix := cmd.Flags().String("prefix", "", "only keys that begin with this, and without it")
	overwrite := cmd.Flags().Bool("overwrite", false, "replace files that are there")
	skipBad := cmd.Flags().Bool("skip-bad", false, "count keys that cannot be a path and values that cannot be read, and go on")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := keys.parse(cmd, *prefix)
		if err != nil {
			return err
		}
		return a.withStore(cmd, how(), func(e *engine.Engine) error {
			x := exporter{app: a, cmd: cmd, e: e, skipBad: *skipBad}
			if len(p) > 0 {
				x.r = engine.Prefix(p)
			}
			if err := x.tree(args[0], p, *overwrite); err != nil {
				return err
			}
			return x.summary()
		})
	}
	return cmd
}

func (x *exporter) tree(dir string, prefix []byte, overwrite bool) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// A Root refuses whatever leaves dir, a symbolic link in it included; checking
	// the key alone would not see those.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if overwrite {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	return x.each(func(item engine.Item, value []byte) error {
		name := string(bytes.TrimPrefix(item.Key(), prefix))
		if name == "" || name == "." || path.Clean(name) != name || !fs.ValidPath(name) || strings.ContainsRune(name, 0) {
			return &badEntry{"key " + escape(item.Key()), errors.New("not a relative path")}
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return &badEntry{"key " + escape(item.Key()), err}
		}
		f, err := root.OpenFile(name, flags, 0o644)
		switch {
		case errors.Is(err, fs.ErrExist):
			return existsError(path.Join(dir, name))
		case err != nil:
			return &badEntry{"key " + escape(item.Key()), err}
		}
		_, err = f.Write(value)
		return errors.Join(err, f.Close())
	})
}
