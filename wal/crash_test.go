package wal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

type numbered struct{ lsn, seed uint64 }

// oracle is what must be true of every image of a crash.
type oracle struct {
	mu        sync.Mutex
	base      []numbered        // recovered by the life before, served to readers: all of it stays
	start     uint64            // first number of this life
	acked     map[uint64]uint64 // number -> seed, of this life
	issued    map[uint64]bool   // seeds handed to Commit
	durable   uint64            // promised
	watermark uint64            // of the imaginary storage
}

func (o *oracle) clone() *oracle {
	c := &oracle{base: o.base, start: o.start, durable: o.durable, watermark: o.watermark,
		acked: map[uint64]uint64{}, issued: map[uint64]bool{}}
	for k, v := range o.acked {
		c.acked[k] = v
	}
	for k := range o.issued {
		c.issued[k] = true
	}
	return c
}

// check says what is wrong with a recovery: it must be an exact prefix, above
// the watermark, with everything promised.
func (o *oracle) check(s *store) error {
	var got []numbered
	for _, lsn := range s.seq {
		seed, err := seedOfPayload(s.got[lsn])
		if err != nil {
			return fmt.Errorf("number %d: %w", lsn, err)
		}
		got = append(got, numbered{lsn, seed})
	}
	for _, want := range o.base {
		if want.lsn <= o.watermark {
			continue
		}
		if len(got) == 0 || got[0] != want {
			return fmt.Errorf("%v was served before and is gone; next is %v", want, got[:min(1, len(got))])
		}
		got = got[1:]
	}
	next := max(o.start, o.watermark+1)
	for _, g := range got {
		if g.lsn != next {
			return fmt.Errorf("a hole: %d instead of %d", g.lsn, next)
		}
		if seed, ok := o.acked[g.lsn]; ok && seed != g.seed || !o.issued[g.seed] {
			return fmt.Errorf("number %d holds %d, acknowledged %d %v", g.lsn, g.seed, seed, ok)
		}
		next++
	}
	if o.durable >= next && o.durable > o.watermark {
		return fmt.Errorf("%d was promised, the log ends before %d", o.durable, next)
	}
	for lsn := range o.acked {
		if s.rec.NextLSN <= lsn {
			return fmt.Errorf("number %d would be given again", lsn)
		}
	}
	return nil
}

type image struct {
	fs *vfs.MemFS
	o  *oracle
	at string
}

// camera takes images of a crashable file system before its mutating
// operations.
type camera struct {
	mem    *vfs.MemFS
	oracle *oracle
	rng    *rand.Rand
	every  int
	mu     sync.Mutex
	n      int
	off    bool
	images []image
}

func (c *camera) String() string { return "camera" }

func (c *camera) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if c.off || c.rng.IntN(c.every) != 0 {
		return nil
	}
	c.shoot(fmt.Sprintf("op %d: %v %s", c.n, op.Kind, op.Path))
	return nil
}

func (c *camera) shoot(at string) {
	for _, percent := range []int{0, 50, 100} {
		// What was promised before the image must be in it; what is issued
		// after it cannot be, and does not matter.
		c.oracle.mu.Lock()
		o := c.oracle.clone()
		c.oracle.mu.Unlock()
		fs := c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
		c.oracle.mu.Lock()
		for k := range c.oracle.issued {
			o.issued[k] = true
		}
		c.oracle.mu.Unlock()
		c.images = append(c.images, image{fs, o, fmt.Sprintf("%s, %d%%", at, percent)})
	}
}

