package damage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

var (
	seed   = flag.Uint64("seed", 1, "place at which sweeps with a stride begin")
	stride = flag.Int("stride", 0, "damage every nth place; 1: every byte; 0: a short sweep")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixture(t *testing.T, end Ending) *Fixture {
	t.Helper()
	f, err := NewFixture(Settings, end)
	require.NoError(t, err)
	return f
}

// sweep runs kinds with a stride and reports what it found. only are the outcomes
// beside harmless, reported and refused that it may find.
func sweep(t *testing.T, f *Fixture, kinds []Kind, usual int, try func(Case) (Outcome, error), only ...Outcome) Table {
	t.Helper()
	s := usual
	if testing.Short() {
		s *= 8
	}
	if *stride > 0 {
		s = *stride
	}
	table := Table{}
	began := time.Now()
	err := Sweep(t.Context(), f, kinds, s, int(*seed), try, table)
	require.NoError(t, err, "replay with: go test ./fuzz/damage -run %s -seed %d -stride %d", t.Name(), *seed, s)
	n, by := table.Total()
	require.NotZero(t, n)
	for _, o := range only {
		by[o] = 0
	}
	require.Zero(t, by[Cut]+by[Rewound], "%s", table)
	t.Logf("%s, %d bytes, stride %d: %d cases, 0 wrong, 0 missing, %s each\n%s",
		f.Name, f.Size(), s, n, (time.Since(began) / time.Duration(n)).Round(time.Microsecond), table)
	return table
}

// Goal (F-30 to F-36, O5, O6): whatever is damaged in a closed store, every answer is
// right, or an error of a known type, or the store is refused, again and again, and
// has lost nothing by it; and a store that opened beside its damage goes on well.
func TestFixture_AtRest(t *testing.T) {
	f := fixture(t, Closed)
	table := sweep(t, f, Kinds(), 160, f.AtRest, Rewound)
	for k, n := range table {
		if k[1] != "stale pair" {
			require.Zero(t, n[Rewound], "%s: a file put back alone took back a promise", k)
		}
	}
}

// Goal: the same where L3's manifest ends with a flush.
func TestFixture_AtRest_young(t *testing.T) {
	f := fixture(t, Young)
	sweep(t, f, Kinds(), 200, f.AtRest, Rewound)
}

// Goal: damage to a store that was killed takes back at most what lies in the damaged
// end of the log and was promised by nothing behind it.
func TestFixture_AtRest_killed(t *testing.T) {
	for _, end := range []Ending{Killed, Idle} {
		f := fixture(t, end)
		table := sweep(t, f, f.kinds(), 400, f.AtRest, Cut)
		for k, n := range table {
			if k[0] != "log" {
				require.Zero(t, n[Cut], "%s", k)
			}
			if end == Idle && strings.Contains(k[1], "bit") {
				require.Zero(t, n[Cut], "%s: one bit took back what the idle log had marked", k)
			}
		}
	}
}

// Goal: a single bit anywhere in the newest frame, in what promises it, and around,
// takes back the last commit and nothing else.
func TestFixture_AtRest_lastFrame(t *testing.T) {
	for _, end := range []Ending{Killed, Idle} {
		f := fixture(t, end)
		name := newest(f.Image)
		fr := frames(f.Image[name])
		from, to := fr[len(fr)-2].off, fr[len(fr)-1].off+fr[len(fr)-1].size+frameHeader
		table := Table{}
		for c := range flips(f) {
			var off, bit int
			if c.File != name {
				continue
			}
			_, err := fmt.Sscanf(strings.TrimPrefix(c.What, name), ": bit %d of byte %d", &bit, &off)
			require.NoError(t, err)
			if off < from || off >= to {
				continue
			}
			c.Brief = off%briefly != 0
			o, err := f.AtRest(c)
			require.NoError(t, err)
			table.Add(c.Class, "bit flip at the end", o)
		}
		_, by := table.Total()
		require.Equal(t, end == Killed, by[Cut] > 0, "%s", table)
		t.Logf("%s\n%s", f.Name, table)
	}
}

// Goal: damage under an open store costs the keys that it hits, and no others; the
// engine goes on.
func TestFixture_WhileOpen(t *testing.T) {
	f := fixture(t, Closed)
	opened, err := f.Opened()
	require.NoError(t, err)
	sweep(t, opened, KindsOpen(), 300, f.WhileOpen)
}

// Goal: each mode of recovery keeps its own contract beside damage.
func TestFixture_In(t *testing.T) {
	for _, end := range []Ending{Closed, Killed} {
		f := fixture(t, end)
		for _, m := range Modes() {
			t.Run(end.String()+"/"+m.Name, func(t *testing.T) {
				sweep(t, f, f.kinds(), 1600, f.In(m), Cut, Rewound)
			})
		}
	}
}

// Goal (I12): a mapped pack that is cut under its reader is an error of that key, and
// the process lives.
func TestFixture_Mapped(t *testing.T) {
	f := fixture(t, Closed)
	table := Table{}
	for _, pack := range f.packs() {
		for _, n := range Lengths {
			for _, when := range []When{Unread, Mapping, Looking} {
				o, err := f.Mapped(t.TempDir(), pack, n, when)
				require.NoError(t, err)
				table.Add("pack", "cut "+when.String(), o)
			}
		}
	}
	_, by := table.Total()
	require.NotZero(t, by[Reported])
	t.Logf("\n%s", table)
}

// Goal: the fixture holds every class of file, and no more bytes than that needs.
func TestFixture_classes(t *testing.T) {
	classes := map[string]bool{}
	for end := range Ending(len(endings)) {
		f := fixture(t, end)
		for _, n := range f.Image.names() {
			classes[Class(n)] = true
		}
		require.Less(t, f.Size(), 80<<10, "every byte of it is damaged")
	}
	for _, c := range []string{"STATE", "LOCK", "log", "table", "MANIFEST", "OPTIONS", "marker", "pack", "folder"} {
		require.True(t, classes[c], "%s", c)
	}
	f := fixture(t, Killed)
	require.True(t, spare(f.Image))
	codecs := map[byte]bool{}
	for _, p := range f.packs() {
		for _, s := range blobs(f.Image[p]) {
			codecs[s.kind] = true
		}
	}
	require.Len(t, codecs, 2, "raw and zstd")
}

// Goal: every runner runs, and the same seed does the same.
func TestRunners(t *testing.T) {
	n := 2
	if testing.Short() {
		n = 1
	}
	for _, r := range Runners(engine.Options{}) {
		counts, err := runner.Seeds(t.Context(), r, *seed, n)
		require.NoError(t, err)
		require.NotZero(t, counts["damages"])
		t.Logf("%s: %s", r.Name, counts)
	}
}

// Goal: the harness itself can fail. Each lie of a store is one that its checks name.
func TestFixture_lies(t *testing.T) {
	f := fixture(t, Closed)
	other := *f
	other.Model = f.Model.Copy()
	other.Model.Put("k00", "another")
	whole := Case{Class: "none", What: "nothing", Make: func() Image { return f.Image }}
	for name, lie := range map[string]func() (Outcome, error){
		"wrong value": func() (Outcome, error) { return other.AtRest(whole) },
		"missing key": func() (Outcome, error) {
			g := *f
			g.Model = f.Model.Copy()
			g.Model.Put("never", "there")
			return g.AtRest(whole)
		},
		"came back": func() (Outcome, error) {
			g := *f
			g.Model = f.Model.Copy()
			g.Model.Delete("k00")
			return g.AtRest(whole)
		},
		"unknown error": func() (Outcome, error) {
			return f.try(whole, func(t *trial) (Outcome, error) { return 0, t.typed(errors.New("odd")) })
		},
		"panic": func() (Outcome, error) {
			return f.try(whole, func(*trial) (Outcome, error) { panic("odd") })
		},
		"changed evidence": func() (Outcome, error) {
			return f.try(whole, func(t *trial) (Outcome, error) {
				fs := vfs.NewMem()
				if err := f.Image.Without("STATE").Write(fs, dir); err != nil {
					return 0, err
				}
				return t.refused(fs, engine.ErrCorrupt, nil)
			})
		},
		"refused, then opened": func() (Outcome, error) {
			return f.try(whole, func(t *trial) (Outcome, error) {
				fs := vfs.NewMem()
				if err := f.Image.Write(fs, dir); err != nil {
					return 0, err
				}
				return t.refused(fs, engine.ErrCorrupt, nil)
			})
		},
		"read-only that writes": func() (Outcome, error) {
			return f.try(whole, func(t *trial) (Outcome, error) {
				fs := vfs.NewMem()
				if err := f.Image.With("log/x", nil).Write(fs, dir); err != nil {
					return 0, err
				}
				return 0, t.unchanged(fs)
			})
		},
		"never written": func() (Outcome, error) {
			g := *f
			g.ever = map[string]map[string]bool{"k00": {"zero": true}}
			return g.try(whole, func(t *trial) (Outcome, error) {
				e, _, err := g.open(g.Image, nil)
				if err != nil {
					return 0, err
				}
				return 0, errors.Join(t.onceWritten(e), e.Close())
			})
		},
		"error of an untouched key": func() (Outcome, error) {
			g := *f
			g.inPack = map[string][]string{}
			pack := f.packs()[0]
			return g.WhileOpen(Case{Class: "pack", What: "nobody's key", File: pack, Make: func() Image { return f.Image },
				Change: func(b []byte) []byte { return make([]byte, len(b)) }})
		},
	} {
		_, err := lie()
		require.Error(t, err, name)
		t.Logf("%s: %.200s", name, strings.TrimSpace(err.Error()))
	}
}

// Goal: a sweep stops when its context ends.
func TestSweep_ends(t *testing.T) {
	f := fixture(t, Closed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	table := Table{}
	require.NoError(t, Sweep(ctx, f, Kinds(), 1, 0, f.AtRest, table))
	require.Empty(t, table)
}
