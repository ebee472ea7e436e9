package mmap

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a hot read costs: a page of a raw value from its mapping, and of a compressed one.
func BenchmarkBlob_ReadAt(b *testing.B) {
	for _, c := range []Compression{None, Fast} {
		for _, size := range []int{1 << 20, 64 << 20} {
			b.Run(fmt.Sprintf("codec=%v/value=%d", map[Compression]Codec{None: Raw, Fast: Zstd}[c], size), func(b *testing.B) {
				s, _ := disk(b, func(o *Options) { o.Compression = c })
				ref := put(b, s, value("text", size))
				require.NoError(b, s.Sync())
				blob, err := s.Open(ref)
				require.NoError(b, err)
				defer blob.Close()
				require.NoError(b, blob.View(func([]byte) error { return nil }))
				p := make([]byte, 4096)
				b.SetBytes(int64(len(p)))
				b.ReportAllocs()
				at := int64(1)
				for b.Loop() {
					if _, err := blob.ReadAt(p, at); err != nil {
						b.Fatal(err)
					}
					at = (at + 1_000_003) % int64(size-len(p))
				}
			})
		}
	}
}

// What a stream costs from memory to a synced pack.
func BenchmarkWriter(b *testing.B) {
	for _, kind := range kinds {
		b.Run("kind="+kind, func(b *testing.B) {
			s, _ := disk(b)
			v := value(kind, 32<<20)
			b.SetBytes(int64(len(v)))
			b.ReportAllocs()
			for b.Loop() {
				ref, err := streamed(s, v, 0)
				require.NoError(b, err)
				require.NoError(b, s.Sync())
				s.Settle(ref)
				r, err := DecodeRef(ref)
				require.NoError(b, err)
				require.NoError(b, s.Remove(r.Pack))
			}
		})
	}
}
