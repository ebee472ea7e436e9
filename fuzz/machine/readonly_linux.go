package machine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// ReadOnlyCalls watches a child that reads a store, read-only, as a kill or a Close
// left it: not one system call may change anything in the store's directory.
func ReadOnlyCalls(h Host) runner.Runner {
	t := newTracer(h)
	return runner.Runner{
		Name:  "read-only under strace",
		About: "a reader makes no system call that changes the store",
		Ready: straceReady,
		Case:  t.onStore(t.watchReader),
	}
}

func (t *tracer) watchReader(ctx context.Context, l *ledger, seed uint64) error {
	log := l.job.Dir + ".calls"
	l.begin()
	if seed%2 == 0 {
		l.job.Batches = 0
	}
	kill := func(kill func()) { kill() }
	e, err := l.live(ctx, t.h.command(ctx, &l.job), aim{acks: 20 + int(seed%30)}, kill)
	if err == nil {
		err = e.killed(l)
	}
	if err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	l.dead(false)
	l.begin()
	l.job.ReadOnly = true
	e, err = t.trace(ctx, l, log, "-y", "-e",
		"trace=%file,mmap,ftruncate,fallocate,fchmod,fchown,fsync,fdatasync,sync_file_range,syncfs,"+
			"write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,splice,fsetxattr")
	if err == nil {
		err = e.peaceful(l)
	}
	if err == nil && len(l.fails) > 0 {
		err = fmt.Errorf("a reader says %s", l.fails[0])
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	seen := int64(0)
	for line := range bytes.Lines(text) {
		if !strings.Contains(string(line), l.job.Dir) {
			continue
		}
		seen++
		if changes(string(line)) {
			return fmt.Errorf("a reader calls %s", bytes.TrimSpace(line))
		}
	}
	if seen == 0 {
		return fmt.Errorf("strace saw no call in %s", l.job.Dir)
	}
	l.counts["calls seen"] += seen
	l.counts["reads"]++
	l.job.ReadOnly = false
	return l.examine()
}

// changes says whether a line of strace's is a call that may change a file it names.
func changes(line string) bool {
	_, call, _ := strings.Cut(line, " ")
	name, args, is := strings.Cut(strings.TrimSpace(call), "(")
	if !is {
		return false // the end of a call whose beginning was a line of its own
	}
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(args, w) {
				return true
			}
		}
		return false
	}
	switch name {
	case "sync_file_range": // without flags it does nothing: somebody asks whether it is there
		return !has(", 0, 0, 0)", ", 0, 0, 0 <unfinished")
	case "openat", "open":
		return has("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")
	case "mmap":
		return has("MAP_SHARED") && has("PROT_WRITE")
	case "newfstatat", "stat", "lstat", "statx", "statfs", "readlinkat", "readlink", "access", "faccessat",
		"faccessat2", "execve", "getcwd", "fstatfs", "name_to_handle_at", "fstat":
		return false
	}
	return true
}
