package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// FullDisks fills a small file system of its own, its bytes or its inodes, and makes
// room again: while the store is open, or after it was closed and opened full.
func FullDisks(h Host) runner.Runner {
	return runner.Runner{
		Name:  "full disks",
		About: "a real ENOSPC, of bytes and of inodes; reads go on, writes come back",
		Ready: mountReady,
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			dir, remove, err := h.scratch()
			if err != nil {
				return nil, err
			}
			defer remove()
			f := &full{bytes: 8 << 20 << (seed % 2), reserve: -1}
			if seed%4 == 1 {
				f.inodes = 40 + int64(seed%30)
			}
			if seed%8 >= 4 {
				f.reserve = 3 << 20
			}
			if f.disk, err = newTmpfs(dir, f.bytes, f.inodes); err != nil {
				return nil, err
			}
			job := newJob(filepath.Join(f.disk.dir, "store"), seed)
			job.Large = 8 << 10
			f.ledger = newLedger(job)
			f.begin()
			err = canceled(ctx, f.run(ctx, seed%3 > 0))
			return f.counts, oracle.WithSeed(errors.Join(err, f.disk.close()), seed)
		},
	}
}

// full is one disk that fills up.
type full struct {
	*ledger
	disk    *disk
	bytes   int64
	inodes  int64
	reserve int64
}

func (f *full) options() *engine.Options {
	o := f.job.options()
	o.StallLimit, o.DiskReserve = 100*time.Millisecond, f.reserve
	return o
}

func (f *full) run(ctx context.Context, freeOpen bool) error {
	free, err := f.ballast()
	if err != nil {
		return err
	}
	e, err := engine.Open(f.job.Dir, f.options())
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	err = f.fill(e)
	if err == nil && freeOpen {
		err = f.resume(ctx, e, free)
	}
	if err = errors.Join(err, f.closed(e)); err != nil {
		return err
	}
	f.opened, f.ended = true, true
	f.dead(false)
	if !freeOpen {
		if err := errors.Join(f.openFull(), free()); err != nil {
			return err
		}
	}
	return f.examine()
}

// ballast takes a quarter of the room, to give it back later.
func (f *full) ballast() (free func() error, err error) {
	dir := filepath.Join(f.disk.dir, "ballast")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	err = os.WriteFile(filepath.Join(dir, "bytes"), make([]byte, f.bytes/4), 0o600)
	for i := range f.inodes / 4 {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600))
	}
	return func() error { return os.RemoveAll(dir) }, err
}

// fill writes until there is no room, and reads then.
func (f *full) fill(e *engine.Engine) error {
	const most = 20000
	classes, err := f.commitAll(e, most, 3)
	if err != nil {
		return fmt.Errorf("filling: %w", err)
	}
	for c, n := range classes {
		f.counts["refused: "+c] += n
	}
	if classes["disk-full"]+classes["busy"]+classes["read-only"]+classes["in-doubt"] == 0 {
		f.counts["never full"]++
	}
	if f.reserve > 0 && f.inodes == 0 && e.Err() != nil {
		return fmt.Errorf("the store has a reserve and is %w", e.Err())
	}
	return f.readable(e)
}

// resume makes room and wants the store to take writes again, unless the full disk
// has made it read-only, which it may where there is no reserve.
func (f *full) resume(ctx context.Context, e *engine.Engine, free func() error) error {
	if err := free(); err != nil {
		return err
	}
	lane := f.history.Lanes()[0]
	for end := time.Now().Add(20 * time.Second); ; {
		if err := e.Err(); err != nil {
			if _, err := judge("state", err); err != nil {
				return err
			}
			if f.reserve > 0 && f.inodes == 0 {
				return fmt.Errorf("the store has a reserve and is %w", err)
			}
			f.counts["read-only until reopened"]++
			return f.readable(e)
		}
		class, err := f.commit(e, lane)
		switch {
		case err != nil:
			return err
		case class == "":
			f.counts["acknowledged"]++
			f.counts["resumed"]++
			flush, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			if err := e.Flush(flush); err != nil {
				if _, err := judge("flush", err); err != nil {
					return err
				}
				f.counts["flushes failed after room was made"]++
			}
			return f.readable(e)
		case class == "in-doubt":
			return nil // nothing more can be known of this life
		case time.Now().After(end):
			return oracle.Broken(oracle.Stuck, "", 0, "room was made, and writes still give %s", class)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// openFull opens the store while there is no room: to read it works, to write it may
// be refused.
func (f *full) openFull() error {
	o := f.options()
	o.ReadOnly = true
	e, err := engine.Open(f.job.Dir, o)
	if err != nil {
		return fmt.Errorf("reading a full disk: open: %w", err)
	}
	_, err = f.look(e)
	if err = errors.Join(err, e.Close()); err != nil {
		return fmt.Errorf("reading a full disk: %w", err)
	}
	f.counts["full disks read"]++
	o.ReadOnly = false
	e, err = engine.Open(f.job.Dir, o)
	if err != nil {
		class, err := judge("open", err)
		f.counts["open of a full disk: "+class]++
		return err
	}
	f.counts["open of a full disk"]++
	_, err = f.look(e)
	if err == nil {
		err = f.shown(fuzz.Store{R: e})
	}
	if err == nil {
		_, err = f.commitAll(e, 5, 1)
	}
	err = errors.Join(err, f.closed(e))
	f.dead(false)
	return err
}

// Limits runs children that may open few files, or only write short ones: from limits
// under which nothing works up to where everything does.
func Limits(h Host) runner.Runner {
	return runner.Runner{
		Name:  "process limits",
		About: "few descriptors, short files: typed errors or it works, nothing lost",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			dir, remove, err := h.scratch()
			if err != nil {
				return nil, err
			}
			defer remove()
			job := newJob(filepath.Join(dir, "store"), seed)
			job.Batches = 30
			l := newLedger(job)
			err = canceled(ctx, limitAgain(ctx, &h, l, seed))
			return l.counts, oracle.WithSeed(err, seed)
		},
	}
}

func limitAgain(ctx context.Context, h *Host, l *ledger, seed uint64) error {
	for _, limits := range [][2]uint64{
		{0, 0}, // something to open
		{8 + seed*3%48, 0},
		{0, 1 << (9 + seed%13)},
		{9 + seed*7%48, 0},
	} {
		if seed%5 == 0 && limits == [2]uint64{} {
			continue // the store is made under limits
		}
		l.begin()
		l.job.Files, l.job.FileBytes = limits[0], limits[1]
		e, err := l.live(ctx, h.command(ctx, &l.job), aim{}, nil)
		if err == nil {
			err = e.peaceful(l)
		}
		if err != nil {
			return fmt.Errorf("at most %d descriptors, %d bytes: %w", limits[0], limits[1], err)
		}
		l.counts["limited lives"]++
		switch {
		case len(l.fails) == 0:
			l.counts["that worked"]++
		case l.opened:
			l.counts["that failed later"]++
		default:
			l.counts["that did not open"]++
		}
		l.dead(false)
		if err := l.examine(); err != nil {
			return fmt.Errorf("after at most %d descriptors, %d bytes: %w", limits[0], limits[1], err)
		}
	}
	return nil
}
