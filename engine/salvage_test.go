package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// wreckage is a store with everything in it, and what it should hold: keys over
// several flushes, overwritten, deleted by point and by range, some large, some only
// in the log.
type wreckage struct {
	dir  string
	old  []byte // the manifest as it was before the last flushes
	want map[string]string
	gone map[string]bool
}

func (s *wreckage) put(t *testing.T, e *Engine, k, v string) {
	t.Helper()
	require.NoError(t, e.Put([]byte(k), []byte(v)))
	s.want[k] = v
	delete(s.gone, k)
}

func (s *wreckage) del(t *testing.T, e *Engine, k string) {
	t.Helper()
	require.NoError(t, e.Delete([]byte(k)))
	if _, ok := s.want[k]; ok {
		s.gone[k] = true
	}
	delete(s.want, k)
}

func (s *wreckage) delRange(t *testing.T, e *Engine, lower, upper string) {
	t.Helper()
	require.NoError(t, e.DeleteRange([]byte(lower), []byte(upper)))
	for k := range s.want {
		if k >= lower && k < upper {
			s.gone[k] = true
			delete(s.want, k)
		}
	}
}

// wrecks are those that were made, and the files of their stores by name.
var wrecks = map[bool]struct {
	wreckage
	files map[string]string
}{}

// newWreckage is a copy of the store; compact says how often L3 rewrites itself meanwhile.
func newWreckage(t *testing.T, compact bool) *wreckage {
	t.Helper()
	w, made := wrecks[compact]
	if !made {
		s := makeWreckage(t, compact)
		w.wreckage, w.files = *s, contents(t, s.dir)
		w.want, w.gone = maps.Clone(s.want), maps.Clone(s.gone) // tests change theirs
		wrecks[compact] = w
		return s
	}
	s := &wreckage{dir: filepath.Join(t.TempDir(), "store"), want: maps.Clone(w.want), gone: maps.Clone(w.gone), old: w.old}
	for path, b := range w.files {
		name := filepath.Join(s.dir, strings.TrimPrefix(path, w.dir))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(b), 0o644))
	}
	return s
}

func makeWreckage(t *testing.T, compact bool) *wreckage {
	t.Helper()
	s := &wreckage{dir: t.TempDir(), want: map[string]string{}, gone: map[string]bool{}}
	e, err := Open(s.dir, small(Options{Sync: SyncNever, LargeValue: 4 << 10, SegmentBytes: 64 << 10}))
	require.NoError(t, err)
	for i := range 3000 {
		s.put(t, e, fmt.Sprintf("a%05d", i), fmt.Sprintf("first %d %s", i, strings.Repeat("x", 60)))
	}
	s.put(t, e, "blob/1", strings.Repeat("large one ", 3000))
	s.put(t, e, "blob/2", strings.Repeat("large two ", 3000))
	flush(t, e)
	if compact {
		require.NoError(t, e.Compact(context.Background()))
	}
	var err2 error
	s.old, err2 = os.ReadFile(s.files(t, "l3/MANIFEST-*")[0])
	require.NoError(t, err2)
	for i := range 300 {
		s.put(t, e, fmt.Sprintf("a%05d", i*10), fmt.Sprintf("second %d", i))
		s.del(t, e, fmt.Sprintf("a%05d", i*10+1))
	}
	s.delRange(t, e, "a00500", "a00600")
	s.put(t, e, "a00555", "inside")
	flush(t, e)
	s.put(t, e, "blob/1", strings.Repeat("newer one ", 3000))
	s.delRange(t, e, "a01000", "a01100")
	s.del(t, e, "a02002")
	for i := range 300 {
		s.put(t, e, fmt.Sprintf("b%05d", i), fmt.Sprintf("third %d", i))
	}
	flush(t, e)
	for i := range 200 {
		s.put(t, e, fmt.Sprintf("c%05d", i), fmt.Sprintf("log %d %s", i, strings.Repeat("y", 100)))
	}
	s.put(t, e, "a00002", "from the log")
	s.del(t, e, "a00003")
	s.delRange(t, e, "a02500", "a02600")
	s.put(t, e, "blob/3", strings.Repeat("large three ", 3000))
	// A checkpoint has no log below L3's watermark, so that what L3 lost is lost.
	s.dir = filepath.Join(t.TempDir(), "store")
	require.NoError(t, e.Checkpoint(context.Background(), s.dir))
	require.NoError(t, e.Close())
	return s
}

