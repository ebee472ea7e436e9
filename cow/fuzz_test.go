package cow

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// goldenCells are the cells of testdata/cell.golden.
func goldenCells(t testing.TB) (cells [][]byte) {
	text, err := os.ReadFile("testdata/cell.golden")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		c, err := hex.DecodeString(strings.TrimSpace(line))
		require.NoError(t, err)
		cells = append(cells, c)
	}
	return cells
}

// Goal: whatever the bytes, ParseCell refuses them with ErrCell or gives a cell whose
// fields, encoded again, are the same bytes, and whose payload lies inside of them.
func FuzzCell(f *testing.F) {
	for _, c := range goldenCells(f) {
		f.Add(c)
		f.Add(c[:len(c)-1])
		f.Add(append(bytes.Clone(c), 0))
	}
	f.Add([]byte{})
	f.Add(make([]byte, headerLen))
	f.Add(append([]byte{byte(Value) | expiryFlag}, make([]byte, headerLen)...))
	f.Add(append([]byte{byte(Tombstone) | expiryFlag}, make([]byte, headerLen+expiryLen-1)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		c, err := ParseCell(b)
		require.Equal(t, before, b, "parsing changes nothing")
		if err != nil {
			require.ErrorIs(t, err, ErrCell)
			require.Nil(t, c)
			return
		}
		h := Header{c.Kind(), c.Revision(), c.Expiry()}
		require.Contains(t, []Kind{Value, Blob, Tombstone}, h.Kind)
		require.True(t, bytes.HasSuffix(b, c.Payload()))
		if h.Kind == Tombstone {
			require.Empty(t, c.Payload())
		}
		again := AppendCell([]byte("before"), h, c.Payload())[len("before"):]
		if b[0]&expiryFlag != 0 && h.Expiry == 0 {
			// The one spelling that is never written: a flag, and no expiry behind it.
			require.Len(t, again, len(b)-expiryLen)
		} else {
			require.Equal(t, b, again)
		}
		d, err := ParseCell(again)
		require.NoError(t, err)
		require.Equal(t, h, Header{d.Kind(), d.Revision(), d.Expiry()})
		require.Equal(t, len(c.Payload()), len(d.Payload()))
	})
}