// life opens an image, checks it, works on it, and returns images of its own.
func life(t *testing.T, img image, policy Policy, writers, every int, rng *rand.Rand) []image {
	t.Helper()
	cam := &camera{mem: img.fs, oracle: img.o, rng: rand.New(rand.NewPCG(rng.Uint64(), 3)), every: every}
	o := memOptions(errorfs.Wrap(img.fs, cam))
	o.Policy, o.Interval, o.lease = policy, time.Millisecond, 50
	orc := img.o
	s, err := tryOpen(t, o, orc.watermark)
	require.NoError(t, err, img.at)
	if err := orc.check(s); err != nil {
		require.NoError(t, s.log.Close())
		require.NoError(t, err, "%s: %+v", img.at, *s.rec)
	}
	// From here on what was recovered is served.
	orc.mu.Lock()
	orc.base = nil
	for _, lsn := range s.seq {
		seed, _ := seedOfPayload(s.got[lsn])
		orc.base = append(orc.base, numbered{lsn, seed})
	}
	orc.start, orc.acked, orc.durable = s.rec.NextLSN, map[uint64]uint64{}, 0
	orc.mu.Unlock()
	seeds := uint64(rng.Uint32()) << 20
	var wg sync.WaitGroup
	for w := range writers {
		r := rand.New(rand.NewPCG(rng.Uint64(), uint64(w)))
		wg.Go(func() {
			for i := range 24 / writers {
				seed := seeds + uint64(w*1000+i)
				b := payloadOf(seed, r.IntN(600))
				if r.IntN(12) == 0 {
					b = payloadOf(seed, 9000+r.IntN(20_000))
				}
				orc.mu.Lock()
				orc.issued[seed] = true
				orc.mu.Unlock()
				lsn, err := s.log.Commit(context.Background(), b, 1, Checksum(b), nil)
				if err != nil {
					t.Error(err)
					return
				}
				sync := r.IntN(6) == 0
				if sync && s.log.Sync(context.Background()) != nil {
					t.Error("sync")
				}
				orc.mu.Lock()
				orc.acked[lsn] = seed
				if policy == Always || sync {
					orc.durable = max(orc.durable, lsn)
				}
				orc.mu.Unlock()
				if r.IntN(10) == 0 && s.log.WaitDurable(context.Background(), lsn) == nil {
					// Storage is durable before STATE says so.
					flushed := s.log.Durable() - uint64(r.IntN(3))
					orc.mu.Lock()
					flushed = max(min(flushed, lsn), orc.watermark)
					orc.watermark = flushed
					orc.mu.Unlock()
					if err := s.log.SetFlushed(flushed, 1, 1); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, s.log.Close())
	cam.mu.Lock()
	defer cam.mu.Unlock()
	cam.shoot("end")
	return cam.images
}

// A power cut before any mutating operation, three kinds of each, and again
// inside the recovery from it and the life after: always an exact prefix with
// everything promised, and no number twice.
func TestLog_crashAnywhere(t *testing.T) {
	budget := 1000
	if testing.Short() {
		budget = 240
	}
	for _, p := range policies {
		for _, writers := range []int{1, 3} {
			t.Run(fmt.Sprintf("%v/writers=%d", p, writers), func(t *testing.T) {
				seed := uint64(time.Now().UnixNano())
				t.Logf("seed %d", seed)
				rng := rand.New(rand.NewPCG(seed, 1))
				first := image{vfs.NewCrashableMem(), &oracle{issued: map[uint64]bool{}, acked: map[uint64]uint64{}}, "new"}
				// Even the creation of the store may be cut.
				images := life(t, first, p, writers, 1, rng)
				// Depth two, and samples of what is deeper.
				rng.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
				deep := []image{}
				n := 0
				for _, img := range images {
					if n++; n > budget/6 || t.Failed() {
						break
					}
					deep = append(deep, life(t, img, p, writers, 24, rng)...)
				}
				rng.Shuffle(len(deep), func(i, j int) { deep[i], deep[j] = deep[j], deep[i] })
				for i := 0; len(deep) > 0 && i < budget/6 && !t.Failed(); i++ {
					img := deep[len(deep)-1]
					deep = deep[:len(deep)-1]
					deep = append(deep, life(t, img, p, writers, 60, rng)...)
					n++
				}
				t.Logf("%d lives", n)
			})
		}
	}
}

// After a failed sync the page cache shows a tail that the disk may not have.
// Recovery serves it, so it must have written it again: a power cut right
// after Start finds all of it.
func TestRecovery_Start_writesTailAgain(t *testing.T) {
	for _, n := range []int{3, 40} { // in one segment, and with a rotation before
		mem := vfs.NewCrashableMem()
		bad := &toggle{err: errorfs.ErrInjected, match: func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSyncData }}
		o := memOptions(errorfs.Wrap(mem, bad))
		o.Policy, o.Interval = Interval, time.Hour
		s := openStore(t, o)
		for i := range n {
			s.put(payloadOf(uint64(i), 700))
		}
		bad.on.Store(true)
		require.Error(t, s.log.Sync(context.Background()))
		require.Error(t, s.log.Close())
		o.FS = mem
		s = openStore(t, o)
		require.Len(t, s.got, n)
		served := s.seq
		crash := mem.CrashClone(vfs.CrashCloneCfg{})
		s.close()
		o.FS = crash
		s = openStore(t, o)
		require.Equal(t, served, s.seq, "served, and then lost")
		s.close()
	}
}

// The promise in a frame is the truth: with one writer that syncs each batch,
// it is exactly the number before; without syncs it stays where it was.
func TestLog_Commit_promiseIsExact(t *testing.T) {
	mem := vfs.NewMem()
	o := memOptions(mem)
	o.Policy, o.Interval = Interval, time.Hour
	s := openStore(t, o)
	want := map[uint64]uint64{}
	synced := uint64(0)
	for i := range 30 {
		lsn := s.put(payloadOf(uint64(i), 100))
		want[lsn] = synced
		if i%3 == 0 {
			require.NoError(t, s.log.Sync(context.Background()))
			synced = lsn
		}
	}
	no := s.log.cur.no
	require.Equal(t, uint64(1), no)
	r, err := openSegment(mem, "db/log/"+segmentName(no), no, testUUID)
	require.NoError(t, err)
	for off := int64(framesOffset); ; {
		f, ok, err := r.headerAt(off)
		require.NoError(t, err)
		if !ok {
			break
		}
		if f.kind == kindData {
			require.Equal(t, want[f.firstLSN], f.synced, "frame of %d", f.firstLSN)
			delete(want, f.firstLSN)
		}
		off += f.size()
	}
	require.Empty(t, want)
	require.NoError(t, r.close())
	s.close()
}

// The segment that STATE names is not recycled while nothing of the next one
// is synced, even if storage has all of it: a crash would leave no segment.
func TestLog_SetFlushed_keepsWhatStateNames(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := memOptions(mem)
	o.Policy, o.Interval = Interval, time.Hour
	s := openStore(t, o)
	for i := 0; s.log.Metrics().Rotations == 0; i++ {
		s.put(payloadOf(uint64(i), 700))
	}
	above := s.log.Durable()
	require.Less(t, above, s.log.Last())
	require.NoError(t, s.log.SetFlushed(above, 1, 1))
	for range 100 { // the background has looked
		kick(s.log.makeKick)
		time.Sleep(100 * time.Microsecond)
	}
	crash := mem.CrashClone(vfs.CrashCloneCfg{})
	s.close()
	o.FS = crash
	s, err := tryOpen(t, o, above)
	require.NoError(t, err)
	require.Empty(t, s.got)
	s.close()
}