// files are those of the store that match, the largest first.
func (s *wreckage) files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, pattern))
	require.NoError(t, err)
	require.NotEmpty(t, found, pattern)
	size := func(f string) int64 {
		i, err := os.Stat(f)
		require.NoError(t, err)
		return i.Size()
	}
	slices.SortFunc(found, func(a, b string) int { return int(size(b) - size(a)) })
	return found
}

func (s *wreckage) flip(t *testing.T, file string, share float64) {
	t.Helper()
	i, err := os.Stat(file)
	require.NoError(t, err)
	flipByte(t, file, int64(share*float64(i.Size())))
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		m[p] = string(b)
		return err
	}))
	return m
}

// salvage rescues the store and proves what must always be true. It returns the
// report and the keys that are missing.
func (s *wreckage) salvage(t *testing.T) (SalvageReport, []string) {
	t.Helper()
	maxListed = 1 << 20
	t.Cleanup(func() { maxListed = MaxListed })
	before := contents(t, s.dir)
	dst := filepath.Join(t.TempDir(), "rescued")
	r, err := Salvage(context.Background(), s.dir, dst, small(Options{}), nil)
	require.NoError(t, err)
	require.Equal(t, before, contents(t, s.dir), "the damaged store was changed")
	for _, l := range r.Lost {
		t.Log(l, l.Err)
	}
	survey, err := Survey(context.Background(), s.dir, small(Options{}), nil)
	require.NoError(t, err)
	survey.Took, r.Took = 0, 0
	require.Equal(t, fmt.Sprint(survey), fmt.Sprint(r), "a survey foretells the salvage")

	doubtful := map[string]bool{}
	for _, d := range r.Doubtful {
		doubtful[string(d.Key)] = true
	}
	e, err := Open(dst, small(Options{}))
	require.NoError(t, err)
	require.NoError(t, e.Check(context.Background()))
	var keys, bytes int64
	for item, err := range e.Scan(Range{}) {
		require.NoError(t, err)
		v, err := item.Value()
		require.NoError(t, err)
		k := string(item.Key())
		keys++
		bytes += int64(len(v))
		switch want, ok := s.want[k]; {
		case doubtful[k]:
		case !ok:
			t.Errorf("deleted key %s is back, and not doubtful", k)
		case want != string(v):
			t.Errorf("%s is %.40q, should be %.40q", k, v, want)
		}
	}
	require.Equal(t, r.Keys, keys)
	require.Equal(t, r.Bytes, bytes)
	var missing []string
	for _, k := range slices.Sorted(maps.Keys(s.want)) {
		if _, err := e.Get([]byte(k)); errors.Is(err, ErrNotFound) {
			missing = append(missing, k)
		} else {
			require.NoError(t, err)
		}
	}
	// It is a store like any other.
	require.NoError(t, e.Put([]byte("after"), []byte("v")))
	require.NoError(t, e.Close())
	e, err = Open(dst, small(Options{}))
	require.NoError(t, err)
	require.Equal(t, "v", get(t, e, "after"))
	i, err := e.Stat([]byte("after"))
	require.NoError(t, err)
	require.Greater(t, i.Revision, r.LSN)
	require.NoError(t, e.Close())
	return r, missing
}

func eachWreckage(t *testing.T, f func(t *testing.T, s *wreckage)) {
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprintf("compacted=%t", compact), func(t *testing.T) { f(t, newWreckage(t, compact)) })
	}
}

// whole wants everything, without doubt.
func whole(t *testing.T, r SalvageReport, missing []string) {
	t.Helper()
	require.Empty(t, len(missing), "%.200q", missing)
	require.Empty(t, len(r.Doubtful), "%.2000v", r.Doubtful)
}

