package cache

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal (C9): whatever the bytes, an entry of L2 is refused or decodes to a cell of at
// most the size that cells have; none takes the host with it. And whatever the cell, its
// entry decodes to it.
func FuzzEntry(f *testing.F) {
	c := newCodec(CodecAuto)
	c.teach(f, 1)
	for _, mode := range []Codec{CodecOff, CodecS2, CodecAuto} {
		c.mode = mode
		for i := range 3 {
			f.Add(c.entry(state(1, i, 300))[l2HeaderBytes-1:])
		}
	}
	f.Add([]byte{kindAbsent})
	f.Add(pad(c.entry(state(1, 1, 300)), 400)[l2HeaderBytes-1:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		entry := append(make([]byte, l2HeaderBytes-1), b...)
		cell, err := c.decode(bytes.Clone(entry))
		if err == nil {
			require.LessOrEqual(t, int64(len(cell)), max(c.maxCell.Load(), int64(len(b))))
		} else {
			require.ErrorIs(t, err, errEntry)
		}
		again, err := c.decode(pad(c.entry(b), 20+len(b)%200))
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, again))
	})
}
