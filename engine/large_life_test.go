package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// largeState is what a store holds after a commit; it is not changed any more.
type largeState map[string][]byte

// largeLife is a seed's history of large values: streamed into shared packs and into packs
// of their own, put, overwritten, deleted, flushed, rewritten and checkpointed, beside
// readers, snapshots and half-written streams that are held across all of it. Before each
// call that changes the disk it takes down the disk and what is promised.
type largeLife struct {
	t    *testing.T
	rnd  *rand.Rand
	disk *simfs.FS
	opts Options
	look func(call int) bool // whether the power is cut at a call

	mu     sync.Mutex   // guards the fields up to the next blank line
	e      *Engine      // nil while there is none to ask what is durable
	states []largeState // states[i] is after commit i
	acked  int
	copies []largeCopy
	cuts   []largeCut
	calls  int
	over   bool

	values []heldValue
	snaps  []heldSnapshot
	writer *heldWriter
	counts struct{ streams, solos, puts, deletes, aborted, held, reopened int }
	done   CollectMetrics
}

// largeCopy is a checkpoint that was acknowledged: it holds the state after a commit from
// least to most.
type largeCopy struct {
	dir         string
	least, most int
}

// largeCut is the disk at a call, and what was promised then.
type largeCut struct {
	cut         *simfs.Cut
	call        int
	op          string
	least, most int
	copies      []largeCopy
}

type heldValue struct {
	v    *Value
	want []byte
}

type heldSnapshot struct {
	s    *Snapshot
	want largeState
}

type heldWriter struct {
	w         *Writer
	key       string
	value     []byte
	written   int
	waitTurns int
}

// largeOptions are those of a seed: each policy and codec, and packs, segments and own packs so
// small that all there is of them comes in half a megabyte.
func largeOptions(seed int64) Options {
	return *small(Options{
		LargeValue: 4 << 10, SegmentBytes: 16 << 10, SpaceAmp: 1.05,
		Sync:      []SyncPolicy{SyncAlways, SyncAlways, SyncInterval, SyncNever}[seed%4],
		SyncEvery: 3 * time.Millisecond, Compression: Compression(seed / 2 % 4),
		packBytes: 512 << 10, soloBytes: 192 << 10,
	})
}

// lastStep of a history, which takes some thousand calls.
const lastStep = 90

// liveLarge plays the history of a seed.
func liveLarge(t *testing.T, seed int64, look func(call int) bool) *largeLife {
	t.Helper()
	l := &largeLife{
		t: t, rnd: rand.New(rand.NewSource(seed)), opts: largeOptions(seed), look: look,
		disk:   simfs.New(&simfs.Options{Seed: uint64(seed), PessimisticRename: seed%2 == 0}),
		states: []largeState{{}},
	}
	l.opts.FS = errorfs.Wrap(l.disk, errorfs.InjectorFunc(l.before))
	e := l.open()
	for step := range lastStep {
		if step == lastStep*2/3 {
			e = l.reopen(e)
		}
		l.step(e, step)
		l.checkHeld()
	}
	l.reopen(e)
	return l
}

// before implements errorfs.Injector.
func (l *largeLife) before(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil
	}
	if l.calls++; !l.look(l.calls) {
		return nil
	}
	// Order: what is promised, then the disk; no commit begins before the lock is free.
	least := l.acked
	if l.e != nil && l.opts.Sync != SyncAlways {
		least = min(least, int(l.e.DurableLSN()))
	}
	l.cuts = append(l.cuts, largeCut{
		cut: l.disk.Cut(), call: l.calls, op: op.Path,
		least: least, most: len(l.states) - 1, copies: slices.Clip(l.copies),
	})
	return nil
}

func (l *largeLife) open() *Engine {
	e, err := Open("/store", &l.opts)
	require.NoError(l.t, err)
	require.EqualValues(l.t, len(l.states)-1, e.Recovered().LSN)
	l.mu.Lock()
	l.e = e
	l.mu.Unlock()
	return e
}

