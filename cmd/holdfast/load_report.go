package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/holdfastdb/holdfast/engine"
)

// loadReport is what a run did. Its JSON is what --json prints.
type loadReport struct {
	Scenario   string        `json:"scenario"`
	Seed       uint64        `json:"seed"`
	Clients    int           `json:"clients"`
	Asked      int           `json:"asked_per_second,omitempty"` // zero: as fast as it goes
	Rate       float64       `json:"per_second"`
	Seconds    float64       `json:"seconds"`
	Operations []loadOp      `json:"operations"`
	Busy       int64         `json:"refused"`
	Stalled    time.Duration `json:"stalled_ns"` // writers together, for room
	Tiers      []tierReport  `json:"tiers"`
	Budget     int64         `json:"memory_budget"`
	Memory     residency     `json:"memory"`
	GCShare    float64       `json:"gc_share"`
	Goroutines uint64        `json:"goroutines"` // at most, of one look a second
	LockWait   time.Duration `json:"lock_wait_ns"`
	Disk       diskTraffic   `json:"disk"` // of the process
}

type loadOp struct {
	Kind      string  `json:"kind"`
	Count     uint64  `json:"count"`
	PerSecond float64 `json:"per_second"`
	Bytes     int64   `json:"bytes"`
	latencyReport
}

// moment is what the counters say.
type moment struct {
	at      time.Time
	metrics engine.Metrics
	disk    diskTraffic
}

func (l *load) look() moment { return moment{time.Now(), l.e.Metrics(), readTraffic()} }

func (r *loadReport) finish(l *load, before, after moment) {
	*r = loadReport{
		Scenario: l.scenario.name, Seed: l.seed, Clients: l.clients, Asked: l.rate, Seconds: after.at.Sub(before.at).Seconds(),
		Busy: l.tape.busy.Load(), Stalled: after.metrics.Stall.Total - before.metrics.Stall.Total,
		Budget: after.metrics.Memory.Budget, Memory: readResidency(), GCShare: after.metrics.Runtime.GCShare,
		Goroutines: max(r.Goroutines, after.metrics.Runtime.Goroutines), LockWait: after.metrics.Runtime.LockWait - before.metrics.Runtime.LockWait,
		Disk: after.disk.since(before.disk),
	}
	var reads uint64
	for k := range kinds {
		n := l.tape.sum[k].n
		if n == 0 && l.tape.bytes[k] == 0 {
			continue
		}
		if k == opGet {
			reads = n
		}
		r.Operations = append(r.Operations, loadOp{k.String(), n, float64(n) / r.Seconds, l.tape.bytes[k], l.tape.sum[k].report()})
		r.Rate += float64(n) / r.Seconds
	}
	r.Tiers = reportTiers(&before.metrics, &after.metrics, reads)
}

func (r *loadReport) print(a *app) error {
	if a.json {
		return a.printJSON(r)
	}
	ops := &grid{head: []string{"operation", "count", "per second", "bytes", "bytes/s", "p50", "p95", "p99", "p999"}, left: 1}
	for _, o := range r.Operations {
		ops.add(o.Kind, humanize.Comma(int64(o.Count)), rate(o.PerSecond), humanize.IBytes(uint64(o.Bytes)),
			humanize.IBytes(uint64(float64(o.Bytes)/r.Seconds)), short(o.P50), short(o.P95), short(o.P99), short(o.P999))
	}
	t := newTable()
	asked := ""
	if r.Asked > 0 {
		asked = fmt.Sprintf(" of %s that were asked for", humanize.Comma(int64(r.Asked)))
	}
	t.row("rate", fmt.Sprintf("%s operations/s%s, for %.1f s", rate(r.Rate), asked, r.Seconds))
	t.row("held up", fmt.Sprintf("%s refused for now; writers waited %v for room, all together", count(int(r.Busy), "operation"), r.Stalled.Round(time.Millisecond)))
	t.row("memory", fmt.Sprintf("%s resident (peak %s); budget %s", humanize.IBytes(uint64(r.Memory.RSS)),
		humanize.IBytes(uint64(r.Memory.Peak)), humanize.IBytes(uint64(r.Budget))))
	t.row("runtime", fmt.Sprintf("%.1f %% of CPU in the collector, %s, %v of waiting for locks", 100*r.GCShare,
		count(int(r.Goroutines), "goroutine"), r.LockWait.Round(time.Microsecond)))
	t.row("disk", fmt.Sprintf("%s read, %s of it from a device; %s written", humanize.IBytes(uint64(r.Disk.Read)),
		humanize.IBytes(uint64(r.Disk.FromDevice)), humanize.IBytes(uint64(r.Disk.Written))))
	return errors.Join(a.printf("\n%s\n%s\n%s", ops, tierGrid(r.Tiers), t))
}

// rate is a number of operations a second: of few the fractions, too.
func rate(perSecond float64) string {
	if perSecond < 100 {
		return strconv.FormatFloat(perSecond, 'g', 3, 64)
	}
	return humanize.Comma(int64(perSecond))
}
