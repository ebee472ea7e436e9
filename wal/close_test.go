package wal

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal: a flush that ends while the log closes never writes to STATE's closed file:
// pebble's file system in memory panics then, and a real one may have given the
// number away.
func TestLog_Close_meetsSetFlushed(t *testing.T) {
	for range 200 {
		s := openStore(t, memOptions(vfs.NewMem()))
		lsn := s.put(payloadOf(1, 100))
		done := make(chan error)
		go func() {
			for {
				if err := s.log.SetFlushed(lsn, 1, 0); err != nil {
					done <- err
					return
				}
			}
		}()
		s.close()
		require.ErrorIs(t, <-done, ErrClosed)
		require.ErrorIs(t, s.log.writeState(nil), ErrClosed)
	}
}
