package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// batchBytes is where a batch of an import ends. Larger batches need fewer syncs
// and lose more work to a kill.
const batchBytes = 1 << 20

func newImport(a *app) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "import",
		Short: "Import a directory tree, JSON lines or CSV",
		Long: `Imports many keys from a directory tree, from JSON lines or from CSV. The store is
made if there is none.

Writes go in batches of about 1 MiB; each batch is there as a whole or not at all,
whatever interrupts it. An import that was interrupted is finished by running it
again: what is there already is written once more, with the same value.`,
	})
	cmd.AddCommand(newImportTree(a), newImportJSONL(a), newImportCSV(a))
	return cmd
}

// importSummary is what an import did. Its JSON is what --json prints.
type importSummary struct {
	Keys    int64   `json:"keys"`
	Bytes   int64   `json:"bytes"`
	Batches int64   `json:"batches"`
	LSN     uint64  `json:"lsn"`
	Skipped int64   `json:"skipped"` // links and other things that are no regular files
	Bad     int64   `json:"bad"`     // lines or files that --skip-bad passed over
	Seconds float64 `json:"seconds"`
}

func (s *importSummary) String() string {
	rate := float64(s.Bytes) / max(s.Seconds, 1e-6)
	line := fmt.Sprintf("imported %s, %s in %.2f s (%s/s)", count(int(s.Keys), "key"),
		humanize.IBytes(uint64(s.Bytes)), s.Seconds, humanize.IBytes(uint64(rate)))
	if s.Skipped > 0 {
		line += "; skipped " + count(int(s.Skipped), "link or other special file")
	}
	if s.Bad > 0 {
		line += "; skipped " + count(int(s.Bad), "bad entry")
	}
	return line
}

// importFlags are shared by all formats.
type importFlags struct {
	prefix  string
	skipBad bool
}

func addImportFlags(cmd *cobra.Command) *importFlags {
	f := new(importFlags)
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "put this in front of every key")
	cmd.Flags().BoolVar(&f.skipBad, "skip-bad", false, "count what cannot be imported, and go on")
	return f
}

// importer collects keys into batches.
type importer struct {
	importFlags
	ctx   context.Context
	e     *engine.Engine
	batch *engine.Batch
	bytes int // in batch
	bar   *progress
	sum   importSummary
}

// badEntry reports something of the input that cannot be imported, and where it
// is. --skip-bad passes over it.
type badEntry struct {
	where string
	err   error
}

func (b *badEntry) Error() string {
	return b.where + ": " + plain(b.err) + "; --skip-bad passes over it"
}

func (b *badEntry) Unwrap() error { return b.err }

// runImport opens the store, lets read call put for every key, and prints the
// summary.
func (a *app) runImport(cmd *cobra.Command, f *importFlags, total int64, read func(*importer) error) error {
	return a.withStore(cmd, creates, func(e *engine.Engine) error {
		began := time.Now()
		i := &importer{
			importFlags: *f, ctx: cmd.Context(), e: e, batch: e.NewBatch(),
			bar: a.newProgress("importing", total),
		}
		defer i.batch.Close()
		err := read(i)
		var bad *badEntry
		if err == nil || errors.As(err, &bad) {
			// What came before a bad line is good, and a later run need not be told.
			err = errors.Join(err, i.commit())
		}
		i.bar.done()
		i.sum.Seconds = time.Since(began).Seconds()
		switch {
		case errors.Is(err, context.Canceled):
			return said(err, "interrupted after %s; run it again to go on", count(int(i.sum.Keys), "key"))
		case err != nil:
			return err
		case a.json:
			return a.printJSON(i.sum)
		}
		return a.printf("%s\n", &i.sum)
	})
}

// put adds one key. An error of the entry itself is a badEntry, and already
// counted and nil under --skip-bad.
func (i *importer) put(where string, key, value []byte) error {
	if err := i.ctx.Err(); err != nil {
		return err
	}
	key = append([]byte(i.prefix), key...)
	// Looked at here, since a batch that refused one write refuses to be applied.
	switch {
	case len(key) == 0:
		return i.bad(where, engine.ErrEmptyKey)
	case len(key) > engine.MaxKey:
		return i.bad(where, fmt.Errorf("%w: key of %d bytes, at most %d", engine.ErrTooLarge, len(key), engine.MaxKey))
	case int64(len(value)) > engine.MaxValue:
		return i.bad(where, fmt.Errorf("%w: value of %d bytes", engine.ErrTooLarge, len(value)))
	}
	size := len(key) + len(value)
	if i.bytes > 0 && i.bytes+size > batchBytes {
		if err := i.commit(); err != nil {
			return err
		}
	}
	if err := i.batch.Put(key, value); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	i.bytes += size
	return nil
}

func (i *importer) bad(where string, err error) error {
	if i.skipBad {
		i.sum.Bad++
		return nil
	}
	return &badEntry{where, err}
}

func (i *importer) commit() error {
	n := i.batch.Len()
	if n == 0 {
		return nil
	}
	lsn, err := i.e.ApplyContext(i.ctx, i.batch)
	if err != nil {
		return err
	}
	i.sum.Keys += int64(n)
	i.sum.Bytes += int64(i.bytes)
	i.sum.Batches++
	i.sum.LSN = lsn
	i.batch.Reset()
	i.bytes = 0
	return nil
}

// openInput opens a file, or standard input for "-", and says how long it is, or
// -1.
func (a *app) openInput(name string) (r io.Reader, called string, size int64, done func() error, err error) {
	if name == "-" {
		return a.in, "standard input", -1, func() error { return nil }, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, "", 0, nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory: use 'import tree'", name)
	}
	if err != nil {
		return nil, "", 0, nil, errors.Join(err, f.Close())
	}
	size = -1
	if info.Mode().IsRegular() {
		size = info.Size()
	}
	return f, name, size, f.Close, nil
}
