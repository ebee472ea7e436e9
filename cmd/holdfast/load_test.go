package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/engine"
)

func runLoad(t *testing.T, args ...string) loadReport {
	t.Helper()
	var r loadReport
	require.NoError(t, json.Unmarshal([]byte(ok(t, append([]string{"load", "--json", "--memory", "16MiB", "--sync", "never"}, args...)...)), &r))
	return r
}

// Goal: each scenario does what its name says, at the rate that was asked for, and
// reports it.
func TestLoad_scenarios(t *testing.T) {
	for _, name := range []string{"sustained", "burst", "clients"} {
		args := []string{"--scenario", name, "--minutes", "0.03", "--rate", "2000", "--clients", "50", "--seed", "7"}
		if name != "clients" {
			args = append(args, "--keys", "3000")
		}
		r := runLoad(t, args...)
		require.Equal(t, name, r.Scenario)
		require.EqualValues(t, 7, r.Seed)
		require.InDelta(t, 2000, r.Rate, 1000)
		ops := map[string]loadOp{}
		for _, o := range r.Operations {
			ops[o.Kind] = o
			require.NotZero(t, o.Count, o.Kind)
			require.LessOrEqual(t, o.P50, o.P999, o.Kind)
		}
		require.InDelta(t, 1024, float64(ops["put"].Bytes)/float64(ops["put"].Count), 1)
		if name == "clients" {
			require.Len(t, ops, 2)
			require.InDelta(t, float64(ops["get"].Count), float64(ops["put"].Count), 60)
		} else {
			require.Len(t, ops, 4)
			require.InDelta(t, 70.0/25, float64(ops["get"].Count)/float64(ops["put"].Count), 0.8)
		}
		require.NotZero(t, r.Memory.RSS)
		require.NotZero(t, r.Goroutines)
		require.NotZero(t, r.Disk.Written)
		require.EqualValues(t, 16<<20, r.Budget)
	}
}

// Goal: objects are streamed in, compared byte for byte, and deleted again.
func TestLoad_objects(t *testing.T) {
	dir := t.TempDir()
	r := runLoad(t, "--scenario", "large", "--size", "100KB", "--minutes", "0.05", "--clients", "2", "-d", dir)
	ops := map[string]loadOp{}
	for _, o := range r.Operations {
		ops[o.Kind] = o
	}
	require.NotZero(t, ops["stream in"].Count)
	require.GreaterOrEqual(t, ops["stream in"].Bytes, int64(ops["stream in"].Count)*100_000)
	require.NotZero(t, ops["read whole"].Count)
	require.NotZero(t, ops["read 4 KiB"].Count)
	require.NotZero(t, ops["delete"].Count)
	require.Contains(t, ok(t, "scan", "-d", dir, "--keys-only"), "object/0/")
	require.Contains(t, run(t, "load", "-d", dir).err, "is not empty")
}

// Goal: what is not the object's is found, wherever it lies.
func TestObject_differs(t *testing.T) {
	o := object{3, 100_001}
	b := make([]byte, o.size)
	r := &objectReader{object: o, ctx: t.Context()}
	for off := 0; off < len(b); {
		n, err := r.Read(b[off:min(len(b), off+777)])
		require.NoError(t, err)
		off += n
	}
	same := func() error {
		s := &sameAs{want: &objectReader{object: o, ctx: t.Context()}, key: []byte("k")}
		for off := 0; off < len(b); off += 5000 {
			if _, err := s.Write(b[off:min(len(b), off+5000)]); err != nil {
				return err
			}
		}
		return nil
	}
	require.NoError(t, same())
	for _, at := range []int{0, 2047, 2048, 50_000, 100_000} {
		b[at] ^= 1
		require.ErrorIs(t, same(), errBroken, "%d", at)
		b[at] ^= 1
	}
	page := make([]byte, o.size-24*pageBytes)
	o.page(page, 24)
	require.Equal(t, b[24*pageBytes:], page)
	require.False(t, isOf([]byte(`{"id":"client/00000001","`), []byte("client/0000000")))
	require.True(t, isOf([]byte(`{"id":"client/00000001","`), []byte("client/00000001")))
}

// Goal: profiles and traces of each phase are there and not empty; the table names what
// a person wants to know.
func TestLoad_profiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	out := ok(t, "load", "--minutes", "0.02", "--clients", "4", "--keys", "1000", "--memory", "16MiB", "--sync", "never", "--rate", "500", "--pprof", dir, "--trace", dir)
	for _, phase := range []string{"fill", "run"} {
		for _, what := range []string{"cpu.pprof", "heap.pprof", "block.pprof", "mutex.pprof", "trace"} {
			i, err := os.Stat(filepath.Join(dir, "sustained-"+phase+"."+what))
			require.NoError(t, err)
			require.NotZero(t, i.Size(), i.Name())
		}
	}
	for _, word := range []string{"operation", "p999", "resident", "goroutine", "in the collector", "waiting for locks", "asked for", "tier"} {
		require.Contains(t, out, word)
	}
}

func TestLoad_usage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--scenario soak", "--scenario is sustained, burst, large or clients"},
		{"--minutes 0", "--minutes must be above zero"},
		{"--rate -1", "--rate is -1"},
		{"--scenario clients --keys 5", "--keys is not for"},
		{"--keys -5", "--keys is -5"},
		{"--scenario large --rate 5", "--rate is not for"},
		{"--size 3", "--size wants a size"},
		{"--size 2MiB", "--size wants a size"},
		{"--scenario large --size 65GiB", "--size wants a size"},
		{"--clients -2", "--clients is -2"},
		{"more", "takes no arguments"},
	} {
		r := run(t, append([]string{"load"}, strings.Fields(c.args)...)...)
		require.Equal(t, exitUsage, r.code, c.args)
		require.Contains(t, r.err, c.want)
	}
}

// Goal: what goes wrong when the time is over counts, and the end of the time does not.
func TestLoad_together(t *testing.T) {
	l := &load{}
	late := func(err error) error {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer stop()
		return l.together(ctx, 3, func(ctx context.Context, id int) error {
			<-ctx.Done()
			if id == 1 {
				return err
			}
			return ctx.Err()
		})
	}
	require.NoError(t, late(nil))
	require.NoError(t, late(context.DeadlineExceeded))
	require.ErrorIs(t, late(fmt.Errorf("late: %w", errBroken)), errBroken)
	require.ErrorIs(t, late(engine.ErrReadOnly), engine.ErrReadOnly)
	require.ErrorIs(t, l.together(t.Context(), 3, func(ctx context.Context, id int) error {
		if id == 2 {
			return errBroken
		}
		<-ctx.Done()
		return ctx.Err()
	}), errBroken)
}

// Goal: a state that is lost, and one that is another's, end the run.
func TestLoad_wrong(t *testing.T) {
	e, err := engine.Open(t.TempDir(), &engine.Options{MemoryBudget: leastMemory, Sync: engine.SyncNever})
	require.NoError(t, err)
	defer e.Close()
	l := &load{e: e, tape: newTape(), keys: 10, size: 100}
	c, now := l.newClient(0), time.Now()
	require.ErrorIs(t, c.get(1, now, false), errBroken)
	require.NoError(t, c.get(1, now, true))
	require.NoError(t, c.put(1, now))
	require.NoError(t, c.get(1, now, false))
	require.NoError(t, c.scan(0, now))
	require.NoError(t, e.Put([]byte("client/00000001"), c.state(nil, []byte("client/00000002"))))
	require.ErrorIs(t, c.get(1, now, true), errBroken)
	require.ErrorIs(t, c.scan(0, now), errBroken)
}
