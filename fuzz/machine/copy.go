package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// copiesPerCase is how often a case copies its store.
const copiesPerCase = 6

// Copies copies the directory of a store while it is written, one file after the other
// and with no help of the store, as cp -r and rsync do. That is no checkpoint: its files
// are of many moments. What such a copy may never do is to be believed and wrong (F-53).
func Copies(h Host) runner.Runner {
	return runner.Runner{
		Name:  "copies of an open store",
		About: "a plain copy made beside writers is refused, or is some prefix of the commits",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			dir, remove, err := h.memory()
			if err != nil {
				return nil, err
			}
			defer remove()
			l := newLedger(newJob(filepath.Join(dir, "store"), seed))
			l.begin()
			err = copyAgain(ctx, l, filepath.Join(dir, "copy"), rand.New(rand.NewPCG(seed, 0x636f7079)))
			return l.counts, oracle.WithSeed(err, seed)
		},
	}
}

func copyAgain(ctx context.Context, l *ledger, dst string, rnd *rand.Rand) error {
	e, err := engine.Open(l.job.Dir, l.job.options())
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	for round := 0; round < copiesPerCase && err == nil && ctx.Err() == nil; round++ {
		var least []int
		if least, err = l.copyBeside(e, dst, rnd); err == nil {
			err = l.judgeCopy(dst, oracle.Promise{Least: least, Most: l.history.Promised(nil).Most})
		}
		if err != nil {
			err = fmt.Errorf("copy %d: %w", round, err)
		}
		err = errors.Join(err, os.RemoveAll(dst))
	}
	// The original never notices.
	if err == nil {
		err = l.readable(e)
	}
	if err = errors.Join(err, l.closed(e)); err != nil {
		return err
	}
	l.opened, l.ended = true, true
	l.dead(false)
	return l.examine()
}

