package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"

	"github.com/holdfastdb/holdfast/engine"
)

// killer runs the child, kills it, and looks at what it left.
type killer struct {
	ctx   context.Context
	m     *model
	r     *rand.Rand
	dir   string   // the store
	plan  string   // file of the plan
	flags []string // more of the child's
	env   []string // of the child, beside ours
	opts  engine.Options
	early int // one in so many kills comes at any time, before a report too; zero: none
}

// aim is when a kill comes.
type aim struct {
	acks    int           // after so many reports; zero: counted from the start
	imports bool          // count only reports of batches of the import
	delay   time.Duration // and so long after that
}

// aimFor draws the moment of the next kill, among the writes of the child. Before the
// first report there would be little to prove, so that only a test asks for the odd
// kill while the child still starts and recovers.
func (k *killer) aimFor(acks int, imports bool) aim {
	if k.early > 0 && k.r.IntN(k.early) == 0 {
		return aim{delay: time.Duration(k.r.Int64N(int64(60 * time.Millisecond)))}
	}
	return aim{
		acks:    1 + k.r.IntN(max(1, acks)),
		imports: imports,
		delay:   time.Duration(k.r.Int64N(int64(4 * time.Millisecond))),
	}
}

// run starts the child and reads its reports. With an aim it ends by SIGKILL, and
// anything else is an error; without, it ends when the import is complete.
func (k *killer) run(at *aim) (acks int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	args := []string{childName, k.plan, "--dir", k.dir, "--memory", fmt.Sprint(k.opts.MemoryBudget)}
	if at == nil {
		args = append(args, "--import-only")
	}
	cmd := exec.CommandContext(k.ctx, self, append(args, k.flags...)...)
	cmd.Env = append(os.Environ(), k.env...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	stdin, err := cmd.StdinPipe() // the child dies when this end closes
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	reports, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	kill := func() { _ = cmd.Process.Kill() } // it may have ended by itself; Wait says so
	var timers []*time.Timer
	arm := func() { timers = append(timers, time.AfterFunc(at.delay, kill)) }
	if at != nil && at.acks == 0 {
		arm()
	}
	counted := 0
	acks, readErr := k.read(reports, func(isImport bool) {
		if isImport || at != nil && !at.imports {
			counted++
		}
		if at != nil && at.acks > 0 && counted >= at.acks && len(timers) == 0 {
			arm()
		}
	})
	if readErr != nil {
		kill()
	}
	waitErr := cmd.Wait()
	for _, t := range timers {
		t.Stop()
	}
	switch {
	case readErr != nil:
		return acks, readErr
	case k.ctx.Err() != nil:
		return acks, k.ctx.Err()
	case at == nil && waitErr == nil, at != nil && killed(cmd):
		return acks, nil
	}
	if cmd.ProcessState.ExitCode() == exitDiskFull {
		return acks, fmt.Errorf("the child: %w", engine.ErrDiskFull)
	}
	return acks, fmt.Errorf("the child ended by itself (%v): %s", waitErr, bytes.TrimSpace(complaint.Bytes()))
}

// read takes every report that reached the pipe, those of a child that is dead
// already too: they are what it acknowledged.
func (k *killer) read(reports io.Reader, acked func(isImport bool)) (acks int, err error) {
	lines := bufio.NewScanner(reports)
	for lines.Scan() {
		var l, n int
		var lsn uint64
		if _, err := fmt.Sscanf(lines.Text(), "ack %d %d %d", &l, &n, &lsn); err != nil {
			if bytes.HasPrefix(lines.Bytes(), []byte("open ")) {
				continue
			}
			return acks, fmt.Errorf("the child said %q", lines.Text())
		}
		if err := k.m.ack(l, n, lsn); err != nil {
			return acks, err
		}
		acks++
		acked(n <= len(k.m.p.lanes[l].imports))
	}
	return acks, lines.Err()
}

// look is what the parent found after a kill.
type look struct {
	verdict
	readOnly bool
	open     time.Duration
	proof    time.Duration
	cut      int64 // bytes of a torn tail
}

// examine opens the store as the kill left it and proves what it holds. Half of the
// times it opens read-only, so that the child meets its own wreck next.
func (k *killer) examine() (l look, err error) {
	o := k.opts
	l.readOnly = k.r.IntN(2) == 0
	o.ReadOnly = l.readOnly
	began := time.Now()
	e, err := engine.Open(k.dir, &o)
	if l.readOnly && errors.Is(err, os.ErrNotExist) {
		// Killed before the store was born: a reader finds nothing, which is right.
		l.readOnly, o.ReadOnly = false, false
		e, err = engine.Open(k.dir, &o)
	}
	if err != nil {
		return l, fmt.Errorf("reopen after a kill: %w", storeError(k.dir, err))
	}
	l.open = time.Since(began)
	l.cut = e.Recovered().CutBytes
	began = time.Now()
	l.verdict, err = k.m.verify(e)
	l.proof = time.Since(began)
	return l, errors.Join(err, e.Close())
}