// Goal: a sound store comes out as it was, without a loss.
func TestSalvage_sound(t *testing.T) {
	eachWreckage(t, func(t *testing.T, s *wreckage) {
		r, missing := s.salvage(t)
		require.Empty(t, r.Lost)
		whole(t, r, missing)
		require.True(t, r.Exact)
		require.EqualValues(t, 3, r.Large)
	})
}

// Goal: without STATE, or with one of its slots, or with noise in its place, nothing is
// lost but the promise.
func TestSalvage_state(t *testing.T) {
	eachWreckage(t, func(t *testing.T, s *wreckage) {
		name := filepath.Join(s.dir, "STATE")
		whole2 := func(lost int) {
			t.Helper()
			r, missing := s.salvage(t)
			whole(t, r, missing)
			require.Len(t, r.Lost, lost)
			require.True(t, r.Exact)
		}
		flipByte(t, name, 100)
		whole2(0)
		flipByte(t, name, 4096+100)
		whole2(1)
		require.NoError(t, os.WriteFile(name, []byte(strings.Repeat("noise", 2000)), 0o644))
		whole2(1)
		require.NoError(t, os.Remove(name))
		whole2(1)
		require.NoError(t, os.Remove(filepath.Join(s.dir, "LOCK")))
		whole2(1)
	})
}

// Goal: damage in the log costs its own commits, and they are named.
func TestSalvage_log(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, s *wreckage){
		"flip": func(t *testing.T, s *wreckage) {
			file, off := s.logged(t, "c00100")
			flipByte(t, file, off)
		},
		"segment missing": func(t *testing.T, s *wreckage) {
			file, _ := s.logged(t, "c00100")
			require.NoError(t, os.Remove(file))
		},
		"all missing": func(t *testing.T, s *wreckage) { require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "log"))) },
		"flip, no state": func(t *testing.T, s *wreckage) {
			file, off := s.logged(t, "c00100")
			flipByte(t, file, off)
			require.NoError(t, os.Remove(filepath.Join(s.dir, "STATE")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWreckage(t, false)
			damage(t, s)
			// What only the log had may be out of date now, and its deletes undone.
			old := map[string]string{"a00002": "first 2 " + strings.Repeat("x", 60), "a00003": "first 3 " + strings.Repeat("x", 60)}
			for i := 2500; i < 2600; i++ {
				k := fmt.Sprintf("a%05d", i)
				if s.gone[k] {
					old[k] = fmt.Sprintf("first %d %s", i, strings.Repeat("x", 60))
					if i%10 == 0 {
						old[k] = fmt.Sprintf("second %d", i/10)
					}
				}
			}
			for k, v := range old {
				s.want[k] = v
			}
			want := s.want
			s.want = map[string]string{}
			maps.Copy(s.want, want)
			r, missing := s.salvageLog(t, old)
			require.NotEmpty(t, r.Lost)
			for _, k := range missing {
				require.True(t, k[0] == 'c' || k == "blob/3" || old[k] != "", k)
			}
		})
	}
}

// logged finds a key in the log.
func (s *wreckage) logged(t *testing.T, key string) (file string, off int64) {
	t.Helper()
	for _, f := range s.files(t, "log/*.wal") {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		if i := strings.Index(string(b), key); i >= 0 {
			return f, int64(i)
		}
	}
	t.Fatalf("%s is not in the log", key)
	return "", 0
}

