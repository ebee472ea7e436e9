package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// start is a disk that a workload begins on, and what is on it.
type start struct {
	disk    *simfs.Cut
	config  simfs.CrashConfig
	history *oracle.History
	commits int
	model   oracle.Model
}

var diskOptions = simfs.Options{TraceLen: 6000}

// prepare makes the disk of a workload once; every run then gets a copy.
func (wl *workload) prepare() (*start, error) {
	disk := simfs.New(&diskOptions)
	h := oracle.NewHistory(1)
	s := &start{disk: disk.Cut(), history: h, model: oracle.NewModel()}
	if wl.before == nil {
		return s, nil
	}
	w := &world{disk: disk, opt: wl.options(), history: h, lane: h.Lanes()[0], model: s.model}
	if err := wl.before(w); err != nil {
		return nil, err
	}
	s.disk = disk.Cut()
	if err := w.e.Close(); err != nil {
		return nil, err
	}
	s.config = simfs.CrashConfig{Image: simfs.Everything}
	if wl.torn {
		s.config = simfs.CrashConfig{Seed: 3, Image: simfs.Random}
	}
	// What the log holds is known after one recovery of a copy.
	w.disk, w.doubt = s.disk.Image(s.config), false
	if err := w.open(); err != nil {
		return nil, err
	}
	n, err := w.lane.Survived(fuzz.Store{R: w.e})
	s.commits = n
	if _, _, rerr := h.Rewind(fuzz.Store{R: w.e}); rerr != nil {
		err = errors.Join(err, rerr)
	}
	_, m := w.lane.Next()
	if n > 0 {
		m.Put(w.lane.Counter(), fmt.Sprint(n))
	} else {
		m.Delete(w.lane.Counter())
	}
	s.model = m
	return s, errors.Join(err, w.e.Close())
}

// counter is a store of which only the lane's counter is known.
type counter struct {
	oracle.Store
	n int
}

func (c counter) Get(string) ([]byte, bool, error) { return fmt.Append(nil, c.n), c.n > 0, nil }

// try is one workload under one rule.
type try struct {
	wl     *workload
	start  *start
	kind   Kind
	sticky bool
	rule   simfs.Rule
	image  simfs.CrashConfig // of the power cut at the end
	twice  bool              // cut the power again after the reopen
	counts runner.Counts
}

// run runs the workload under the rule, and judges what is left. fired tells whether
// the rule had any effect.
func (t *try) run() (fired bool, cover []simfs.Coverage, err error) {
	disk := t.start.disk.Image(t.start.config)
	h := t.start.history
	if _, _, err := h.Rewind(counter{n: t.start.commits}); err != nil {
		return false, nil, err
	}
	w := &world{
		kind: t.kind, sticky: t.sticky, disk: disk, opt: t.wl.options(),
		history: h, lane: h.Lanes()[0], model: t.start.model.Copy(), whole: true,
	}
	w.fault = disk.Inject(t.rule)
	err = t.wl.run(w)
	if errors.Is(err, errOver) {
		err = nil
	}
	if w.e != nil {
		err = errors.Join(err, w.close())
	}
	fired = w.fault.Fired() > 0
	t.counts["faults"] += int64(w.fault.Fired())
	t.counts["runs"]++
	if err == nil {
		err = t.honest(w)
	}
	w.fault.Remove()
	cover = disk.Coverage()
	if err == nil {
		err = t.judge(w)
	}
	if err != nil {
		err = fmt.Errorf("%s, %s at call %d (sticky %v): %w\n%s", t.wl.name, t.kind.Name, t.rule.Nth, t.sticky, err, struck(disk))
	}
	return fired, cover, err
}

// struck lists the calls that went wrong.
func struck(disk *simfs.FS) string {
	var lines []string
	for _, e := range disk.Events() {
		if e.Injected && len(lines) < 5 {
			lines = append(lines, e.String())
		}
	}
	return strings.Join(lines, "\n")
}

// honest: a sync of the log or of a pack that failed is something that some call, or
// the state of the store, has told (F4).
func (t *try) honest(w *world) error {
	mattered := 0
	for _, e := range w.disk.Events() {
		// A table that was not synced is made again; a spare that was not is no
		// segment yet, and is not synced by this call.
		if e.Injected && e.Err != nil && e.Op == simfs.OpSyncData && !strings.HasPrefix(e.Path, storeDir+"/l3") {
			mattered++
		}
	}
	return oracle.Honest(mattered, w.reported, "syncs of data")
}

