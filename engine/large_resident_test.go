package engine

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const largeChildEnv = "HOLDFAST_LARGE_CHILD" // the directory of the child's store

// Goal: a value streamed in, out, and read at random makes the process grow by no more
// than 64 MiB above the share of the budget that mappings have, as another process sees
// it, whatever the size of the value and whether it compresses.
func TestLarge_resident(t *testing.T) {
	if dir := os.Getenv(largeChildEnv); dir != "" {
		largeChild(t, dir)
		return
	}
	if raceEnabled {
		t.Skip("the race detector's shadow memory is resident, too")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc: resident memory is not known here")
	}
	c := exec.Command(os.Args[0], "-test.run", "^TestLarge_resident$", "-test.v")
	c.Env = append(os.Environ(), largeChildEnv+"="+filepath.Join(t.TempDir(), "store"))
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	phases, said := make(chan string), ""
	go func() {
		defer close(phases)
		for s := bufio.NewScanner(out); s.Scan(); {
			if phase, ok := strings.CutPrefix(s.Text(), "phase "); ok {
				phases <- phase
			} else {
				said += s.Text() + "\n"
			}
		}
	}()
	phase, base, peak := "", int64(0), map[string]int64{}
	look := func() {
		if now := resident(c.Process.Pid); phase == "open" {
			base = now
		} else if phase != "" {
			peak[phase] = max(peak[phase], now-base)
		}
	}
	for tick := time.NewTicker(5 * time.Millisecond); phases != nil; {
		select {
		case p, more := <-phases:
			if !more {
				phases = nil
				break
			}
			phase = p
			look()
		case <-tick.C:
			look()
		}
	}
	require.NoError(t, c.Wait(), said)
	require.Positive(t, base)
	require.Len(t, peak, 6)
	limit := small(Options{}).shares().mapped + 64<<20
	for phase, grown := range peak {
		t.Logf("%-12s %4d MiB above %d MiB, limit %d", phase, grown>>20, base>>20, limit>>20)
		require.LessOrEqual(t, grown, limit, phase)
	}
}

// resident is what the kernel says process pid has in memory, mapped files included.
func resident(pid int) (bytes int64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may have ended
	if _, v, ok := strings.Cut(string(b), "VmRSS:"); ok {
		_, _ = fmt.Sscan(v, &bytes)
	}
	return bytes << 10
}

func largeChild(t *testing.T, dir string) {
	size := max(largeMiB(t), 256) << 20 // a multiple of what is allowed
	e, err := Open(dir, small(Options{}))
	require.NoError(t, err)
	phase := func(name string, f func()) {
		fmt.Println("phase", name)
		f()
		time.Sleep(20 * time.Millisecond) // two looks at least
	}
	phase("open", func() {})
	for key, r := range map[string]io.Reader{"raw": newNoise(size), "json": states(size)} {
		phase(key+"-in", func() { streamTo(t, e, key, r) })
		v, err := e.OpenValue([]byte(key))
		require.NoError(t, err)
		phase(key+"-out", func() {
			n, err := v.WriteTo(io.Discard)
			require.NoError(t, err)
			require.Equal(t, size, n)
		})
		phase(key+"-random", func() {
			g := rand.New(rand.NewPCG(1, 1))
			p := make([]byte, 4<<10)
			for range 20_000 {
				_, err := v.ReadAt(p, g.Int64N(size-int64(len(p))))
				require.NoError(t, err)
			}
		})
		require.NoError(t, v.Close())
	}
	require.NoError(t, e.Close())
}
