package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// Host is what the runners need to know of where they run.
type Host struct {
	// Path, Args and Env start a process that calls [Child] with the job in its last
	// argument. Env is added to this process's.
	Path string
	Args []string
	Env  []string
	// Scratch is the directory for stores and images. Empty is the system's own for
	// what is temporary.
	Scratch string
}

// command of a child, behind the words of a wrapper.
func (h *Host) command(ctx context.Context, job *Job, wrapper ...string) *exec.Cmd {
	words := append(append(append(wrapper[:len(wrapper):len(wrapper)], h.Path), h.Args...), job.encode())
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(os.Environ(), h.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a wrapper dies with its child
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// scratch makes a directory for one case.
func (h *Host) scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(h.Scratch, "holdfast-machine-")
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

// aim is when something happens to a child.
type aim struct {
	acks  int           // after so many acknowledgements; zero: counted from the start
	delay time.Duration // and so long after that
}

func (a aim) String() string { return fmt.Sprintf("%v after %d acknowledgements", a.delay, a.acks) }

// anyMoment aims at a start and its recovery, or among the writes.
func anyMoment(rnd *rand.Rand, early bool) aim {
	if early && rnd.IntN(2) == 0 || rnd.IntN(5) == 0 {
		return aim{delay: time.Duration(rnd.Int64N(int64(40 * time.Millisecond)))}
	}
	return aim{acks: 1 + rnd.IntN(80), delay: time.Duration(rnd.Int64N(int64(3 * time.Millisecond)))}
}

// end is how a life ended.
type end struct {
	acted    bool // the event came
	signal   syscall.Signal
	code     int
	said     string // on standard error
	canceled bool
}

// patience is how long a life may last, and how long it may go on after an event
// that should end it.
const patience = 30 * time.Second

// live runs a child until it ends, and takes its reports, those that it had written
// before it was killed, too. act comes once, at its aim; nil: never.
func (l *ledger) live(ctx context.Context, cmd *exec.Cmd, at aim, act func(kill func())) (end, error) {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	in, err := cmd.StdinPipe() // the child dies when this end closes
	if err != nil {
		return end{}, err
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return end{}, err
	}
	if err := cmd.Start(); err != nil {
		return end{}, err
	}
	kill := func() { _ = cmd.Cancel() } // it may have ended by itself: Wait says so
	var stuck, acted bool
	var mu sync.Mutex // guards what timers set
	bound := time.AfterFunc(patience, func() {
		mu.Lock()
		stuck = true
		mu.Unlock()
		kill()
	})
	defer bound.Stop()
	var event *time.Timer
	arm := func() {
		if act == nil || event != nil {
			return
		}
		event = time.AfterFunc(at.delay, func() {
			mu.Lock()
			defer mu.Unlock()
			acted = true
			act(kill)
		})
	}
	if at.acks == 0 {
		arm()
	}
	var readErr error
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if readErr == nil {
			if readErr = l.read(lines.Text()); readErr != nil {
				kill()
			}
		}
		if l.acks >= at.acks {
			arm()
		}
	}
	_ = cmd.Wait() // ProcessState has it
	if event != nil {
		event.Stop()
	}
	mu.Lock()
	defer mu.Unlock()
	e := end{acted: acted, code: cmd.ProcessState.ExitCode(), said: string(bytes.TrimSpace(complaint.Bytes())), canceled: ctx.Err() != nil}
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		e.signal = w.Signal()
	}
	switch {
	case readErr != nil:
		return e, readErr
	case e.canceled:
		return e, ctx.Err()
	case stuck:
		return e, oracle.Broken(oracle.Stuck, "", 0, "a child did not end within %v: %s", patience, e.said)
	}
	return e, lines.Err()
}

// peaceful is nil if a life ended by itself and without a broken promise.
func (e *end) peaceful(l *ledger) error {
	if e.signal != 0 {
		return fmt.Errorf("a child died of %v: %s", e.signal, e.said)
	}
	if e.code != 0 || !l.ended {
		return fmt.Errorf("a child ended with %d: %s", e.code, e.said)
	}
	return nil
}

// unborn says that the dynamic loader gave up before the program began.
func (e *end) unborn() bool {
	return e.code == 127 && strings.Contains(e.said, "error while loading shared libraries")
}

// killed is nil if a life ended by SIGKILL, or by itself in peace.
func (e *end) killed(l *ledger) error {
	if e.signal == syscall.SIGKILL {
		return nil
	}
	return e.peaceful(l)
}

// canceled turns the end of a context into the early end of a case.
func canceled(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
