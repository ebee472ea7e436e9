package engine

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const clockEnv = "HOLDFAST_CLOCK_CHILD"

// Goal (T-01, C-07): nobody notices a wall clock that is put back or forward, or stands:
// not a timer of the log, not a limit of a stall, not a cache, not a recovery. It orders,
// deletes and validates nothing.
func TestEngine_wallClock_jumps(t *testing.T) {
	if dir := os.Getenv(clockEnv); dir != "" {
		clockChild(t, dir)
		return
	}
	c := exec.Command(os.Args[0], "-test.run", "^TestEngine_wallClock_jumps$", "-test.v", fmt.Sprintf("-test.short=%t", testing.Short()))
	c.Env = append(os.Environ(), clockEnv+"="+filepath.Join(inMemory(t), "store"))
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	if _, why, skipped := strings.Cut(string(out), "skipped: "); skipped {
		t.Skipf("the wall clock cannot be moved here: %s", why)
	}
	require.Contains(t, string(out), "PASS")
}

// jump is one that a machine may make: by hand, by NTP, by a dead battery.
type jump struct {
	name string
	to   func(*wallClock)
}

func jumps() []jump {
	ahead := func(d time.Duration) func(*wallClock) { return func(c *wallClock) { c.shiftBy(d) } }
	const year = 365 * 24 * time.Hour
	return []jump{
		{"an hour back", ahead(-time.Hour)},
		{"ten years forward", ahead(10 * year)},
		{"standing", func(c *wallClock) { c.stop(time.Unix(1_800_000_000, 0)) }},
		{"1970", func(c *wallClock) { c.stop(time.Unix(0, 0)) }},
		{"a hundred years forward", ahead(100 * year)}, // from 2157 on a time.Time has no monotonic part
		{"as it was", ahead(0)},
	}
}

// clocked is a store and what must be in it.
type clocked struct {
	t    *testing.T
	e    *Engine
	want map[string]string
	n    int
}

// write changes some keys, small and large, and removes one and a range.
func (s *clocked) write() {
	for range 30 {
		s.n++
		k, v := fmt.Sprintf("k%02d", s.n%25), fmt.Sprint(s.n)
		if s.n%6 == 0 {
			v = strings.Repeat(v+" ", 3000)
		}
		require.NoError(s.t, s.e.Put([]byte(k), []byte(v)))
		s.want[k] = v
	}
	gone := fmt.Sprintf("k%02d", s.n%23)
	require.NoError(s.t, s.e.Delete([]byte(gone)))
	require.NoError(s.t, s.e.DeleteRange([]byte("k11"), []byte("k14")))
	maps.DeleteFunc(s.want, func(k, _ string) bool { return k == gone || k >= "k11" && k < "k14" })
}

// check reads every key twice, the second time from the caches, and all at once.
func (s *clocked) check(at string) {
	for range 2 {
		for i := range 25 {
			k := fmt.Sprintf("k%02d", i)
			want, ok := s.want[k]
			if !ok {
				want = "∅"
			}
			require.Equal(s.t, want, get(s.t, s.e, k), "%s: %s", at, k)
		}
	}
	require.Len(s.t, pairs(s.t, s.e.Scan(Range{})), len(s.want), at)
	require.NoError(s.t, s.e.Check(context.Background()), at)
}

func clockChild(t *testing.T, dir string) {
	c, err := newWallClock()
	if err != nil {
		fmt.Println("skipped:", err)
		return
	}
	for name, o := range map[string]Options{
		"always":   {Sync: SyncAlways, LargeValue: 4 << 10},
		"interval": {Sync: SyncInterval, SyncEvery: 5 * time.Millisecond, LargeValue: 4 << 10},
		"never":    {Sync: SyncNever, LargeValue: 4 << 10, SegmentBytes: 16 << 10},
	} {
		s := &clocked{t: t, want: map[string]string{}}
		// Between close and open: each life is at another time than the one before.
		for _, j := range append(jumps(), jumps()...) {
			j.to(c)
			s.e, err = Open(dir+"-"+name, small(o))
			require.NoError(t, err, j.name)
			s.check(name + ": opened at " + j.name)
			s.write()
			require.NoError(t, s.e.Close(), j.name)
		}
		// While it is open.
		s.e, err = Open(dir+"-"+name, small(o))
		require.NoError(t, err)
		for i, j := range jumps() {
			s.write()
			s.check(name + ": before " + j.name)
			snap, err := s.e.Snapshot()
			require.NoError(t, err)
			j.to(c)
			s.timers(name+": "+j.name, o.Sync)
			s.check(name + ": " + j.name)
			s.write()
			require.Less(t, s.e.Metrics().Snapshots.OldestAge, time.Minute)
			require.NoError(t, snap.Close())
			if i%2 == 0 {
				flush(t, s.e)
				require.NoError(t, s.e.Compact(context.Background()))
			}
			s.check(name + ": after " + j.name)
		}
		require.NoError(t, s.e.Close())
	}
	stallsEnd(t, c, dir+"-stall")
}

// timers is what happens by itself some time after a commit: the log becomes durable.
func (s *clocked) timers(at string, policy SyncPolicy) {
	require.NoError(s.t, s.e.Put([]byte("tick"), []byte(at)))
	s.want["tick"] = at
	if policy != SyncNever { // which syncs when it is asked
		last := s.e.clock.Published()
		eventually(s.t, 10*time.Second, at+": the log is not durable", func() bool { return s.e.DurableLSN() >= last })
	}
	require.NoError(s.t, s.e.Sync(context.Background()))
}

// stallsEnd jumps while a writer waits: its limit comes when it should.
func stallsEnd(t *testing.T, c *wallClock, dir string) {
	const limit = 100 * time.Millisecond
	e, err := Open(dir, small(Options{StallLimit: limit}))
	require.NoError(t, err)
	time.Sleep(50 * time.Millisecond) // the flusher's first look ends any stall
	for _, j := range jumps() {
		e.stall.on.Store(true)
		began, done := time.Now(), make(chan error)
		go func() { done <- e.Put([]byte("k"), nil) }()
		time.Sleep(limit / 10)
		j.to(c)
		select {
		case err := <-done:
			require.ErrorIs(t, err, ErrBusy, j.name)
			require.GreaterOrEqual(t, time.Since(began), limit, j.name)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: a writer waits for ever", j.name)
		}
	}
	e.stall.on.Store(false)
	require.NoError(t, e.Put([]byte("k"), nil))
	require.NoError(t, e.Close())
}
