package engine

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// memoryEnv makes the test binary the child whose memory is measured: its value is
// how many MiB to write, against a budget of an eighth of it.
const memoryEnv = "HOLDFAST_MEMORY_CHILD"

// Goal: a store that is written, overwritten, read and scanned with eight times its budget
// stays inside it, as the kernel counts. At 256 MiB that is 400 MiB resident at most
// (make memory); smaller runs get the same share and a fixed 64 MiB for the runtime and
// the tests. The hard run holds snapshots and streams 1 GiB through it, too, and gets 1.25
// times the budget and 32 MiB: that is still missed by a hair now and then
// (docs/decisions/0012). With HOLDFAST_MEMORY_CHILD_CGROUP it has no more than that, page
// cache and all, and must not be killed (make memory-hard): it is, at 256 MiB.
func TestEngine_memory(t *testing.T) {
	if dir := os.Getenv(memoryEnv + "_DIR"); dir != "" {
		memoryChild(t, dir)
		return
	}
	if raceEnabled {
		t.Skip("the race detector's shadow memory is resident, too")
	}
	mib, alone := 512, false
	if s := os.Getenv(memoryEnv); s != "" {
		var err error
		mib, err = strconv.Atoi(s)
		require.NoError(t, err)
		alone = os.Getenv(memoryEnv+"_HARD") != ""
	} else if testing.Short() {
		mib = 128
	}
	budget := int64(mib) << 20 / 8
	limit := budget*3/2 + 64<<20
	switch {
	case alone:
		limit = budget*5/4 + 32<<20
	case mib == 2048:
		limit = 400 << 20
	}
	c := exec.Command(os.Args[0], "-test.run", "^TestEngine_memory$", "-test.v")
	c.Env = append(os.Environ(), memoryEnv+"_DIR="+t.TempDir(), fmt.Sprintf("%s=%d", memoryEnv, mib), fmt.Sprintf("%s_ALONE=%t", memoryEnv, alone))
	if os.Getenv(memoryEnv+"_CGROUP") != "" {
		defer confine(t, c, limit)()
	}
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	i := strings.Index(string(out), "peak ")
	require.GreaterOrEqual(t, i, 0, "%s", out)
	var peak int64
	_, err = fmt.Sscanf(string(out[i:]), "peak %d", &peak)
	require.NoError(t, err)
	if alone {
		t.Logf("%s", out[:i])
	}
	t.Logf("%d MiB written and read, budget %d MiB: %d MiB resident at most, limit %d", mib, budget>>20, peak>>20, limit>>20)
	require.LessOrEqual(t, peak, limit)
}

// confine lets a command run in a memory cgroup of its own, of version 1 or 2. What it
// returns takes the cgroup away and says how often the limit was met.
func confine(t *testing.T, c *exec.Cmd, limit int64) (end func()) {
	name, most, met := "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.failcnt"
	if _, err := os.Stat(name); err != nil {
		name, most, met = "/sys/fs/cgroup", "memory.max", "memory.events"
	}
	dir, err := os.MkdirTemp(name, "holdfast-test-")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, most), strconv.AppendInt(nil, limit, 10), 0o644)
	}
	if err != nil {
		_ = os.Remove(dir) // if it came so far
		t.Skipf("no memory cgroup can be made here: %v", err)
	}
	c.Args = append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs"), c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
	return func() {
		b, err := os.ReadFile(filepath.Join(dir, met))
		require.NoError(t, err)
		t.Logf("a cgroup of %d MiB; %s: %s", limit>>20, met, strings.TrimSpace(string(b)))
		require.NoError(t, os.Remove(dir))
	}
}

// memoryChild writes states of many sizes, overwrites, reads back skewed, scans,
// and checks what it reads.
func memoryChild(t *testing.T, dir string) {
	mib, err := strconv.Atoi(os.Getenv(memoryEnv))
	require.NoError(t, err)
	e, err := Open(dir, &Options{MemoryBudget: int64(mib) << 20 / 8, Sync: SyncNever, TuneGC: os.Getenv(memoryEnv+"_TUNEGC") != ""})
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(1, 1))
	sizes := []int{100, 256, 256, 1000, 1000, 4000, 16000, 60000}
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(rnd.Uint32())
	}
	keys := mib * 100
	value := func(id int) []byte {
		n := sizes[id%len(sizes)]
		if id%2500 == 7 {
			n = len(buf)
		}
		return buf[:n]
	}
	read := func(id int) {
		err := e.View(fmt.Appendf(nil, "state-%09d", id), func(v []byte) error {
			require.Len(t, v, max(len(value(id)), 8))
			require.EqualValues(t, id, binary.LittleEndian.Uint64(v))
			return nil
		})
		if err != ErrNotFound {
			require.NoError(t, err)
		}
	}
	z := rand.NewZipf(rnd, 1.1, 10, uint64(keys-1))
	atPeak := watchResident(e)
	alone := os.Getenv(memoryEnv+"_ALONE") == "true"
	var held []*Snapshot
	n := 0
	for written := 0; written < mib<<20; n++ {
		if alone && n%20_000 == 0 {
			s, err := e.Snapshot()
			require.NoError(t, err)
			if held = append(held, s); len(held) > 3 {
				require.NoError(t, held[0].Close())
				held = held[1:]
			}
		}
		if alone && n == 50_000 {
			streamTo(t, e, "a gigabyte", newNoise(1<<30))
			v, err := e.OpenValue([]byte("a gigabyte"))
			require.NoError(t, err)
			_, err = v.WriteTo(io.Discard)
			require.NoError(t, err)
			require.NoError(t, v.Close())
		}
		id := rnd.IntN(keys)
		v := value(id)
		binary.LittleEndian.PutUint64(v, uint64(id))
		require.NoError(t, e.Put(fmt.Appendf(nil, "state-%09d", id), v))
		written += len(v)
		read(int(z.Uint64()))
	}
	for range keys {
		read(int(z.Uint64()))
	}
	for _, s := range held {
		require.NoError(t, s.Close())
	}
	n = 0
	for item, err := range e.Scan(Range{Upper: []byte("state-~")}) {
		require.NoError(t, err)
		if item.Size() > 1<<20 {
			continue
		}
		v, err := item.Value()
		require.NoError(t, err)
		n += len(v)
	}
	fmt.Println(atPeak())
	require.NoError(t, e.Close())
	fmt.Printf("scanned %d MiB\npeak %d\n", n>>20, peakResident(t))
}

// watchResident tells, when it is stopped, where the memory was when most was resident.
func watchResident(e *Engine) (stop func() string) {
	done, out := make(chan struct{}), make(chan string)
	go func() {
		var most MemoryMetrics
		var heap runtime.MemStats
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			select {
			case <-done:
				out <- fmt.Sprintf("%+v\nheap %d MiB in use, %d idle, %d stacks, %d other", most,
					heap.HeapInuse>>20, (heap.HeapIdle-heap.HeapReleased)>>20, heap.StackInuse>>20, (heap.MSpanSys+heap.GCSys+heap.OtherSys+heap.BuckHashSys)>>20)
				return
			default:
			}
			if m := e.Metrics().Memory; m.Resident > most.Resident {
				runtime.ReadMemStats(&heap)
				most = m
				most.Why = fmt.Sprintf("%s, %v after the start", m.Why, time.Since(began))
			}
		}
	}()
	return func() string { close(done); return <-out }
}

// peakResident is what the kernel says was resident at most, mapped files included.
func peakResident(t *testing.T) int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Skip("no /proc: peak memory is not known here")
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			require.NoError(t, err)
			return kb << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
