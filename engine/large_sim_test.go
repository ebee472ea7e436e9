package engine

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/mmap"
)

var (
	largeSeed  = flag.Int64("seed", 1, "TestCreate_everyCut: the first seed")
	largeSeeds = flag.Int("seeds", 0, "TestCreate_everyCut: how many seeds, with all images of each cut; 0: a short run")
)

// Goal (I2, I3, I7): wherever the power is cut in the life of large values, at each call
// that changes the disk and each write of a pack among them, the store comes up as it was
// after some commit, no older than what was promised, with every value whole. Nothing that
// was deleted returns, no reference dangles, no pack stays that nothing names, and a
// checkpoint that was acknowledged is whole. Readers and snapshots keep what they have
// while it goes on.
func TestCreate_everyCut(t *testing.T) {
	all, seeds, stride := *largeSeeds > 0, max(*largeSeeds, 1), 1
	if testing.Short() && !all {
		stride = 8 // tens of times slower under the race detector
	}
	var removed, rewritten uint64
	for seed := *largeSeed; seed < *largeSeed+int64(seeds); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := liveLarge(t, seed, func(call int) bool { return call%stride == int(seed)%stride })
			require.Positive(t, l.counts.solos)
			require.Positive(t, l.counts.held)
			removed, rewritten = removed+l.done.Removed, rewritten+l.done.Rewritten
			t.Logf("%d commits, %d calls; %+v; %d packs removed, %d rewritten", l.acked, l.calls, l.counts, l.done.Removed, l.done.Rewritten)
			var images, copies atomic.Int64
			t.Cleanup(func() {
				t.Logf("%d cuts, %d images, %d of them opened a checkpoint, too", len(l.cuts), images.Load(), copies.Load())
			})
			// Beside each other, because most of the time one waits for the collector.
			const lanes = 4
			for lane := range lanes {
				t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
					t.Parallel()
					var buf []byte
					for i := lane; i < len(l.cuts); i += lanes {
						c := l.cuts[i]
						for _, cfg := range imagesOf(i, all) {
							at := fmt.Sprintf("seed %d, cut at call %d of %d, for %s, image %+v", seed, c.call, l.calls, c.op, cfg)
							img := c.cut.Image(cfg)
							// A look at the newest checkpoint at once, and now and then after.
							if n := len(c.copies); n > 0 && (i%16 == 0 || len(l.cuts[i-1].copies) < n) {
								l.checkCopy(t, img, c.copies[n-1], &buf, at)
								copies.Add(1)
							}
							l.checkCut(t, img, c, images.Add(1)%8 == 0, &buf, at)
						}
					}
				})
			}
		})
	}
	require.Positive(t, removed)
	require.Positive(t, rewritten)
}

// imagesOf are the images that cut i is looked at by: all, or one, so that each has its
// turn.
func imagesOf(i int, all bool) (out []simfs.CrashConfig) {
	for _, image := range append(simfs.Corners(), simfs.Random) {
		out = append(out, simfs.CrashConfig{Seed: uint64(i), Image: image})
	}
	if all {
		return out
	}
	return out[i%len(out):][:1]
}

// checkCut opens what a cut left, twice if again is set.
func (l *largeLife) checkCut(t *testing.T, img *simfs.FS, c largeCut, again bool, buf *[]byte, at string) {
	t.Helper()
	o := l.opts
	o.FS = img
	e, err := Open("/store", &o)
	require.NoError(t, err, at)
	n := int(e.Recovered().LSN)
	require.Empty(t, e.Recovered().Lost, at)
	require.GreaterOrEqual(t, n, c.least, at)
	require.LessOrEqual(t, n, c.most, at)
	l.holds(t, e, l.states[n], buf, at)
	require.NoError(t, e.Check(context.Background()), at)
	// What died in the log only is garbage once it was flushed.
	require.NoError(t, e.Flush(context.Background()), at)
	named := packsNamed(t, e)
	require.True(t, untilSoon(func() bool {
		dead, _, ranges := e.blobs.waiting()
		return !dead && !ranges && e.Metrics().Collect.Empty == 0
	}), "%s: what died stays", at)
	require.NoError(t, e.Close(), at)
	names, err := img.List("/store/packs")
	require.NoError(t, err, at)
	for _, name := range names {
		require.True(t, named[name], "%s: %s stays, and keys name %v", at, name, named)
	}
	require.Len(t, names, len(named), at)
	if !again {
		return
	}
	// What was shown stays, with the power cut after a close that went well.
	o.FS = img.Crash(simfs.CrashConfig{Image: simfs.Nothing})
	e, err = Open("/store", &o)
	require.NoError(t, err, at)
	require.EqualValues(t, n, e.Recovered().LSN, at)
	l.holds(t, e, l.states[n], buf, at)
	require.NoError(t, e.Check(context.Background()), at)
	require.NoError(t, e.Close(), at)
}

// checkCopy opens a checkpoint that was acknowledged before the cut.
func (l *largeLife) checkCopy(t *testing.T, img *simfs.FS, c largeCopy, buf *[]byte, at string) {
	t.Helper()
	o := l.opts
	o.FS, o.ReadOnly = img, true
	e, err := Open(c.dir, &o)
	require.NoError(t, err, "%s: %s", at, c.dir)
	n := int(e.Recovered().LSN)
	require.GreaterOrEqual(t, n, c.least, at)
	require.LessOrEqual(t, n, c.most, at)
	l.holds(t, e, l.states[n], buf, at)
	require.NoError(t, e.Close(), at)
}

// holds demands exactly these largeState. It reads into buf.
func (l *largeLife) holds(t *testing.T, e *Engine, want largeState, buf *[]byte, at string) {
	t.Helper()
	n := 0
	for item, err := range e.Scan(Range{}) {
		require.NoError(t, err, at)
		*buf, err = e.appendValue((*buf)[:0], item.cell)
		require.NoError(t, err, "%s: key %s", at, item.Key())
		v, ok := want[string(item.Key())]
		require.True(t, ok, "%s: key %s is back", at, item.Key())
		require.True(t, bytes.Equal(v, *buf), "%s: key %s has %d bytes, begins %.20q; want %d, %.20q", at, item.Key(), len(*buf), *buf, len(v), v)
		n++
	}
	require.Equal(t, len(want), n, "%s: keys are missing", at)
}

// packsNamed are the files that some key's value lies in.
func packsNamed(t *testing.T, e *Engine) map[string]bool {
	t.Helper()
	named := map[string]bool{}
	for item, err := range e.Scan(Range{}) {
		require.NoError(t, err)
		if item.cell.Kind() == cow.Blob {
			r, err := mmap.DecodeRef(item.cell.Payload())
			require.NoError(t, err)
			named[fmt.Sprintf("%020d.pack", r.Pack)] = true
		}
	}
	return named
}

// untilSoon is until for what takes a millisecond as a rule.
func untilSoon(ok func() bool) bool {
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
