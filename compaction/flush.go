package compaction

import (
	"bytes"
	"context"
	"fmt"
	"math"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/storage"
)

// Stats says what one flush moved.
type Stats struct {
	Sets, Deletes, Ranges uint64
	Bytes                 int64 // of keys and cells
	Ingest                storage.IngestStats
	Turnover              Turnover
}

// Turnover says what a flush did to the index of blobs.
type Turnover struct {
	set    map[BlobAt]bool
	hidden []BlobAt // that the generation's range deletes took out
}

// maxSublevels is the number of sublevels of level zero above which a flush waits:
// every one of them costs each point read a look.
const maxSublevels = 6

// Behind says that storage has compactions to catch up with before the next flush.
// Its ingests are not throttled by storage itself.
func Behind(st *storage.Store) bool { return st.Sublevels() > maxSublevels }

// checkEvery is how many cells, or bytes, go by between two looks at the context.
const (
	checkEvery      = 1 << 10
	checkEveryBytes = 1 << 20
)

// Flush moves the frozen generation g into storage, together with the watermark w,
// whose Entries it fills in. died are the blobs that a point of the generation
// superseded. pace is called now and then while they are built, and may take its time.
// ready is called when the tables are built; what must be true before storage may have
// the cells is true when it returns nil. When Flush
// returns nil the cells are durable in storage
// and visible in storage.Current; on an error nothing was changed that a reader or
// a reopen can see, unless storage's gate closed.
func Flush(ctx context.Context, g *cow.Generation, st *storage.Store, w storage.Watermark, died []BlobAt, pace func(), ready func() error) (Stats, error) {
	g.Sort()
	in, err := st.NewIngest()
	if err != nil {
		return Stats{}, fmt.Errorf("begin ingest: %w", err)
	}
	stats := Stats{Turnover: Turnover{set: make(map[BlobAt]bool)}}
	if err = stats.unindex(ctx, g, st, in, died); err == nil {
		err = stats.build(ctx, g, in, pace)
	}
	if err == nil {
		err = ready()
	}
	if err != nil {
		_ = in.Abort() // the first error is the one to report; leftovers go at the next open
		return stats, fmt.Errorf("build tables: %w", err)
	}
	w.Entries = stats.Sets + stats.Deletes + stats.Ranges
	if stats.Ingest, err = in.Commit(w); err != nil {
		return stats, fmt.Errorf("ingest through %d: %w", w.LSN, err)
	}
	return stats, nil
}

// build writes points and range tombstones side by side in key order.
func (s *Stats) build(ctx context.Context, g *cow.Generation, in *storage.Ingest, pace func()) error {
	ranges := g.Ranges()
	it := g.NewIter(math.MaxUint64) // frozen: the newest version is the one
	looked := s.Bytes
	for n, ok := 0, it.First(); ok || len(ranges) > 0; n++ {
		if n%checkEvery == 0 || s.Bytes-looked > checkEveryBytes {
			looked = s.Bytes
			if pace(); ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if len(ranges) > 0 && (!ok || bytes.Compare(ranges[0].Lower, it.Key()) <= 0) {
			if err := in.DeleteRange(ranges[0].Lower, ranges[0].Upper); err != nil {
				return err
			}
			s.Ranges++
			ranges = ranges[1:]
			continue
		}
		switch cell := it.Cell(); {
		case cell == nil: // P2
		case cell.Kind() == cow.Tombstone:
			if err := in.Delete(it.Key()); err != nil {
				return err
			}
			s.Deletes++
			s.Bytes += int64(len(it.Key()))
		default:
			if err := in.Set(it.Key(), cell); err != nil {
				return err
			}
			if err := s.index(in, it.Key(), cell); err != nil {
				return err
			}
			s.Sets++
			s.Bytes += int64(len(it.Key()) + len(cell))
		}
		ok = it.Next()
	}
	return nil
}
