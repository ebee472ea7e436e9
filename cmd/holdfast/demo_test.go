package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/engine"
)

// syntheticTree makes small files, a few large ones and empty ones.
func syntheticTree(t *testing.T, files int) string {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range files {
		size := r.IntN(4 << 10)
		switch {
		case i%40 == 7:
			size = 70<<10 + r.IntN(50<<10)
		case i%10 == 3:
			size = 0
		}
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("f%03d", i))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, noise(size + 1)[1:], 0o600))
	}
	return dir
}

func newTestDemo(t *testing.T, kills int) (*demo, *bytes.Buffer) {
	var out bytes.Buffer
	a := &app{out: &out, err: &out}
	return &demo{
		app: a, ctx: t.Context(), source: syntheticTree(t, 200), work: t.TempDir(), dir: filepath.Join(t.TempDir(), "store"),
		seed: rand.Uint64(), kills: kills, limit: 1 << 30, reads: 100 * time.Millisecond, budget: 16 << 20, early: 5,
		flags: []string{"--flush-every", "5"}, env: []string{childEnv + "=1"}, screen: newScreen(a),
	}, &out
}

// Goal: 100 SIGKILLs in a row lose no acknowledged write and leave no batch by
// half.
func TestDemo_kills(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 10
	}
	d, out := newTestDemo(t, kills)
	began := time.Now()
	err := d.run()
	if err != nil {
		t.Logf("seed %d\n%s", d.seed, out)
	}
	require.NoError(t, err)
	require.Equal(t, kills, d.report.Kills)
	require.Zero(t, d.report.Lost)
	require.Zero(t, d.report.Partial)
	require.Zero(t, d.report.Wrong)
	require.Positive(t, d.report.Acked)
	require.GreaterOrEqual(t, d.report.ChurnKills, kills/3)
	require.Contains(t, out.String(), "time of")
	t.Logf("%d kills, %d batches acknowledged, %d in flight that survived, in %v; slowest reopen %v",
		kills, d.report.Acked, d.report.InFlight, time.Since(began), d.report.SlowestOpen)
}

// Goal: the proof is worth something: a store that lost a file, a batch or a part
// of one, or that has something more, is found out.
func TestModel_verify_findsDamage(t *testing.T) {
	p := &plan{Root: syntheticTree(t, 600), Seed: 7}
	var err error
	p.Files, _, err = findFiles(p.Root, 1<<30)
	require.NoError(t, err)
	p.deal()
	const acked = 3
	require.GreaterOrEqual(t, len(p.lanes[0].imports), acked+2)
	key := func(l, n int) []byte { return p.key(p.steps(l, n)[0].file) }
	for name, c := range map[string]struct {
		damage               func(*testing.T, *engine.Engine)
		lost, partial, wrong bool
	}{
		"nothing":        {damage: func(*testing.T, *engine.Engine) {}},
		"a file gone":    {func(t *testing.T, e *engine.Engine) { require.NoError(t, e.Delete(key(0, 1))) }, true, false, false},
		"a file changed": {func(t *testing.T, e *engine.Engine) { require.NoError(t, e.Put(key(0, 1), []byte("x"))) }, true, false, false},
		"a file rewritten": {func(t *testing.T, e *engine.Engine) {
			v, err := e.Get(key(0, 1))
			require.NoError(t, err)
			require.NoError(t, e.Put(key(0, 1), v))
		}, false, false, true},
		"a stranger": {func(t *testing.T, e *engine.Engine) { require.NoError(t, e.Put([]byte("x"), nil)) }, false, false, true},
		"the last batch gone": {func(t *testing.T, e *engine.Engine) {
			marker, _ := p.marker(0, acked, p.steps(0, acked))
			require.NoError(t, e.Delete(marker))
		}, true, false, false},
		"half of the next batch": {func(t *testing.T, e *engine.Engine) {
			v, err := p.content(p.steps(0, acked+1)[0], 0, acked+1)
			require.NoError(t, err)
			require.NoError(t, e.Put(key(0, acked+1), v))
		}, false, true, false},
		"the marker of the next batch": {func(t *testing.T, e *engine.Engine) {
			require.NoError(t, e.Put(p.marker(0, acked+1, p.steps(0, acked+1))))
		}, false, true, false},
		"all of the next batch": {damage: func(t *testing.T, e *engine.Engine) { apply(t, p, e, 0, acked+1) }},
		"two batches more": {func(t *testing.T, e *engine.Engine) {
			apply(t, p, e, 0, acked+1)
			apply(t, p, e, 0, acked+2)
		}, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := engine.Open(filepath.Join(t.TempDir(), "store"), &engine.Options{MemoryBudget: 16 << 20})
			require.NoError(t, err)
			defer e.Close()
			m := newModel(p)
			for n := 1; n <= acked; n++ {
				require.NoError(t, m.ack(0, n, apply(t, p, e, 0, n)))
			}
			// What recovery reports is of this open, so start over on what is there.
			c.damage(t, e)
			v, err := m.verifyAt(e, m.ackedLSN())
			require.NoError(t, err)
			require.Equal(t, []bool{c.lost, c.partial, c.wrong}, []bool{v.Lost > 0, v.Partial > 0, v.Wrong > 0}, "%+v", v)
			require.Equal(t, c.lost || c.partial || c.wrong, v.err(1) != nil)
		})
	}
}