// copyBeside copies while every lane commits, and flushes go on. What was in the files
// before it began must be in a copy that opens, unless the tool complained: least says how
// many commits of each lane.
func (l *ledger) copyBeside(e *engine.Engine, dst string, rnd *rand.Rand) (least []int, err error) {
	// Only SyncNever acknowledges what is in no file yet.
	durable := e.DurableLSN()
	least = l.history.Promised(func(lsn uint64) bool { return l.job.Sync != engine.SyncNever || lsn <= durable }).Least
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c := &copier{rnd: rnd, piece: 512 << rnd.IntN(10), pause: time.Duration(rnd.IntN(4)) * time.Millisecond}
	errs := make([]error, l.job.Lanes+1)
	acked := make([]int64, l.job.Lanes)
	var wg sync.WaitGroup
	for i, lane := range l.history.Lanes() {
		wg.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				var class string
				switch class, errs[i] = l.commit(e, lane); class {
				case "":
					acked[i]++
				case "busy":
				default:
					errs[i] = errors.Join(errs[i], fmt.Errorf("beside a copy a commit is %s", class))
				}
			}
		})
	}
	if l.job.FlushEvery > 0 {
		wg.Go(func() {
			for ctx.Err() == nil && errs[l.job.Lanes] == nil {
				if err := e.Flush(ctx); !errors.Is(err, context.Canceled) {
					errs[l.job.Lanes] = err
				}
				select {
				case <-time.After(time.Duration(l.job.FlushEvery) * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	err = c.tree(l.job.Dir, dst)
	stop()
	wg.Wait()
	for _, n := range acked {
		l.counts["acknowledged"] += n
	}
	l.counts["copies"]++
	if c.missed > 0 {
		l.counts["copies that missed files"]++
		clear(least)
	}
	return least, errors.Join(append(errs, err)...)
}

// copier copies as a tool does that knows nothing of the store.
type copier struct {
	rnd    *rand.Rand
	piece  int           // bytes of one read
	pause  time.Duration // at most, between two files
	missed int           // files and folders that were gone since they were listed
}

func (c *copier) tree(src, dst string) error {
	entries, err := os.ReadDir(src)
	if errors.Is(err, os.ErrNotExist) {
		c.missed++ // a tool complains, and goes on
		return nil
	}
	if err == nil {
		err = os.MkdirAll(dst, 0o755)
	}
	if err != nil {
		return err
	}
	switch c.rnd.IntN(3) {
	case 0: // by name, as rsync
	case 1:
		slices.Reverse(entries)
	case 2: // as the directory has them, as cp
		c.rnd.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	}
	for _, entry := range entries {
		from, to := filepath.Join(src, entry.Name()), filepath.Join(dst, entry.Name())
		if entry.IsDir() {
			err = c.tree(from, to)
		} else {
			err = c.file(from, to)
		}
		if err != nil {
			return err
		}
		if c.pause > 0 {
			time.Sleep(time.Duration(c.rnd.Int64N(int64(c.pause))))
		}
	}
	return nil
}

func (c *copier) file(src, dst string) error {
	in, err := os.Open(src)
	if errors.Is(err, os.ErrNotExist) {
		c.missed++
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	// Behind an interface that has no ReadFrom, or the kernel would copy all at once.
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, c.piece))
	return errors.Join(err, out.Close())
}

// judgeCopy opens a copy. It is refused with an error that says why, or it is the state
// after a prefix of the commits (O2), the same at the second look (O5), where nothing but
// a typed error may stand for a value (O6).
func (l *ledger) judgeCopy(dst string, p oracle.Promise) error {
	o := l.job.options()
	e, err := engine.Open(dst, o)
	if err != nil {
		if !errors.Is(err, engine.ErrCorrupt) && !errors.Is(err, engine.ErrForeign) {
			return fmt.Errorf("a copy is refused with an error of a wrong type: %w", err)
		}
		l.counts["refused"]++
		return nil
	}
	first, err := l.prefix(e, p)
	if err = errors.Join(err, e.Close()); err != nil || first == "" {
		return err
	}
	o.ReadOnly = l.counts["copies"]%2 == 0
	if e, err = engine.Open(dst, o); err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	second, err := l.prefix(e, p)
	if err == nil && second != "" && first != second {
		err = oracle.Broken(oracle.Unstable, "", 0, "first it is at commits %s, then at %s", first, second)
	}
	return errors.Join(err, e.Close())
}

// prefix checks that a copy shows so many whole commits of each lane and all of them, and
// says how many.
func (l *ledger) prefix(e *engine.Engine, p oracle.Promise) (string, error) {
	s := fuzz.Store{R: e}
	err := l.history.Check(s, p, e.Recovered().LSN)
	if err != nil && !errors.Is(err, oracle.ErrUnreadable) {
		return "", err
	}
	found := make([]int, l.job.Lanes)
	whole := oracle.NewModel()
	for i, lane := range l.history.Lanes() {
		var nerr error
		if found[i], nerr = lane.Survived(s); errors.Is(nerr, engine.ErrCorrupt) {
			l.counts["copies that cannot say where they are"]++
			return "", nil
		} else if nerr != nil {
			return "", nerr
		}
		if found[i] < p.Least[i] {
			return "", oracle.Broken(oracle.Lost, lane.Counter(), 0, "a copy has %d commits, %d were in the files", found[i], p.Least[i])
		}
		lane.After(found[i]).Scan(func(k, v string) bool { whole.Put(k, v); return true })
	}
	if err == nil {
		l.counts["prefixes"]++
		return fmt.Sprint(found), nil
	}
	// A table or a pack that still grew ends early in the copy.
	d := oracle.Damage{Known: []error{engine.ErrCorrupt}}
	if err := d.Read(s, whole); err != nil {
		return "", err
	}
	for _, lane := range l.history.Lanes() {
		for i := range keysPerLane {
			if k := lane.Key(laneKey(i)); !has(whole, k) {
				if err := d.Absent(s, k); err != nil {
					return "", err
				}
			}
		}
	}
	l.counts["prefixes with values that are reported as damaged"]++
	return fmt.Sprint(found), nil
}

func has(m oracle.Model, key string) bool { _, ok := m.Get(key); return ok }