// salvageLog is salvage where each key of old may be as it was before the log, or as
// the log has it.
func (s *wreckage) salvageLog(t *testing.T, old map[string]string) (SalvageReport, []string) {
	dst := filepath.Join(t.TempDir(), "rescued")
	r, err := Salvage(context.Background(), s.dir, dst, small(Options{}), nil)
	require.NoError(t, err)
	var lost uint64
	for _, l := range r.Lost {
		t.Log(l, l.Err)
		if l.LastLSN >= l.FirstLSN && l.FirstLSN > 0 {
			lost += l.LastLSN - l.FirstLSN + 1
		}
	}
	e, err := Open(dst, small(Options{}))
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Check(context.Background()))
	var missing []string
	for k, v := range s.want {
		got := get(t, e, k)
		switch {
		case got == v:
		case got == "∅":
			missing = append(missing, k)
		case k == "a00002" && got == "from the log":
		default:
			t.Errorf("%s is %.40q, should be %.40q", k, got, v)
		}
	}
	for item, err := range e.Scan(Range{}) {
		require.NoError(t, err)
		require.Contains(t, s.want, string(item.Key()))
	}
	t.Logf("%d commits named lost, %d keys missing", lost, len(missing))
	require.Positive(t, lost, "commits that are lost are named")
	return r, missing
}

// Goal: what is lost of L3 costs the keys of the lost blocks and no other, whatever of
// a table is hit; keys that something lost may have overwritten are doubtful.
func TestSalvage_tables(t *testing.T) {
	eachWreckage(t, func(t *testing.T, s *wreckage) {
		for n, table := range s.files(t, "l3/*.sst") {
			clean, err := os.ReadFile(table)
			require.NoError(t, err)
			shares := []float64{0, 0.35, 0.8, 0.95, 0.98, 0.999}
			if n > 1 || testing.Short() { // the small ones hold little but the watermark
				shares = []float64{0.35}
			}
			for _, share := range shares {
				t.Run(fmt.Sprintf("%d/%v", n, share), func(t *testing.T) {
					s.flip(t, table, share)
					r, missing := s.salvage(t)
					s.explained(t, r, missing)
					require.NoError(t, os.WriteFile(table, clean, 0o644))
				})
			}
			t.Run(fmt.Sprintf("%d/cut", n), func(t *testing.T) {
				require.NoError(t, os.WriteFile(table, clean[:len(clean)*2/3], 0o644))
				r, missing := s.salvage(t)
				s.explained(t, r, missing)
			})
			t.Run(fmt.Sprintf("%d/missing", n), func(t *testing.T) {
				require.NoError(t, os.Remove(table))
				r, missing := s.salvage(t)
				s.explained(t, r, missing)
				require.NotEmpty(t, r.Lost)
			})
			require.NoError(t, os.WriteFile(table, clean, 0o644))
		}
	})
}

// explained wants every missing key to lie in something that is reported.
func (s *wreckage) explained(t *testing.T, r SalvageReport, missing []string) {
	t.Helper()
	why := map[string]int{}
	for _, d := range r.Doubtful {
		why[d.Why]++
	}
	t.Logf("%d missing, %d doubtful of %d: %v", len(missing), r.DoubtfulCount, len(s.want), why)
	for _, k := range missing {
		ok := slices.ContainsFunc(r.Lost, func(l SalvageLoss) bool {
			return string(l.Key) == k && l.Key != nil ||
				l.Ranged && k >= string(l.Lower) && (l.Upper == nil || k <= string(l.Upper))
		})
		require.True(t, ok, "%s is missing, and no loss says so", k)
	}
}

