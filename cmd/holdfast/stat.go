package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

func newStat(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stat [KEY]",
		Short: "Describe the store, or one key",
		Long: `Without KEY, describes the store: what opening it found, what its rooms hold, and
what each tier of the open store answered, evicted and rejected, and in what time. The
command is alone with a store that it has just opened, so there is little to tell of
reads; a service has the same from Engine.Metrics.
With KEY, describes the value: its size, what it takes where it is kept, its
revision, which tier answered, and for a large one its codec, its frames, and the pack
it lies in.`,
		Example: `  holdfast stat -d ./state
  holdfast stat -d ./state user/42 --json`,
		Args: between(0, 1, "at most one KEY"),
	}
	keys, how := keyFlag(cmd), a.readFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return a.withStore(cmd, how(), func(e *engine.Engine) error { return a.statStore(cmd, e) })
		}
		key, err := keys.parseOne(cmd, args[0])
		if err != nil {
			return err
		}
		return a.withStore(cmd, how(), func(e *engine.Engine) error { return a.statKey(e, key) })
	}
	return cmd
}

func (a *app) statKey(e *engine.Engine, key []byte) error {
	i, err := e.Stat(key)
	if err != nil {
		return ofKey(key, err)
	}
	if a.json {
		return a.printJSON(struct {
			keyJSON
			Stored int64  `json:"stored"`
			Expiry int64  `json:"expiry,omitempty"`
			Tier   string `json:"tier"`
			Codec  string `json:"codec"`
			Frames int    `json:"frames,omitempty"`
			Pack   uint64 `json:"pack,omitempty"`
			Offset int64  `json:"offset,omitempty"`
		}{newKeyJSON(key, i.Size, i.Revision), i.Stored, i.Expiry, i.Tier.String(), i.Codec, i.Frames, i.Pack, i.Offset})
	}
	t := newTable()
	t.row("key", escape(key))
	t.row("size", sized(i.Size))
	t.row("stored", sized(i.Stored))
	t.row("revision", i.Revision)
	if i.Expiry != 0 {
		t.row("expires", time.UnixMilli(i.Expiry).UTC().Format(time.RFC3339Nano))
	}
	t.row("tier", i.Tier)
	t.row("codec", i.Codec)
	if i.Pack != 0 {
		t.row("frames", i.Frames)
		t.row("pack", fmt.Sprintf("%d, at offset %d", i.Pack, i.Offset))
	}
	return a.printf("%s", t)
}

// because is a reason in brackets, if there is one.
func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// sized is a number of bytes, also in a unit that people read.
func sized(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%d B (%s)", n, humanize.IBytes(uint64(n)))
}

func (a *app) statStore(cmd *cobra.Command, e *engine.Engine) error {
	dir, err := a.storeDir(cmd)
	if err != nil {
		return err
	}
	disk, err := diskBytes(dir)
	if err != nil {
		return err
	}
	m, found := e.Metrics(), e.Recovered()
	if a.json {
		return a.printJSON(struct {
			Dir       string          `json:"dir"`
			DiskBytes int64           `json:"disk_bytes"`
			Recovered engine.Recovery `json:"recovered"`
			Metrics   engine.Metrics  `json:"metrics"`
		}{dir, disk, found, m})
	}
	t := newTable()
	t.row("store", dir)
	t.row("disk", sized(disk))
	t.row("lsn", m.LSN)
	t.row("watermark", fmt.Sprintf("%d (L3 has everything at or below it)", found.Watermark))
	state := "closed"
	if !found.Clean {
		state = "not closed: killed, or crashed"
	}
	t.row("was", state)
	t.row("replayed", fmt.Sprintf("%s from %s in %v", count(int(found.Batches), "batch"),
		count(found.Segments, "segment"), found.Took.Round(time.Microsecond)))
	if found.CutBytes > 0 {
		t.row("torn tail", fmt.Sprintf("%s of %s, cut at offset %d", sized(found.CutBytes), found.CutFile, found.CutOffset))
	}
	for _, lost := range found.Lost {
		t.row("lost", lost)
	}
	c := m.Collect
	t.row("large values", fmt.Sprintf("%s in %s, packs of %s", count(c.Keys, "value"), humanize.IBytes(uint64(c.Live)), humanize.IBytes(uint64(c.Disk))))
	t.row("map", fmt.Sprintf("%s, %s in %s (%s)", count(m.Map.Keys, "key"), humanize.IBytes(uint64(m.Map.Bytes)), count(m.Map.Shards, "shard"), m.Map.ShardsWhy))
	t.row("shares", fmt.Sprintf("%s for a generation, %s for L1, %s for L2, %s mapped of %s%s", humanize.IBytes(uint64(m.Memory.GenerationLimit)),
		humanize.IBytes(uint64(m.Memory.L1Limit)), humanize.IBytes(uint64(m.Memory.L2Limit)), humanize.IBytes(uint64(m.Memory.MappedLimit)),
		humanize.IBytes(uint64(m.Memory.Budget)), because(m.Memory.Why)))
	t.row("background", fmt.Sprintf("works %.0f %% of its time%s", 100*m.Background.Share, because(m.Background.Why)))
	t.row("L3", fmt.Sprintf("%s live, %s on disk", humanize.IBytes(m.Storage.LiveBytes), humanize.IBytes(m.Storage.DiskBytes)))
	for i, l := range m.Storage.Levels {
		if l.Tables > 0 {
			t.row(fmt.Sprintf("  level %d", i), fmt.Sprintf("%s, %s", count(int(l.Tables), "table"), humanize.IBytes(uint64(l.Bytes))))
		}
	}
	for _, room := range []string{"log", "packs"} {
		n, files, err := roomBytes(filepath.Join(dir, room))
		if err != nil {
			return err
		}
		t.row(room, fmt.Sprintf("%s, %s on disk", count(files, "file"), humanize.IBytes(uint64(n))))
	}
	t.row("process", describeRuntime(&m.Runtime))
	times := newLatencyGrid("time of")
	for _, l := range []struct {
		what string
		is   engine.LatencyMetrics
	}{
		{"read from map", m.Latency.Map}, {"read from L1", m.Latency.L1}, {"read from L2", m.Latency.L2},
		{"read from L3", m.Latency.L3}, {"read of nothing", m.Latency.Absent}, {"commit", m.Latency.Commit},
	} {
		times.addLatency(l.what, latencyOf(l.is))
	}
	return a.printf("%s\n%s\n%s", t, tierGrid(reportTiers(&engine.Metrics{}, &m, 0)), times)
}

// roomBytes adds up the files below dir, which may not be there.
func roomBytes(dir string) (bytes int64, files int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		files++
		bytes += allocated(info)
		return nil
	})
	return bytes, files, err
}

func diskBytes(dir string) (int64, error) {
	n, _, err := roomBytes(dir)
	return n, err
}

// table lines up names and what belongs to them.
type table struct {
	text strings.Builder
	tabs *tabwriter.Writer
}

func newTable() *table {
	t := new(table)
	t.tabs = tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', 0)
	return t
}

func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.tabs, "\t")
		}
		fmt.Fprint(t.tabs, c)
	}
	fmt.Fprintln(t.tabs)
}

func (t *table) String() string {
	_ = t.tabs.Flush() // into a Builder, which takes everything
	return t.text.String()
}
