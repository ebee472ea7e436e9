package simfs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// One crash of a disk with a preallocated log of 64 MiB, written 1 MiB far.
func BenchmarkFS_Crash(b *testing.B) {
	fs := New(nil)
	f := put(b, fs, "000001.wal", make([]byte, 1<<20))
	require.NoError(b, f.Preallocate(0, 64<<20))
	require.NoError(b, f.Sync())
	syncDir(b, fs, "/")
	for range 10 {
		_, err := f.Write(make([]byte, 3000))
		require.NoError(b, err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		fs.Crash(CrashConfig{Seed: uint64(i)})
	}
	require.NoError(b, f.Close())
}

// One append and its sync.
func BenchmarkFile_Sync(b *testing.B) {
	fs := New(nil)
	f := put(b, fs, "000001.wal", make([]byte, 1<<20))
	p := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		f.Write(p)
		f.Sync()
	}
	require.NoError(b, f.Close())
}