// Goal: without what Pebble needs to open, but with a manifest, nothing is lost; without
// a manifest that fits, tables are read by themselves, and the same comes out.
func TestSalvage_manifest(t *testing.T) {
	remove := func(pattern string) func(*testing.T, *wreckage) {
		return func(t *testing.T, s *wreckage) {
			for _, f := range s.files(t, pattern) {
				require.NoError(t, os.Remove(f))
			}
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, s *wreckage)
		exact  bool
	}{
		"markers":  {remove("l3/marker.*"), true},
		"options":  {remove("l3/OPTIONS-*"), true},
		"manifest": {remove("l3/MANIFEST-*"), false},
		"flipped": {func(t *testing.T, s *wreckage) {
			s.flip(t, s.files(t, "l3/MANIFEST-*")[0], 0.3)
		}, false},
		"stale": {func(t *testing.T, s *wreckage) {
			require.NoError(t, os.WriteFile(s.files(t, "l3/MANIFEST-*")[0], s.old, 0o644))
		}, false},
		"stale, no state": {func(t *testing.T, s *wreckage) {
			require.NoError(t, os.WriteFile(s.files(t, "l3/MANIFEST-*")[0], s.old, 0o644))
			require.NoError(t, os.Remove(filepath.Join(s.dir, "STATE")))
		}, false},
		"cut": {func(t *testing.T, s *wreckage) {
			f := s.files(t, "l3/MANIFEST-*")[0]
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(f, b[:len(b)/2], 0o644))
		}, false},
		"cut, no state": {func(t *testing.T, s *wreckage) {
			f := s.files(t, "l3/MANIFEST-*")[0]
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(f, b[:len(b)/2], 0o644))
			require.NoError(t, os.Remove(filepath.Join(s.dir, "STATE")))
		}, false},
		"nothing but tables": {func(t *testing.T, s *wreckage) {
			for _, p := range []string{"l3/MANIFEST-*", "l3/OPTIONS-*", "l3/marker.*", "STATE"} {
				remove(p)(t, s)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			eachWreckage(t, func(t *testing.T, s *wreckage) {
				c.damage(t, s)
				r, missing := s.salvage(t)
				whole(t, r, missing)
				require.Equal(t, c.exact, r.Exact)
				require.Equal(t, c.exact, len(r.Lost) == 0, "%v", r.Lost)
			})
		})
	}
}

// Goal: a rotten or missing pack costs its own values, each named by its key, and no
// older value stands in for one.
func TestSalvage_packs(t *testing.T) {
	s := newWreckage(t, false)
	pack := s.files(t, "packs/*.pack")[0]
	clean, err := os.ReadFile(pack)
	require.NoError(t, err)
	for share := 0.01; share < 1; share += 0.13 {
		s.flip(t, pack, share)
		r, missing := s.salvage(t)
		s.explained(t, r, missing)
		require.Len(t, r.Lost, len(missing))
		for _, l := range r.Lost {
			require.Equal(t, pack, l.File)
			require.NotEmpty(t, l.Key)
		}
		require.NoError(t, os.WriteFile(pack, clean, 0o644))
	}
	require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "packs")))
	r, missing := s.salvage(t)
	require.Equal(t, []string{"blob/1", "blob/2", "blob/3"}, missing)
	s.explained(t, r, missing)
	require.EqualValues(t, 3, r.LostCount)
}

// Goal: L3 gone altogether, and the log with what it has above: everything in the log
// comes out.
func TestSalvage_onlyLog(t *testing.T) {
	s := newWreckage(t, false)
	require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "l3")))
	r, missing := s.salvage(t)
	s.explained(t, r, missing)
	require.Less(t, len(missing), len(s.want)-200)
}

// Goal: every file damaged at once still gives what is left, and never a wrong value.
func TestSalvage_everything(t *testing.T) {
	eachWreckage(t, func(t *testing.T, s *wreckage) {
		for _, table := range s.files(t, "l3/*.sst") {
			s.flip(t, table, 0.5)
		}
		s.flip(t, s.files(t, "l3/MANIFEST-*")[0], 0.5)
		s.flip(t, s.files(t, "packs/*.pack")[0], 0.4)
		require.NoError(t, os.Remove(filepath.Join(s.dir, "STATE")))
		r, missing := s.salvage(t)
		s.explained(t, r, missing)
		require.Greater(t, len(s.want)-len(missing), 1000)
	})
}

