package engine

import (
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/holdfastdb/holdfast/compaction"
	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
)

// blobs is the account of large values, which every commit and flush goes through, so
// that each overwrite and delete is counted against its pack at once.
type blobs struct {
	look  func()      // wakes the collector
	every int64       // bytes of large values between two looks; ticks are too rare in a storm
	some  atomic.Bool // some key named a blob; a store without large values pays nothing else

	mu     sync.Mutex
	acc    *compaction.Blobs // set once by Open; nil if read-only
	came   int64             // bytes of large values since the last look
	ranged uint64            // number of a range delete that no flush has seen yet; zero: none
}

// seed2 makes the second hash of a key's stand-in in the account.
var seed2 = maphash.MakeSeed()

func blobKey(hash uint64, key []byte) compaction.BlobKey {
	return compaction.BlobKey{hash, maphash.Bytes(seed2, key)}
}

// loadBlobs begins the account with what L3 names; replay adds the rest.
func (e *Engine) loadBlobs(mark storage.Watermark) error {
	if e.opts.ReadOnly {
		return nil
	}
	e.blobs.acc = compaction.NewBlobs(mark.LSN)
	base := e.store.Current()
	defer base.Release()
	err := compaction.EachBlob(e.store, base, func(pack, offset, stored uint64, key []byte) error {
		e.blobs.acc.Load(blobKey(hashKey(key), key), compaction.BlobAt{Pack: pack, Offset: offset}, stored)
		return nil
	})
	e.blobs.some.Store(e.blobs.acc.Len() > 0)
	if err != nil {
		return fmt.Errorf("index of large values: %w", err)
	}
	return nil
}

// count follows one point of commit lsn.
func (b *blobs) count(hash uint64, o op, lsn uint64) error {
	if b.acc == nil || o.kind != cow.Blob && !b.some.Load() {
		return nil
	}
	key := blobKey(hash, o.key)
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.acc.Dead()
	defer func() {
		if dead := b.acc.Dead(); dead > 0 && (was == 0 || b.came >= b.every) {
			b.came = 0
			b.look()
		}
	}()
	if o.kind != cow.Blob {
		b.acc.Delete(key, lsn)
		return nil
	}
	r, err := mmap.DecodeRef(o.payload)
	if err != nil {
		return err
	}
	b.acc.Put(key, compaction.BlobAt{Pack: r.Pack, Offset: r.Offset}, r.Stored, lsn)
	b.some.Store(true)
	b.came += int64(r.Stored)
	return nil
}

// countRange follows the range deletes of commit lsn. What they took shows at the flush.
func (b *blobs) countRange(lsn uint64) {
	if b.acc == nil || !b.some.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ranged = lsn
	b.look()
}

// waiting says whether something died that is not collected yet, and how much of it
// only a flush makes collectable.
func (b *blobs) waiting() (dead bool, unflushed int64, ranges bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.acc.Dead() > 0, b.acc.Unflushed(), b.ranged > 0
}

// died lists, for the flush through last, what left the index by a point.
func (b *blobs) died(last uint64) []compaction.BlobAt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.acc.Died(last)
}

func (b *blobs) flushed(last uint64, t compaction.Turnover) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.acc.Flushed(last, t)
	if b.ranged <= last {
		b.ranged = 0
	}
}
