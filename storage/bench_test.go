package storage

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func benchStore(b *testing.B, n int) *Store {
	s := mustOpen(b, Options{Dir: filepath.Join(b.TempDir(), "l3"), Create: true, CacheBytes: 64 << 20})
	cell := strings.Repeat("v", 256)
	mustIngest(b, s, 1, sets(n, "key%08d", cell))
	require.NoError(b, s.Compact(context.Background()))
	return s
}

func BenchmarkSnapshot_Get(b *testing.B) {
	const n = 100_000
	for _, absent := range []bool{false, true} {
		name := "hit"
		if absent {
			name = "absent"
		}
		b.Run(name, func(b *testing.B) {
			s := benchStore(b, n)
			sn := s.Current()
			defer sn.Release()
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				var key, dst []byte
				for i := uint64(1); pb.Next(); i++ {
					key = fmt.Appendf(key[:0], "key%08d", i*2654435761%n)
					if absent {
						key = append(key, 'x')
					}
					var err error
					if dst, _, err = sn.Get(dst[:0], key); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkSnapshot_NewIter(b *testing.B) {
	s := benchStore(b, 100_000)
	sn := s.Current()
	defer sn.Release()
	b.ReportAllocs()
	b.ResetTimer()
	var key []byte
	for i := range b.N {
		key = fmt.Appendf(key[:0], "key%08d", uint64(i)*2654435761%100_000)
		it, err := sn.NewIter(key, nil)
		if err != nil {
			b.Fatal(err)
		}
		for j := 0; j < 10 && it.Next(); j++ {
			_, _ = it.Key(), it.Value()
		}
		_ = it.Close()
	}
}
