package component

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/mmap"
)

const packsDir = "/packs"

// blob is a value that was written, and where.
type blob struct {
	ref   []byte
	at    mmap.Ref
	maker uint64
	size  int
}

func (b *blob) value() []byte { return fill(b.size, b.maker) }

// packFacts is what was known of the packs at one moment.
type packFacts struct {
	durable int               // so many of the blobs are covered by a sync
	removed map[uint64]bool   // packs whose removal had begun
	gone    map[uint64]bool   // packs whose removal was synced
	dropped map[mmap.Ref]bool // blobs that a rewrite had begun to leave out
	left    map[mmap.Ref]bool // blobs that a rewrite left out, the folder synced
	most    int               // so many of the blobs may be there
}

// packLife is the packs from Open to Close.
type packLife struct {
	rnd    *rand.Rand
	opt    mmap.Options
	born   packFacts
	camera camera[packFacts]
	// blobs is all that were ever written and may be there, in order; what a sync
	// covered comes first.
	blobs []blob

	mu      sync.Mutex // guards what is below and, while the life goes on, blobs
	now     packFacts
	moments []moment[packFacts]
}

func newPacks(seed uint64) life {
	rnd := rand.New(rand.NewPCG(seed, 0x7061636b))
	return &packLife{rnd: rnd, opt: mmap.Options{
		Dir: packsDir, UUID: storeUUID, NextPack: 1,
		PackBytes:   []int64{8 << 10, 16 << 10, 1 << 20}[rnd.IntN(3)],
		FrameBytes:  4 << 10,
		Compression: []mmap.Compression{mmap.None, mmap.None, mmap.Fast}[rnd.IntN(3)],
	}}
}

func (l *packLife) cut(i int) *simfs.Cut { return l.moments[i].cut }

func (l *packLife) before() packFacts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *packLife) after(f *packFacts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.most = len(l.blobs) + 1 // one may be under way
	f.removed, f.dropped = l.now.removed, l.now.dropped
}

// know changes the facts. Tables in them are copied, for moments share them.
func (l *packLife) know(change func(f *packFacts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.now)
}

func with[K comparable](set map[K]bool, more ...K) map[K]bool {
	out := make(map[K]bool, len(set)+len(more))
	for k := range set {
		out[k] = true
	}
	for _, k := range more {
		out[k] = true
	}
	return out
}

// dead says that nothing names the blob any more.
func (f *packFacts) dead(b *blob) bool { return f.removed[b.at.Pack] || f.dropped[b.at] }

func (l *packLife) run(disk *simfs.FS) (int, error) {
	l.camera = camera[packFacts]{disk: disk, before: l.before, after: l.after}
	l.now = l.born
	err := l.work(disk)
	l.moments = l.camera.end()
	return len(l.moments), err
}

// work opens the packs twice: a close syncs nothing, so the second open finds what a
// kill leaves, page cache and all.
func (l *packLife) work(disk *simfs.FS) error {
	for range 2 {
		if err := l.open(disk); err != nil {
			return err
		}
	}
	return nil
}

func (l *packLife) open(disk *simfs.FS) error {
	o := l.opt
	o.FS = l.camera.fs()
	// Its owner remembers what was removed, as STATE does in a store.
	for num := range l.now.removed {
		o.NextPack = max(o.NextPack, num+1)
	}
	old := highest(disk)
	s, err := mmap.Open(o)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	// The folder's name is its owner's to sync.
	if err := l.syncDir("/"); err != nil {
		return err
	}
	if err := l.renew(s); err != nil {
		return err
	}
	for range 8 {
		switch l.rnd.IntN(9) {
		case 0, 1:
			err = l.sync(s.Sync)
		case 2:
			err = l.sync(s.Seal)
		case 3:
			err = l.remove(s)
		case 4:
			err = l.rewrite(s)
		default:
			err = l.write(s, old)
		}
		if err != nil {
			return err
		}
	}
	return s.Close()
}

// highest is the highest number that a pack on disk has.
func highest(disk *simfs.FS) (high uint64) {
	names, err := disk.List(packsDir)
	if err != nil {
		return 0 // there is no folder yet
	}
	for _, n := range names {
		digits, _, _ := strings.Cut(n, ".")
		if num, err := strconv.ParseUint(digits, 10, 64); err == nil {
			high = max(high, num)
		}
	}
	return high
}

