package main

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// screen is where the demo says how it goes: over one line on a terminal, line by
// line elsewhere, and nowhere with --json.
type screen struct {
	app  *app
	live bool
}

func newScreen(a *app) *screen { return &screen{app: a, live: isTerminal(a.out)} }

// line stays.
func (s *screen) line(format string, args ...any) {
	if !s.app.json {
		s.clear()
		_ = s.app.printf(format+"\n", args...) // the report's own print will complain
	}
}

// status gives way to the next one on a terminal.
func (s *screen) status(format string, args ...any) {
	switch {
	case s.app.json:
	case s.live:
		s.clear()
		_ = s.app.printf(format, args...)
	case format != "":
		s.line(format, args...)
	}
}

func (s *screen) clear() {
	if s.live {
		_ = s.app.printf("\r\x1b[K")
	}
}

// demoReport is what the demo found. Its JSON is what --json prints.
type demoReport struct {
	Source      string        `json:"source"`
	SourceFiles int           `json:"source_files"`
	SourceBytes int64         `json:"source_bytes"`
	Seed        uint64        `json:"seed"`
	Kills       int           `json:"kills"`
	ChurnKills  int           `json:"churn_kills"`          // of Kills, when the import was complete
	Acked       int           `json:"acknowledged_batches"` // reported before a kill
	Lost        int           `json:"lost"`
	Partial     int           `json:"partial"`
	Wrong       int           `json:"wrong"`
	Proved      int64         `json:"proved_keys"` // over all kills
	ProvedBytes int64         `json:"proved_bytes"`
	InFlight    int           `json:"in_flight"`  // batches whose report a kill cut off, and that survived
	Torn        int           `json:"torn_tails"` // kills that left one
	SlowestOpen time.Duration `json:"slowest_open_ns"`
	Keys        int           `json:"keys"` // at the end
	Bytes       int64         `json:"bytes"`
	Read        readReport    `json:"read"`
	Budget      int64         `json:"memory_budget"`
	Memory      residency     `json:"memory"`
	DiskBytes   int64         `json:"disk_bytes"`
	Seconds     float64       `json:"seconds"`
}

func (r *demoReport) add(acks int, l *look) {
	r.Kills++
	r.Acked += acks
	r.Lost += l.Lost
	r.Partial += l.Partial
	r.Wrong += l.Wrong
	r.Proved += int64(l.Keys)
	r.ProvedBytes += l.Bytes
	r.SlowestOpen = max(r.SlowestOpen, l.open)
	r.InFlight += l.InFlight
	if l.cut > 0 {
		r.Torn++
	}
}

func (r *demoReport) print(a *app) error {
	if a.json {
		return a.printJSON(r)
	}
	t := newTable()
	t.row("kills", fmt.Sprintf("%d with SIGKILL, %d of them while overwriting and deleting; %s acknowledged between them; slowest reopen %v",
		r.Kills, r.ChurnKills, count(r.Acked, "batch"), r.SlowestOpen.Round(time.Millisecond)))
	t.row("lost", fmt.Sprintf("%d acknowledged batches", r.Lost))
	t.row("partial", fmt.Sprintf("%d batches (%d that were in flight are there, each as a whole)", r.Partial, r.InFlight))
	t.row("proved", fmt.Sprintf("%s values, %s, byte for byte", humanize.Comma(r.Proved), humanize.IBytes(uint64(r.ProvedBytes))))
	t.row("at the end", fmt.Sprintf("%s keys, %s", humanize.Comma(int64(r.Keys)), humanize.IBytes(uint64(r.Bytes))))
	t.row("memory", fmt.Sprintf("%s resident, %s of it not backed by files (peak %s resident); budget %s",
		humanize.IBytes(uint64(r.Memory.RSS)), humanize.IBytes(uint64(r.Memory.Anon)),
		humanize.IBytes(uint64(r.Memory.Peak)), humanize.IBytes(uint64(r.Budget))))
	t.row("disk", fmt.Sprintf("%s for %s of source files (%.2f)", humanize.IBytes(uint64(r.DiskBytes)),
		humanize.IBytes(uint64(r.SourceBytes)), float64(r.DiskBytes)/float64(max(1, r.SourceBytes))))
	t.row("time", fmt.Sprintf("%.1f s", r.Seconds))
	if err := a.printf("\n%s", t); err != nil || r.Read.Reads == 0 {
		return err
	}
	return r.Read.print(a)
}

func (r *readReport) print(a *app) error {
	rate := float64(r.Reads) / max(r.Seconds, 1e-6)
	times := newLatencyGrid("time of")
	for _, t := range r.Tiers {
		times.addLatency("finding a key in "+t.Tier, t.latencyReport)
	}
	times.addLatency("whole read, < 64 KiB", r.Small)
	times.addLatency("whole read, ≥ 64 KiB", r.Large)
	return a.printf("\n%s skewed reads (zipf %v) in %.1f s, %s/s\n\n%s\n%s",
		humanize.Comma(int64(r.Reads)), zipfS, r.Seconds, humanize.Comma(int64(rate)), tierGrid(r.Tiers), times)
}

// short is a time with three digits or so.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Microsecond:
		return d.String()
	case d < time.Millisecond:
		return d.Round(100 * time.Nanosecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
