package wal

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func BenchmarkLog_Commit(b *testing.B) {
	for _, p := range policies {
		for _, writers := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("policy=%v/writers=%d", p, writers), func(b *testing.B) {
				s := openStore(b, Options{FS: vfs.Default, Dir: b.TempDir(), Policy: p})
				payload := payloadOf(1, 200)
				sum := Checksum(payload)
				b.SetBytes(int64(len(payload)))
				b.ReportAllocs()
				b.ResetTimer()
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				for range writers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if lsn, err := s.log.Commit(context.Background(), payload, 1, sum, nil); err != nil {
								b.Error(err)
								return
							} else if lsn%100_000 == 0 {
								// Storage keeps up, so that segments are recycled.
								if err := s.log.SetFlushed(lsn, 1, 1); err != nil {
									b.Error(err)
								}
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				m := s.log.Metrics()
				b.ReportMetric(float64(m.Batches)/float64(max(m.Groups, 1)), "batches/group")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
				s.close()
			})
		}
	}
}
