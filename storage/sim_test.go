package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// simStore is an L3 in three generations, closed, on a disk that fails on demand.
func simStore(t *testing.T) (*simfs.FS, history) {
	t.Helper()
	hist := newHistory(77, 5)
	fs := simfs.New(nil)
	s, err := Open(testOptions(fs))
	require.NoError(t, err)
	for i, ops := range hist.gens[:3] {
		mustIngest(t, s, uint64(i+1), ops)
	}
	require.NoError(t, s.Close())
	return fs, hist
}

// inTime fails the test, with every goroutine's place, if f hangs.
func inTime(what string, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		panic("hang: " + what)
	}
}

// Goal: whichever call of a life fails, reads included, the error has its cause in it
// and is not called corruption, since every byte on the disk is right; no answer is
// wrong; Close returns; and a reopen shows a known state with all that was
// acknowledged.
func TestStore_anyCallFails(t *testing.T) {
	base, hist := simStore(t)
	image := base.Cut()
	step := 2 // TestStore_faultSweep has every change
	if testing.Short() || raceEnabled {
		step = 9
	}
	for nth := 1; ; nth += step {
		fs := image.Image(simfs.CrashConfig{Image: simfs.Everything})
		at := fmt.Sprintf("call %d", nth)
		fault := fs.Inject(simfs.FailOnce(0, "", nth, syscall.EIO))
		var acked uint64
		inTime(at, func() { acked = simLife(t, fs, hist, fault, at) })
		fired := fault.Fired() > 0
		fault.Remove()
		hist.verify(t, fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}), acked, at+", power cut")
		hist.verify(t, fs, acked, at)
		if t.Failed() {
			t.Fatal(fs.Trace())
		}
		if !fired {
			t.Logf("%d calls", nth)
			return
		}
	}
}

// simLife uses a store in every way there is, and returns what was acknowledged.
func simLife(t *testing.T, fs *simfs.FS, hist history, fault *simfs.Fault, at string) (acked uint64) {
	acked = 3
	right := func(what string, err error) bool {
		if err == nil {
			return true
		}
		if errors.Is(err, ErrCorrupt) || !errors.Is(err, syscall.EIO) && !errors.Is(err, ErrDegraded) {
			t.Errorf("%s: %s: %v", at, what, err)
		}
		if fault.Fired() == 0 {
			t.Errorf("%s: %s without a fault: %v", at, what, err)
		}
		return false
	}
	s, err := Open(testOptions(fs))
	if !right("open", err) {
		return acked
	}
	reads := func(what string) {
		sn := s.Current()
		defer sn.Release()
		want := hist.states[acked]
		if got, err := dump(sn); right(what+": scan", err) && len(got) != len(want) {
			t.Errorf("%s: %s: %d keys, want %d", at, what, len(got), len(want))
		}
		for k, v := range want {
			got, found, err := sn.Get(nil, []byte(k))
			if right(what+": get", err) && (!found || string(got) != v) {
				t.Errorf("%s: %s: %q is %q, %t", at, what, k, got, found)
			}
			break
		}
	}
	reads("as opened")
	for i := 3; i < len(hist.gens); i++ {
		lsn := uint64(i + 1)
		err := ingest(s, lsn, hist.gens[i])
		if !right("ingest", err) && s.Err() == nil {
			err = ingest(s, lsn, hist.gens[i]) // the fault is over
			if err != nil {
				t.Errorf("%s: ingest again: %v", at, err)
			}
		}
		if err != nil {
			break
		}
		acked = lsn
		reads(fmt.Sprint("after ingest ", lsn))
	}
	right("check", s.Check(context.Background()))
	w, err := s.Checkpoint("copy")
	if right("checkpoint", err) && w.LSN != acked {
		t.Errorf("%s: checkpoint at %d, want %d", at, w.LSN, acked)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	right("compact", s.Compact(ctx))
	reads("at the end")
	right("close", s.Close())
	return acked
}

// Goal: whichever call on a table being built fails, the ingest says so at once or at
// Commit, nothing of it shows, the staging folder is empty again, and the same
// operations go in at the next try. The lists begin and continue with each kind.
func TestIngest_stagingFaults(t *testing.T) {
	big := strings.Repeat("v", 300<<10)
	lists := map[string][]op{
		"range":            {{'r', "a", "c"}},
		"ranges":           {{'r', "a", "c"}, {'r', "d", "f"}, {'r', "g", "i"}},
		"points":           {{'s', "a", "1"}, {'d', "b", ""}},
		"large":            append(sets(20, "k%02d", big), op{'r', "l", "m"}),
		"large and ranges": {{'s', "b", big}, {'r', "c", "g"}, {'s', "d", big}, {'r', "h", "j"}, {'s', "k", big}},
	}
	for name, ops := range lists {
		t.Run(name, func(t *testing.T) {
			step := 1
			if len(ops) > 10 {
				step = 5 // megabytes each
			}
			for nth, passed := 1, false; !passed; nth += step {
				fs := simfs.New(nil)
				s := mustOpen(t, testOptions(fs))
				mustIngest(t, s, 1, sets(1, "old%d", "v"))
				fault := fs.Inject(simfs.FailFrom(0, "store/l3-staging/*.sst", nth, syscall.ENOSPC))
				err := ingest(s, 2, ops)
				passed = fault.Fired() == 0
				fault.Remove()
				if passed {
					require.NoError(t, err)
					break
				}
				// Links of finished tables fall on the folder, too: then L3 may have them.
				if err != nil {
					require.ErrorIs(t, err, ErrDiskFull, "call %d", nth)
					require.NoError(t, s.Err(), "call %d", nth)
					require.Equal(t, model{"old0": "v"}, dumpStore(t, s), "call %d", nth)
					mustIngest(t, s, 2, ops)
				}
				want := model{"old0": "v"}
				want.apply(ops)
				require.Equal(t, want, dumpStore(t, s), "call %d", nth)
				require.NoError(t, s.Check(context.Background()))
				require.NoError(t, s.Close())
			}
		})
	}
}

// Goal (S3): an ingest whose tables are finished when the gate closes is not given to
// Pebble, not acknowledged, and not there after a reopen.
func TestIngest_Commit_gateClosesMeanwhile(t *testing.T) {
	fs := simfs.New(nil)
	s := mustOpen(t, testOptions(fs))
	mustIngest(t, s, 1, sets(3, "k%d", "old"))
	cause := errors.New("in the last moment")
	var syncs atomic.Int32 // tables are built side by side
	in, err := s.NewIngest()
	require.NoError(t, err)
	require.NoError(t, feed(in, sets(3, "k%d", "new")))
	for k := 1; k <= 30; k++ {
		fs.OnMutation(fs.Mutations()+k, func() {
			events := fs.Events()
			if e := events[len(events)-1]; e.Op&simfs.OpSyncs != 0 && strings.HasSuffix(e.Path, ".sst") {
				if syncs.Add(1) == 2 { // the table of cells, and the one of our own keys
					s.fs.close(cause)
				}
			}
		})
	}
	_, err = in.Commit(mark(2, nil))
	require.EqualValues(t, 2, syncs.Load())
	require.ErrorIs(t, err, ErrDegraded)
	require.ErrorIs(t, err, cause)
	require.Equal(t, "old", dumpStore(t, s)["k0"])
	_, err = s.NewIngest()
	require.ErrorIs(t, err, ErrDegraded)
	_ = s.Close()
	s = mustOpen(t, testOptions(fs))
	w, _, err := s.Watermark()
	require.NoError(t, err)
	require.EqualValues(t, 1, w.LSN)
	require.Equal(t, "old", dumpStore(t, s)["k0"])
}