func apply(t *testing.T, p *plan, e *engine.Engine, l, n int) uint64 {
	t.Helper()
	b := e.NewBatch()
	defer b.Close()
	require.NoError(t, p.fill(b, l, n))
	lsn, err := e.Apply(b)
	require.NoError(t, err)
	return lsn
}

// Goal: parent and child make the same plan, every file is in one lane and one
// import batch, and a lane never writes another's files.
func TestPlan_deal(t *testing.T) {
	for files := 1; files < 40; files++ {
		p := &plan{Root: "none", Seed: uint64(files)}
		for i := range files {
			p.Files = append(p.Files, file{fmt.Sprintf("f%03d", i), int64(i * i * i)})
		}
		name := filepath.Join(t.TempDir(), "plan")
		require.NoError(t, p.save(name))
		p.deal()
		same, err := loadPlan(name)
		require.NoError(t, err)
		require.Equal(t, p, same)
		require.Len(t, p.lanes, min(demoLanes, files))
		seen := 0
		for l := range p.lanes {
			for n := range p.lanes[l].imports {
				for _, s := range p.steps(l, n+1) {
					require.Equal(t, seen, s.file)
					seen++
				}
			}
			for n := range 200 {
				for _, s := range p.steps(l, len(p.lanes[l].imports)+1+n) {
					require.GreaterOrEqual(t, s.file, p.lanes[l].lo)
					require.Less(t, s.file, p.lanes[l].hi)
					require.LessOrEqual(t, s.upto, p.lanes[l].hi)
				}
			}
		}
		require.Equal(t, files, seen)
	}
}

// Goal: the demo leaves nothing behind, refuses a directory that is in use, and
// says JSON.
func TestDemo_command(t *testing.T) {
	t.Setenv(childEnv, "1")
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	src := syntheticTree(t, 50)
	out := ok(t, "demo", "--source", src, "--kills", "2", "--read-for", "50ms", "--json")
	require.Contains(t, out, `"kills":2,`)
	names, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, names)

	dir := filepath.Join(t.TempDir(), "kept")
	require.Contains(t, ok(t, "demo", "--source", src, "--kills", "1", "--read-for", "50ms", "--dir", dir), "the store is in "+dir)
	require.True(t, strings.HasPrefix(ok(t, "scan", "-d", dir, "--keys-only", "--limit", "1"), batchPrefix))
	fails(t, exitError, []string{"demo", "--source", src, "--dir", dir}, "not empty")
	fails(t, exitError, []string{"demo", "--source", filepath.Join(src, "nope")}, "nope")
	fails(t, exitError, []string{"demo", "--source", t.TempDir()}, "no regular file")
}

// Goal: a quantile is at most a sixteenth below the truth, whatever its size.
func TestLatency(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<20; v++ {
		b := bucket(v)
		if b != last && b != last+1 || lowest(b) > v || v-lowest(b) > v/16 {
			t.Fatalf("%d is in bucket %d, which begins at %d; the last one was %d", v, b, lowest(b), last)
		}
		last = b
	}
	require.Less(t, bucket(1<<63), len(latency{}.buckets))
	var l latency
	require.Zero(t, l.quantile(0.5))
	for i := range 1000 {
		l.add(time.Duration(i) * time.Microsecond)
	}
	require.InEpsilon(t, 500*time.Microsecond, l.quantile(0.5), 0.07)
	require.InEpsilon(t, 990*time.Microsecond, l.quantile(0.99), 0.07)
}