// reopen closes the store with all that is held, looks at it once more, and opens the store
// again.
func (l *largeLife) reopen(e *Engine) *Engine {
	if l.writer != nil {
		l.endWriter(e)
	}
	m := e.Metrics().Collect
	l.done.Removed += m.Removed
	l.done.Rewritten += m.Rewritten
	for _, s := range l.snaps {
		require.NoError(l.t, s.s.Close())
	}
	l.snaps = nil
	require.NoError(l.t, e.Close())
	l.mu.Lock()
	l.e = nil // all that was acknowledged is durable
	l.mu.Unlock()
	l.checkHeld() // they outlive the store
	for _, h := range l.values {
		require.NoError(l.t, h.v.Close())
	}
	l.values = nil
	if l.counts.reopened++; l.counts.reopened == 1 {
		return l.open()
	}
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	return nil
}

// commit makes one commit, which changes what the store holds.
func (l *largeLife) commit(e *Engine, change func(largeState), f func() error) {
	l.t.Helper()
	l.mu.Lock()
	next := maps.Clone(l.states[len(l.states)-1])
	change(next)
	l.states = append(l.states, next)
	n := len(l.states) - 1
	l.mu.Unlock()
	require.NoError(l.t, f())
	require.EqualValues(l.t, n, e.clock.Published(), "a step is a commit")
	l.mu.Lock()
	l.acked = n
	l.mu.Unlock()
}

func (l *largeLife) now() largeState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states[len(l.states)-1]
}

func (l *largeLife) key() string { return fmt.Sprintf("k%d", l.rnd.Intn(7)) }

// value is unlike any other; half of them compress.
func (l *largeLife) value(n int) []byte {
	v := blobValue(l.rnd, n)
	if l.rnd.Intn(2) == 0 {
		unit := fmt.Appendf(nil, "%x, a state of some kind; ", v[:min(n, 8)])
		v = bytes.Repeat(unit, n/len(unit)+1)[:n]
	}
	return v
}

// step does one thing. Streams that get packs of their own are the most frequent.
func (l *largeLife) step(e *Engine, step int) {
	ctx := context.Background()
	if l.writer != nil {
		if l.writer.waitTurns--; l.writer.waitTurns == 0 {
			l.endWriter(e)
		}
	}
	switch pick := l.rnd.Intn(30); {
	case pick < 5: // a stream
		k, v := l.key(), l.value(l.opts.LargeValue+l.rnd.Intn(700<<10))
		l.counts.streams++
		if len(v) >= int(l.opts.soloBytes) {
			l.counts.solos++
		}
		l.commit(e, func(c largeState) { c[k] = v }, func() error {
			w, err := e.Create(ctx, []byte(k))
			if err != nil {
				return err
			}
			if _, err := w.ReadFrom(bytes.NewReader(v)); err != nil {
				return err
			}
			return w.Close()
		})
	case pick < 9: // into a shared pack
		k, v := l.key(), l.value(l.opts.LargeValue+l.rnd.Intn(100<<10))
		l.counts.puts++
		l.commit(e, func(c largeState) { c[k] = v }, func() error { return e.Put([]byte(k), v) })
	case pick < 11: // several, all or nothing
		b := e.NewBatch()
		defer b.Close()
		dies, large, little := l.key(), l.key(), l.key()
		v, s := l.value(l.opts.LargeValue+l.rnd.Intn(50<<10)), l.value(100)
		require.NoError(l.t, errors.Join(b.Delete([]byte(dies)), b.Put([]byte(large), v), b.Put([]byte(little), s)))
		l.commit(e, func(c largeState) { delete(c, dies); c[large], c[little] = v, s }, func() error { _, err := e.Apply(b); return err })
	case pick < 13:
		k := l.key()
		l.counts.deletes++
		l.commit(e, func(c largeState) { delete(c, k) }, func() error { return e.Delete([]byte(k)) })
	case pick < 14:
		lower, upper := l.key(), l.key()
		if lower == upper {
			upper += "0"
		}
		if lower > upper {
			lower, upper = upper, lower
		}
		l.counts.deletes++
		l.commit(e, func(c largeState) {
			maps.DeleteFunc(c, func(k string, _ []byte) bool { return k >= lower && k < upper })
		}, func() error { return e.DeleteRange([]byte(lower), []byte(upper)) })
	case pick < 16:
		require.NoError(l.t, e.Flush(ctx))
	case pick < 19: // removes and rewrites
		require.NoError(l.t, e.Compact(ctx))
	case pick < 20:
		l.mu.Lock()
		c := largeCopy{dir: fmt.Sprintf("/copies/%d", step), least: l.acked}
		l.mu.Unlock()
		require.NoError(l.t, e.Checkpoint(ctx, c.dir))
		l.mu.Lock()
		c.most = l.acked
		l.copies = append(l.copies, c)
		l.mu.Unlock()
	case pick < 21:
		l.holdSnapshot(e)
	case pick < 23 && l.writer == nil:
		l.beginWriter(e)
	default:
		l.holdValue(e)
	}
}

