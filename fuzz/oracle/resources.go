package oracle

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// Resources checks O10: what a process holds before and after. Descriptors and
// mappings are counted where /proc is, and are zero elsewhere.
type Resources struct{ Goroutines, Files, Mappings int }

// Held is what the process holds now.
func Held() Resources {
	r := Resources{Goroutines: runtime.NumGoroutine()}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.Files = len(fds)
	}
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil {
		for line := range strings.Lines(string(maps)) {
			if strings.Contains(line, " /") { // of a file; the runtime's own grow
				r.Mappings++
			}
		}
	}
	return r
}

// Check waits up to patience for the process to hold no more than before, then says
// what it holds.
func (before Resources) Check(patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		now := Held()
		if now.Goroutines <= before.Goroutines && now.Files <= before.Files && now.Mappings <= before.Mappings {
			return nil
		}
		if time.Now().After(end) {
			return Broken(Leaked, "", 0, "holds %s, held %s", now, before)
		}
	}
}

func (r Resources) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d mappings", r.Goroutines, r.Files, r.Mappings)
}
