package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

const childName = "demo-child"

// newDemoChild is the process that the demo kills: it writes the plan's batches
// and reports each one after Apply has returned.
func newDemoChild(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: childName + " PLAN", Hidden: true, Args: between(1, 1, "PLAN")}
	importOnly := cmd.Flags().Bool("import-only", false, "stop when every file is imported")
	flushEvery := cmd.Flags().Int("flush-every", 0, "flush after so many batches of the first lane")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		go dieWithParent(a.in)
		p, err := loadPlan(args[0])
		if err != nil {
			return err
		}
		return a.withStore(cmd, creates, func(e *engine.Engine) error {
			c := child{p: p, e: e, out: a.out, importOnly: *importOnly, flushEvery: *flushEvery}
			return c.run(cmd)
		})
	}
	return cmd
}

// dieWithParent ends this process when its standard input does: nobody would read
// the acknowledgements any more.
func dieWithParent(in io.Reader) {
	_, _ = io.Copy(io.Discard, in)
	os.Exit(exitError)
}

type child struct {
	p          *plan
	e          *engine.Engine
	importOnly bool
	flushEvery int

	mu  sync.Mutex // guards out
	out io.Writer
}

// say writes one line in one write, so that a kill leaves it out or leaves it
// whole.
func (c *child) say(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.out.Write(fmt.Appendf(nil, format+"\n", args...))
	return err
}

func (c *child) run(cmd *cobra.Command) error {
	if err := c.say("open %d", c.e.Recovered().LSN); err != nil {
		return err
	}
	errs := make([]error, len(c.p.lanes)+1)
	flush := make(chan struct{}, 1)
	var lanes, flusher sync.WaitGroup
	flusher.Go(func() {
		for range flush {
			errs[len(c.p.lanes)] = errors.Join(errs[len(c.p.lanes)], c.e.Flush(cmd.Context()))
		}
	})
	for l := range c.p.lanes {
		lanes.Go(func() { errs[l] = c.lane(l, flush) })
	}
	lanes.Wait()
	close(flush)
	flusher.Wait()
	return errors.Join(errs...)
}

// lane writes batch after batch, from where the store says the lane is.
func (c *child) lane(l int, flush chan<- struct{}) error {
	last, err := lastBatch(c.e, l)
	if err != nil {
		return err
	}
	b := c.e.NewBatch()
	defer b.Close()
	for n := last + 1; !c.importOnly || n <= len(c.p.lanes[l].imports); n++ {
		b.Reset()
		if err := c.p.fill(b, l, n); err != nil {
			return err
		}
		lsn, err := c.e.Apply(b)
		if err != nil {
			return err
		}
		// Order: Apply, then report. The parent holds us to every line it reads.
		if err := c.say("ack %d %d %d", l, n, lsn); err != nil {
			return err
		}
		if l == 0 && c.flushEvery > 0 && n%c.flushEvery == 0 {
			select {
			case flush <- struct{}{}:
			default: // one is running: writes go on beside it
			}
		}
	}
	return nil
}

// fill puts batch n of a lane, and its marker, into b.
func (p *plan) fill(b *engine.Batch, l, n int) error {
	steps := p.steps(l, n)
	for _, s := range steps {
		var err error
		switch s.kind {
		case stepDelete:
			err = b.Delete(p.key(s.file))
		case stepDeleteRange:
			err = b.DeleteRange(p.key(s.file), p.after(s.upto-1))
		default:
			var value []byte
			if value, err = p.content(s, l, n); err == nil {
				err = b.Put(p.key(s.file), value)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Files[s.file].Path, err)
		}
	}
	return b.Put(p.marker(l, n, steps))
}

// lastBatch is the number of the last batch of a lane that the store holds.
func lastBatch(e *engine.Engine, l int) (int, error) {
	r := engine.Prefix(lanePrefix(l))
	r.Reverse = true
	for item, err := range scanResumed(e, r) {
		if err != nil {
			return 0, err
		}
		return markerNumber(item.Key())
	}
	return 0, nil
}
