package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/holdfastdb/holdfast/engine"
)

// kind is a type of operation.
type kind int

const (
	opGet kind = iota
	opPut
	opDelete
	opScan
	opUpload
	opDownload
	opRange
	kinds
)

func (k kind) String() string {
	return [...]string{"get", "put", "delete", "scan", "stream in", "read whole", "read 4 KiB"}[k]
}

// tape is what the operations took, by kind: some parts that clients share, so that
// thousands of them have neither one lock nor a histogram each.
type tape struct {
	parts []tapePart
	sum   [kinds]latency // of what was taken off the parts
	bytes [kinds]int64
	busy  atomic.Int64 // operations that were refused for now
}

type tapePart struct {
	mu    sync.Mutex // guards the fields below
	took  [kinds]latency
	bytes [kinds]int64

	_ [64]byte
}

func newTape() *tape { return &tape{parts: make([]tapePart, 4*runtime.GOMAXPROCS(0))} }

func (t *tape) add(client int, k kind, took time.Duration, bytes int) {
	p := &t.parts[client%len(t.parts)]
	p.mu.Lock()
	p.took[k].add(took)
	p.bytes[k] += int64(bytes)
	p.mu.Unlock()
}

// pass counts bytes of an operation that is under way.
func (t *tape) pass(client int, k kind, bytes int) {
	p := &t.parts[client%len(t.parts)]
	p.mu.Lock()
	p.bytes[k] += int64(bytes)
	p.mu.Unlock()
}

// take moves what is in the parts to the sum, and returns what that was.
func (t *tape) take() (took [kinds]latency, bytes [kinds]int64) {
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.Lock()
		for k := range kinds {
			if p.took[k].n > 0 {
				took[k].merge(&p.took[k])
				p.took[k] = latency{}
			}
			bytes[k] += p.bytes[k]
			p.bytes[k] = 0
		}
		p.mu.Unlock()
	}
	for k := range kinds {
		t.sum[k].merge(&took[k])
		t.bytes[k] += bytes[k]
	}
	return took, bytes
}

// record counts an operation that was due at a moment. What was refused because the store
// is behind, and a scan whose snapshot gave way, are no errors here: they are counted.
func (l *load) record(client int, k kind, due time.Time, bytes int, err error) error {
	if errors.Is(err, engine.ErrBusy) || errors.Is(err, engine.ErrSnapshotTooOld) {
		l.tape.busy.Add(1)
		return nil
	}
	if err == nil {
		l.tape.add(client, k, time.Since(due), bytes)
	}
	return err
}

// live tells, every second until ended is called, what happened in it.
func (l *load) live(phase string) (ended func()) {
	l.tape.take()
	l.tape.sum, l.tape.bytes = [kinds]latency{}, [kinds]int64{}
	began := time.Now()
	t := time.NewTicker(time.Second)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		last := began
		for {
			select {
			case now := <-t.C:
				l.tell(phase, now.Sub(began), now.Sub(last))
				last = now
			case <-stop:
				l.tape.take()
				return
			}
		}
	}()
	return func() {
		t.Stop()
		close(stop)
		<-done
		l.screen.clear()
	}
}

func (l *load) tell(phase string, since, second time.Duration) {
	took, bytes := l.tape.take()
	var line strings.Builder
	fmt.Fprintf(&line, "%s %v", phase, since.Round(time.Second))
	for k := range kinds {
		switch n := took[k].n; {
		case n == 0 && bytes[k] == 0:
		case k == opUpload || k == opDownload:
			fmt.Fprintf(&line, "  %s %s/s", k, humanize.IBytes(uint64(float64(bytes[k])/second.Seconds())))
		default:
			fmt.Fprintf(&line, "  %s %s/s p99 %s", k, humanize.Comma(int64(float64(n)/second.Seconds())), short(took[k].quantile(0.99)))
		}
	}
	m := l.e.Metrics()
	l.report.Goroutines = max(l.report.Goroutines, m.Runtime.Goroutines)
	fmt.Fprintf(&line, "  %s resident, GC %.1f %%, pressure %.2f",
		humanize.IBytes(uint64(readResidency().RSS)), 100*m.Runtime.GCShare, m.Memory.Pressure)
	l.screen.status("%s", line.String())
}