// Goal: tables that had been replaced and are still there bring no old value back, and
// no deleted key that is not doubtful, though no manifest tells them from the others.
func TestSalvage_replacedTables(t *testing.T) {
	s := &wreckage{dir: t.TempDir(), want: map[string]string{}, gone: map[string]bool{}}
	old := t.TempDir()
	keep := func() {
		tables, err := filepath.Glob(filepath.Join(s.dir, "l3", "*.sst"))
		require.NoError(t, err)
		for _, f := range tables {
			_ = os.Link(f, filepath.Join(old, filepath.Base(f)))
		}
	}
	e, err := Open(s.dir, small(Options{Sync: SyncNever}))
	require.NoError(t, err)
	for round := range 5 {
		for i := range 400 {
			if i%5 == round || round == 0 {
				s.put(t, e, fmt.Sprintf("k%04d", i), fmt.Sprintf("round %d of %d %s", round, i, strings.Repeat("z", 50)))
			}
			if round > 0 && i%17 == round {
				s.del(t, e, fmt.Sprintf("k%04d", i))
			}
		}
		if round == 3 {
			s.delRange(t, e, "k0100", "k0120")
		}
		flush(t, e)
		keep()
		if round%2 == 1 {
			require.NoError(t, e.Compact(context.Background()))
			keep()
		}
	}
	for i := range 10 { // a flush of deletes only
		s.del(t, e, fmt.Sprintf("k%04d", 300+i))
	}
	flush(t, e)
	keep()
	require.NoError(t, e.Close())
	live, err := filepath.Glob(filepath.Join(s.dir, "l3", "*.sst"))
	require.NoError(t, err)
	all, err := filepath.Glob(filepath.Join(old, "*.sst"))
	require.NoError(t, err)
	require.Greater(t, len(all), len(live))
	for _, f := range all {
		_ = os.Link(f, filepath.Join(s.dir, "l3", filepath.Base(f)))
	}
	r, missing := s.salvage(t) // with the manifest they are not looked at
	whole(t, r, missing)
	require.Empty(t, r.Lost)
	for _, f := range s.files(t, "l3/MANIFEST-*") {
		require.NoError(t, os.Remove(f))
	}
	require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "log")))
	r, missing = s.salvage(t)
	require.Empty(t, missing)
	t.Logf("all tables: %d doubtful", r.DoubtfulCount)
	for n := range len(all) { // one of the old tables is gone
		gone := filepath.Join(s.dir, "l3", filepath.Base(all[n]))
		if slices.Contains(live, gone) {
			continue
		}
		require.NoError(t, os.Remove(gone))
		r, missing = s.salvage(t)
		require.Empty(t, missing)
		t.Logf("without %s: %d doubtful", filepath.Base(gone), r.DoubtfulCount)
		require.NoError(t, os.Link(all[n], gone))
	}
}

// Goal: a log far above the memory budget is merged from sorted runs, with the order of
// its deletes.
func TestSalvage_longLog(t *testing.T) {
	s := &wreckage{dir: t.TempDir(), want: map[string]string{}, gone: map[string]bool{}}
	o := small(Options{Sync: SyncNever})
	o.MemoryBudget = 256 << 20
	e, err := Open(s.dir, o)
	require.NoError(t, err)
	b := e.NewBatch()
	for round := range 4 {
		for i := range 8000 {
			k, v := fmt.Sprintf("k%05d", i), fmt.Sprintf("round %d of %d %s", round, i, strings.Repeat("w", 200))
			switch {
			case i%4 == round, round == 0:
				require.NoError(t, b.Put([]byte(k), []byte(v)))
				s.want[k] = v
				delete(s.gone, k)
			case i%11 == round:
				require.NoError(t, b.Delete([]byte(k)))
				s.gone[k] = true
				delete(s.want, k)
			}
			if b.Len() >= 100 {
				_, err := e.Apply(b)
				require.NoError(t, err)
				b.Reset()
			}
		}
		_, err := e.Apply(b)
		require.NoError(t, err)
		b.Reset()
		s.delRange(t, e, fmt.Sprintf("k%05d", 1000*round), fmt.Sprintf("k%05d", 1000*round+300))
	}
	b.Close()
	require.NoError(t, e.Close())
	w, err := newWreck(context.Background(), s.dir, small(Options{}), nil)
	require.NoError(t, err)
	_, err = w.run(func() (sink, error) { return newRescue(w, filepath.Join(t.TempDir(), "runs")) })
	require.NoError(t, err)
	require.Greater(t, len(w.runs), 1, "the log fits into one generation: the test shows nothing")
	r, missing := s.salvage(t)
	whole(t, r, missing)
	require.Empty(t, r.Lost)
}