// beginWriter leaves a stream half-written for some turns.
func (l *largeLife) beginWriter(e *Engine) {
	h := &heldWriter{key: l.key(), value: l.value(l.rnd.Intn(900 << 10)), waitTurns: 1 + l.rnd.Intn(8)}
	var err error
	h.w, err = e.Create(context.Background(), []byte(h.key))
	require.NoError(l.t, err)
	h.written, err = h.w.Write(h.value[:len(h.value)*2/3])
	require.NoError(l.t, err)
	l.writer = h
	l.counts.streams++
}

func (l *largeLife) endWriter(e *Engine) {
	h := l.writer
	l.writer = nil
	if l.rnd.Intn(3) == 0 {
		l.counts.aborted++
		require.NoError(l.t, h.w.Abort())
		return
	}
	_, err := h.w.Write(h.value[h.written:])
	require.NoError(l.t, err)
	l.commit(e, func(c largeState) { c[h.key] = h.value }, h.w.Close)
}

// holdValue opens a value, of the store or of a snapshot, and gives the oldest up.
func (l *largeLife) holdValue(e *Engine) {
	if len(l.values) == 4 {
		require.NoError(l.t, l.values[0].v.Close())
		l.values = l.values[1:]
	}
	now, open := l.now(), e.OpenValue
	if n := len(l.snaps); n > 0 && l.rnd.Intn(2) == 0 {
		now, open = l.snaps[n-1].want, l.snaps[n-1].s.OpenValue
	}
	k := l.key()
	v, err := open([]byte(k))
	want, ok := now[k]
	switch {
	case errors.Is(err, ErrSnapshotTooOld):
		return
	case !ok:
		require.ErrorIs(l.t, err, ErrNotFound)
		return
	}
	require.NoError(l.t, err)
	l.values = append(l.values, heldValue{v, want})
	l.counts.held++
}

func (l *largeLife) holdSnapshot(e *Engine) {
	if len(l.snaps) == 2 {
		require.NoError(l.t, l.snaps[0].s.Close())
		l.snaps = l.snaps[1:]
	}
	s, err := e.Snapshot()
	require.NoError(l.t, err)
	l.snaps = append(l.snaps, heldSnapshot{s, l.now()})
}

// checkHeld compares everything that is held with what it was when it was opened.
func (l *largeLife) checkHeld() {
	l.t.Helper()
	for _, h := range l.values {
		got, err := io.ReadAll(io.NewSectionReader(h.v, 0, h.v.Size()))
		require.NoError(l.t, err)
		require.True(l.t, bytes.Equal(h.want, got), "a reader keeps what it has")
	}
	for _, h := range l.snaps {
		for k, want := range h.want {
			got, err := h.s.Get([]byte(k))
			if errors.Is(err, ErrSnapshotTooOld) {
				break
			}
			require.NoError(l.t, err)
			require.True(l.t, bytes.Equal(want, got), "a snapshot keeps what it sees")
		}
	}
}