// judge opens the disk after a power cut and as it is (F5).
func (t *try) judge(w *world) error {
	durable := func(lsn uint64) bool { return lsn <= w.durable }
	acked := w.history.Promised(nil)
	if t.wl.sync == engine.SyncNever && !w.whole {
		acked = w.history.Promised(durable) // what was in the log's buffer went with the process
	}
	cut := acked
	if t.wl.sync != engine.SyncAlways && !w.whole {
		cut = w.history.Promised(durable)
	}
	if t.start.commits > 0 {
		acked.Least[0], cut.Least[0] = max(acked.Least[0], t.start.commits), max(cut.Least[0], t.start.commits)
	}
	if w.nameless {
		t.twice = false
	} else if err := t.reopen(w, w.disk.Crash(t.image), cut, false); err != nil {
		return fmt.Errorf("after a power cut, %v: %w", t.image.Image, err)
	}
	if err := t.reopen(w, w.disk, acked, true); err != nil {
		return fmt.Errorf("after a restart: %w", err)
	}
	return t.files(w.disk)
}

// reopen recovers in peace, checks what comes up, and writes on.
func (t *try) reopen(w *world, disk *simfs.FS, p oracle.Promise, last bool) error {
	t.counts["recoveries"]++
	o := w.opt
	o.FS = disk
	ctx, cancel := w.context()
	defer cancel()
	e, err := engine.Open(storeDir, &o)
	if err != nil {
		return oracle.Broken(oracle.Lost, "", 0, "open: %w", err)
	}
	s := fuzz.Store{R: e}
	err = w.history.Check(s, p, e.Recovered().LSN)
	if err == nil {
		err = e.Check(ctx)
	}
	if err == nil && last && t.twice {
		err = t.again(w, disk, s)
	}
	if err == nil && last {
		err = errors.Join(e.Put([]byte("z/after"), []byte(strings.Repeat("after ", 900))), e.Flush(ctx), e.Check(ctx))
	}
	return errors.Join(err, e.Close())
}

// again: what a restart has shown survives a power cut that comes after it, whatever
// the sync before it lost.
func (t *try) again(w *world, disk *simfs.FS, s fuzz.Store) error {
	p := w.history.Promised(nil)
	if err := w.history.Shown(s, &p); err != nil {
		return err
	}
	t.counts["cuts"]++
	o := w.opt
	o.FS = disk.Crash(simfs.CrashConfig{Image: simfs.Nothing})
	e, err := engine.Open(storeDir, &o)
	if err != nil {
		return oracle.Broken(oracle.Unstable, "", 0, "open after a cut after a restart: %w", err)
	}
	return errors.Join(w.history.Check(fuzz.Store{R: e}, p, 0), e.Check(context.Background()), e.Close())
}

// documented are the names that a store that was opened and closed in peace may have.
var documented = []*regexp.Regexp{
	regexp.MustCompile(`^(LOCK|STATE|log|l3|l3-staging|packs)$`),
	regexp.MustCompile(`^log/\d{20}\.wal$`),
	regexp.MustCompile(`^packs/\d{20}\.pack$`),
	regexp.MustCompile(`^l3/(LOCK|MANIFEST-\d+|OPTIONS-\d+|\d+\.sst|\d+\.log|marker\.[a-z-]+\.\d+\..+)$`),
}

// files looks for what should not be there.
func (t *try) files(disk *simfs.FS) error {
	tree, err := simfs.ReadTree(disk, storeDir, nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	manifests := 0
	for _, p := range tree.Paths() {
		name := strings.TrimPrefix(strings.TrimPrefix(path.Clean(p), storeDir), "/")
		if strings.HasPrefix(name, "l3/MANIFEST") {
			manifests++
		}
		if !slices.ContainsFunc(documented, func(r *regexp.Regexp) bool { return r.MatchString(name) }) {
			return oracle.Broken(oracle.Leaked, "", 0, "the file %s", name)
		}
	}
	if manifests > 2 { // the current one and the one before
		return oracle.Broken(oracle.Leaked, "", 0, "%d manifests", manifests)
	}
	return nil
}
