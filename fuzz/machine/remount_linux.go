package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// ReadOnlyDisks turns a file system read-only under an open store, as a kernel does
// that met an error, and opens the store on a disk mounted read-only.
func ReadOnlyDisks(h Host) runner.Runner {
	return runner.Runner{
		Name:  "read-only disks",
		About: "an ext4 that turns read-only under the store; reads go on",
		Ready: mountReady,
		Case: h.onExt4(32, func(ctx context.Context, d *disk, l *ledger, seed uint64) error {
			l.begin()
			return turnReadOnly(ctx, d, l, 10+int(seed*37%200))
		}),
	}
}

func turnReadOnly(ctx context.Context, d *disk, l *ledger, commits int) error {
	e, err := engine.Open(l.job.Dir, l.job.options())
	if err != nil {
		return err
	}
	if err := errors.Join(l.underReadOnly(ctx, d, e, commits), l.closed(e)); err != nil {
		return err
	}
	// The journal is replayed before nothing may be written any more.
	if err := errors.Join(d.unmount(), d.mount(ctx), tool(ctx, "mount", "-o", "remount,ro", d.dir)); err != nil {
		return err
	}
	if e, err = engine.Open(l.job.Dir, l.job.options()); err == nil {
		return errors.Join(errors.New("a store opens for writing on a disk that is read-only"), e.Close())
	}
	if _, err := judge("open", err); err != nil {
		return err
	}
	if !errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("open for writing on a disk that is read-only: %w", err)
	}
	o := l.job.options()
	o.ReadOnly = true
	// A store that no power cut has left a directory of may be opened by nobody.
	if e, err = engine.Open(l.job.Dir, o); err == nil {
		_, err = l.look(e)
		err = errors.Join(err, e.Close())
		l.counts["read-only disks read"]++
	} else if errors.Is(err, os.ErrNotExist) && !kept(l.kill) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("on a disk that is read-only: %w", err)
	}
	if err := errors.Join(d.unmount(), d.mount(ctx)); err != nil {
		return err
	}
	return l.examine()
}

// kept says whether anything was promised.
func kept(p oracle.Promise) bool {
	for _, n := range p.Least {
		if n > 0 {
			return true
		}
	}
	return false
}

// underReadOnly writes, lets the journal fail under the store, and wants the store to
// say so and to go on reading.
func (l *ledger) underReadOnly(ctx context.Context, d *disk, e *engine.Engine, commits int) error {
	if classes, err := l.commitAll(e, commits, 1); err != nil || len(classes) > 0 {
		return fmt.Errorf("writing: %v: %w", classes, err)
	}
	if l.job.FlushEvery > 0 {
		if err := e.Flush(ctx); err != nil {
			return err
		}
		if classes, err := l.commitAll(e, commits/2, 1); err != nil || len(classes) > 0 {
			return fmt.Errorf("writing: %v: %w", classes, err)
		}
	}
	l.durable = e.DurableLSN()
	if err := tool(ctx, "mount", "-o", "remount,abort", d.dir); err != nil {
		return err
	}
	l.counts["disks turned read-only"]++
	classes, err := l.commitAll(e, 2000, 3)
	if err != nil {
		return err
	}
	if len(classes) == 0 {
		return errors.New("the disk is read-only, and nobody minds")
	}
	var cause syscall.Errno
	if err := e.Err(); !errors.Is(err, engine.ErrReadOnly) || !errors.As(err, &cause) {
		return fmt.Errorf("the disk is read-only, and the state is %v", err)
	}
	if err := l.readable(e); err != nil {
		return err
	}
	// Everything is written, and nothing more goes to the disk: this life ends as by
	// a power cut.
	l.opened = true
	l.dead(true)
	return nil
}
