package machine

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// limit puts the job's limits on this process.
func limit(j *Job) error {
	if j.Files > 0 {
		// The runtime's poller needs descriptors of its own, and a process that gets
		// none dies in the runtime: let it have them first.
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		_, _ = r.Close(), w.Close()
	}
	for _, l := range []struct {
		what  int
		value uint64
	}{{unix.RLIMIT_NOFILE, j.Files}, {unix.RLIMIT_FSIZE, j.FileBytes}} {
		if l.value == 0 {
			continue
		}
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("machine: limit %d: %w", l.what, err)
		}
	}
	return nil
}