// Goal: what cannot be salvaged is a typed error, and leaves nothing behind.
func TestSalvage_refused(t *testing.T) {
	ctx := context.Background()
	s := newWreckage(t, false)
	dst := filepath.Join(t.TempDir(), "deep", "rescued")
	refused := func(dir, dst string, want error) {
		t.Helper()
		_, err := Salvage(ctx, dir, dst, small(Options{}), nil)
		require.ErrorIs(t, err, want)
	}
	empty, full := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "thesis.tex"), []byte("x"), 0o644))
	refused(filepath.Join(empty, "none"), dst, os.ErrNotExist)
	refused(empty, dst, os.ErrNotExist)
	refused(full, dst, os.ErrNotExist)
	refused(s.dir, full, os.ErrExist)
	refused(s.dir, filepath.Join(full, "thesis.tex"), os.ErrExist)
	refused(s.dir, filepath.Join(s.dir, "inside"), ErrOptions)
	e := open(t, s.dir, Options{})
	refused(s.dir, dst, ErrLocked)
	require.NoError(t, e.Close())
	require.NoDirExists(t, filepath.Dir(dst))

	ended, end := context.WithCancel(ctx)
	end()
	_, err := Salvage(ended, s.dir, dst, small(Options{}), nil)
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, dst)
	for _, to := range []string{dst, empty} {
		broken, breakOff := context.WithCancel(ctx)
		_, err = Salvage(broken, s.dir, to, small(Options{}), func(p SalvageProgress) {
			if p.Phase == "copying" {
				breakOff()
			}
		})
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoDirExists(t, dst)
	left, err := os.ReadDir(empty)
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = Salvage(ctx, s.dir, empty, small(Options{}), func(p SalvageProgress) { panicIf(p.Done > p.Total) })
	require.NoError(t, err, "an empty directory is as good as none")

	for _, f := range s.files(t, "*/*") { // noise in every file
		i, err := os.Stat(f)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(f, []byte(strings.Repeat("\xa5", int(i.Size()))), 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "STATE"), []byte(strings.Repeat("\xa5", 8192)), 0o644))
	_, err = Salvage(ctx, s.dir, dst, small(Options{}), nil)
	require.True(t, errors.Is(err, ErrNothingLeft) || errors.Is(err, ErrForeign), "%v", err)
	require.NoDirExists(t, dst)
}

func panicIf(bad bool) {
	if bad {
		panic("more was done than there is")
	}
}

// Goal: a log that still has old records, and lost later ones that L3 has, turns
// nothing back: neither a value nor a delete.
func TestSalvage_oldLog(t *testing.T) {
	s := &wreckage{dir: t.TempDir(), want: map[string]string{}, gone: map[string]bool{}}
	e, err := Open(s.dir, small(Options{}))
	require.NoError(t, err)
	for _, k := range []string{"changed", "deleted", "ranged"} {
		s.put(t, e, k, "old")
	}
	s.put(t, e, "changed", "new")
	s.del(t, e, "deleted")
	s.put(t, e, "marked-for-damage", "1")
	s.delRange(t, e, "r", "s")
	flush(t, e)
	for i := range 50 { // each a frame of its own
		s.put(t, e, fmt.Sprintf("c%02d", i), "v")
	}
	require.NoError(t, e.Close())
	file, off := s.logged(t, "marked-for-damage")
	for _, from := range []int64{0, -150} { // a frame before it, too
		flipByte(t, file, off+from)
		r, missing := s.salvage(t)
		whole(t, r, missing)
		require.Empty(t, r.Lost, "L3 has what the log lost")
	}
	file, off = s.logged(t, "c25")
	flipByte(t, file, off)
	i := len(s.want)
	r, missing := s.salvage(t)
	require.Equal(t, []string{"c25"}, missing)
	require.EqualValues(t, i-1, r.Keys)
	require.Len(t, r.Lost, 1)
	require.Equal(t, file, r.Lost[0].File)
	require.Equal(t, r.Lost[0].FirstLSN, r.Lost[0].LastLSN)
}
