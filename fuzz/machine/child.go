package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// child is a process that writes to a store and reports to its parent.
type child struct {
	job   Job
	e     *engine.Engine
	lanes []*oracle.Lane // for their names alone
	stop  chan struct{}  // closed by the first lane that cannot go on

	mu    sync.Mutex // guards out and hoard
	out   io.Writer
	hoard [][]byte
}

// Child does what the job says and reports on out, line by line. Errors that the
// store may give are reports, too; what Child returns is a broken promise, or a
// parent that does not listen. The process ends when in does: nobody would hear.
func Child(job Job, in io.Reader, out io.Writer) error {
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(1)
	}()
	c := &child{job: job, lanes: oracle.NewHistory(job.Lanes).Lanes(), stop: make(chan struct{}), out: out}
	if err := limit(&job); err != nil {
		return err
	}
	e, err := engine.Open(job.Dir, job.options())
	if err != nil {
		return errors.Join(c.fail("open", err), c.say("end"))
	}
	c.e = e
	err = c.work()
	if cerr := e.Close(); cerr != nil {
		err = errors.Join(err, c.fail("close", cerr))
	}
	return errors.Join(err, c.say("end"))
}

// say writes one line in one write (M2).
func (c *child) say(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.out.Write(fmt.Appendf(nil, format+"\n", args...))
	return err
}

// keep eats up memory, page by page.
func (c *child) keep() {
	b := make([]byte, c.job.Hoard)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hoard = append(c.hoard, b)
}

// fail reports an error of the store.
func (c *child) fail(where string, err error) error {
	return c.say("fail %s %s %q", where, classOf(err), err.Error())
}

func (c *child) work() error {
	found := make([]string, len(c.lanes))
	next := make([]int, len(c.lanes))
	for i, l := range c.lanes {
		n, err := counter(c.e, l)
		if err != nil {
			return c.fail("get", err)
		}
		found[i], next[i] = strconv.Itoa(n), n+1
	}
	if err := c.say("open %d %s", c.e.Recovered().LSN, strings.Join(found, " ")); err != nil {
		return err
	}
	if c.job.ReadOnly {
		return c.read()
	}
	// Whatever stops one lane ends the others, and the flusher, so that a failure
	// that lasts does not last as long as the job.
	errs := make([]error, len(c.lanes)+1)
	flush := make(chan struct{}, 1)
	var lanes, flusher sync.WaitGroup
	flusher.Go(func() { errs[len(c.lanes)] = c.flush(flush) })
	var once sync.Once
	for i, l := range c.lanes {
		lanes.Go(func() {
			if errs[i] = c.write(l, next[i], flush); errs[i] != nil {
				once.Do(func() { close(c.stop) })
			}
		})
	}
	lanes.Wait()
	close(flush)
	flusher.Wait()
	return errors.Join(errs...)
}

// counter is how many commits of the lane the store has.
func counter(e *engine.Engine, l *oracle.Lane) (int, error) {
	v, found, err := fuzz.Store{R: e}.Get(l.Counter())
	if err != nil || !found {
		return 0, err
	}
	return strconv.Atoi(string(v))
}

// write commits from commit n on.
func (c *child) write(l *oracle.Lane, n int, flush chan<- struct{}) error {
	b := c.e.NewBatch()
	defer b.Close()
	for made := 0; c.job.Batches == 0 || made < c.job.Batches; made++ {
		select {
		case <-c.stop:
			return nil
		default:
		}
		b.Reset()
		if err := fill(b, c.job.batch(l, n)); err != nil {
			return errors.Join(c.fail("put", err), c.after(l, n, err))
		}
		if err := c.say("begin %d %d", l.ID, n); err != nil {
			return err
		}
		lsn, err := c.e.Apply(b)
		if err != nil {
			word := "doubt"
			if unmade(classOf(err)) {
				word = "refused"
			}
			return errors.Join(c.say("%s %d %d", word, l.ID, n), c.fail("apply", err), c.after(l, n, err))
		}
		// Order: Apply, then report. The parent holds the store to every line.
		if err := c.say("ack %d %d %d", l.ID, n, lsn); err != nil {
			return err
		}
		c.keep()
		if n%10 == 0 {
			if err := c.say("durable %d", c.e.DurableLSN()); err != nil {
				return err
			}
		}
		if l.ID == 0 && c.job.FlushEvery > 0 && n%c.job.FlushEvery == 0 {
			select {
			case flush <- struct{}{}:
			default: // one is running
			}
		}
		n++
	}
	return nil
}

// after checks what must be true after a failed write: a log in doubt takes nothing
// more, the store says why, and reads go on.
func (c *child) after(l *oracle.Lane, n int, cause error) error {
	if errors.Is(cause, engine.ErrInDoubt) || errors.Is(cause, engine.ErrReadOnly) {
		if err := c.e.Put([]byte(l.Counter()), []byte("after")); !errors.Is(err, engine.ErrReadOnly) {
			return fmt.Errorf("after %q a put gives %v", cause, err)
		}
		if err := c.e.Err(); !errors.Is(err, engine.ErrReadOnly) {
			return fmt.Errorf("after %q the state is %v", cause, err)
		}
	}
	got, err := counter(c.e, l)
	if err != nil { // the disk may be gone, and the map may not have it any more
		return c.fail("get", err)
	}
	if got != n-1 {
		return fmt.Errorf("after %q commit %d is visible and commit %d was the last", cause, got, n-1)
	}
	return nil
}

// flush flushes whenever it is asked to. What fails is not asked for again.
func (c *child) flush(asked <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	failed := false
	for range asked {
		if failed {
			continue
		}
		if err := c.e.Flush(ctx); err != nil {
			failed = true
			if err := c.fail("flush", err); err != nil {
				return err
			}
			continue
		}
		if err := c.say("durable %d", c.e.DurableLSN()); err != nil {
			return err
		}
	}
	return nil
}

// read reads everything in both ways.
func (c *child) read() error {
	keys := 0
	for item, err := range c.e.Scan(engine.Range{}) {
		if err == nil {
			_, err = item.Value()
		}
		if err != nil {
			return c.fail("scan", err)
		}
		if err := c.e.View(item.Key(), func([]byte) error { return nil }); err != nil {
			return c.fail("get", err)
		}
		keys++
	}
	if err := c.e.Check(context.Background()); err != nil {
		return c.fail("check", err)
	}
	return c.say("keys %d", keys)
}