func (l *packLife) syncDir(dir string) error {
	d, err := l.camera.fs().OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// renew is what recovery does with blobs that a record names which nothing promised:
// what is there is made durable, what is not is forgotten.
func (l *packLife) renew(s *mmap.Store) error {
	d := l.now.durable
	var kept []blob
	var refs [][]byte
	for _, b := range l.blobs[d:] {
		if s.Exists(b.ref) == nil {
			kept, refs = append(kept, b), append(refs, b.ref)
		}
	}
	l.mu.Lock()
	l.blobs = append(slices.Clone(l.blobs[:d]), kept...)
	l.mu.Unlock()
	if err := s.Renew(refs); err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	l.know(func(f *packFacts) { f.durable = len(l.blobs) })
	return nil
}

func (l *packLife) write(s *mmap.Store, old uint64) error {
	b := blob{maker: l.rnd.Uint64(), size: l.rnd.IntN(7000)}
	ref, err := l.put(s, b.value())
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	s.Settle(ref) // this owner commits at once
	if b.at, err = mmap.DecodeRef(ref); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	b.ref = ref
	if b.at.Pack <= old {
		return oracle.Broken(oracle.Moved, "", 0, "a write went to pack %d; there was one with number %d when the store was opened", b.at.Pack, old)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blobs = append(l.blobs, b)
	return nil
}

// put writes half of the values as a stream.
func (l *packLife) put(s *mmap.Store, v []byte) ([]byte, error) {
	if l.rnd.IntN(2) == 0 {
		return s.Write(v)
	}
	w, err := s.NewWriter(context.Background())
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(v); err != nil {
		return nil, err
	}
	return w.Finish()
}

func (l *packLife) sync(f func() error) error {
	l.mu.Lock()
	n := len(l.blobs)
	l.mu.Unlock()
	if err := f(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	l.know(func(f *packFacts) { f.durable = n })
	return nil
}

// remove unlinks a pack that is sealed, if there is one.
func (l *packLife) remove(s *mmap.Store) error {
	packs := s.Packs()
	if len(packs) < 2 {
		return nil
	}
	slices.Sort(packs)
	num := packs[l.rnd.IntN(len(packs)-1)]
	before := l.now.removed
	l.know(func(f *packFacts) { f.removed = with(f.removed, num) })
	err := s.Remove(num)
	if errors.Is(err, mmap.ErrNotSealed) {
		l.know(func(f *packFacts) { f.removed = before })
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := l.syncDir(packsDir); err != nil {
		return err
	}
	l.know(func(f *packFacts) { f.gone = with(f.gone, num) })
	return nil
}

// rewrite leaves about half of a sealed pack's blobs out of it.
func (l *packLife) rewrite(s *mmap.Store) error {
	packs := s.Packs()
	if len(packs) == 0 {
		return nil
	}
	slices.Sort(packs)
	num := packs[l.rnd.IntN(len(packs))]
	before := l.now.dropped
	var keep []mmap.Extent
	var drop []mmap.Ref
	for i := range l.blobs {
		switch b := &l.blobs[i]; {
		case b.at.Pack != num || l.now.dead(b):
		case l.rnd.IntN(2) == 0:
			drop = append(drop, b.at)
		default:
			keep = append(keep, mmap.Extent{Offset: b.at.Offset, Stored: b.at.Stored})
		}
	}
	if len(keep)+len(drop) == 0 {
		return nil // a crash may have taken its header; its owner would remove it
	}
	slices.SortFunc(keep, func(a, b mmap.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	l.know(func(f *packFacts) { f.dropped = with(f.dropped, drop...) })
	err := s.Rewrite(num, keep)
	if errors.Is(err, mmap.ErrNotSealed) {
		l.know(func(f *packFacts) { f.dropped = before })
		return nil
	}
	if err != nil {
		return fmt.Errorf("rewrite: %w", err)
	}
	l.know(func(f *packFacts) { f.left = with(f.left, drop...) })
	return nil
}
