package storage

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sealed puts the right checksum behind a body, so that the checks behind the checksum
// are reached.
func sealed(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}

// knownRefusal says whether a codec may answer with err: damage, or a version that is
// not ours.
func knownRefusal(t *testing.T, err error, version byte, known byte) {
	t.Helper()
	if version != known && strings.Contains(err.Error(), "is not known") {
		require.NotErrorIs(t, err, ErrCorrupt, "a newer version is no damage")
		return
	}
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal: whatever the bytes, a watermark is refused with a typed error or is the one
// that these bytes encode, and no other.
func FuzzWatermark(f *testing.F) {
	f.Add(Watermark{}.encode())
	f.Add(Watermark{LSN: 0x0102030405060708, Generation: 9, UUID: testUUID, Entries: 10}.encode())
	f.Add(Watermark{LSN: ^uint64(0), Generation: ^uint64(0), Entries: ^uint64(0)}.encode())
	f.Add(make([]byte, watermarkBytes))
	f.Add([]byte{})
	newer := Watermark{LSN: 1}.encode()[:watermarkBytes-4]
	newer[0] = watermarkVersion + 1
	f.Add(sealed(newer))
	f.Fuzz(func(t *testing.T, b []byte) {
		all := [][]byte{b}
		if len(b) >= 4 {
			all = append(all, sealed(b[:len(b)-4]))
		}
		for _, b := range all {
			w, err := decodeWatermark(b)
			if err != nil {
				knownRefusal(t, err, append(b, 0)[0], watermarkVersion)
				require.Equal(t, Watermark{}, w)
				continue
			}
			require.Equal(t, w.encode(), b)
		}
	})
}

// Goal: the same for the cut points, and what is accepted is in order, short and few:
// an ingest trusts them.
func FuzzCuts(f *testing.F) {
	f.Add(cutPoints{}.encode())
	f.Add(cutPoints{chosenAt: 5, keys: [][]byte{[]byte("a"), []byte("b")}}.encode())
	f.Add(cutPoints{chosenAt: 5, keys: [][]byte{[]byte("b"), []byte("a")}}.encode())
	f.Add(cutPoints{keys: [][]byte{nil, []byte("a")}}.encode())
	f.Add(cutPoints{keys: slices.Repeat([][]byte{[]byte("a")}, 20)}.encode())
	body := cutPoints{chosenAt: 5, keys: [][]byte{[]byte("key")}}.encode()
	body = body[:len(body)-4]
	for cut := range 4 {
		f.Add(sealed(body[:len(body)-cut]))
	}
	for at, to := range map[int]byte{0: 2, 9: 3, 10: 0xff, 11: 0xff} {
		bad := bytes.Clone(body)
		bad[at] = to
		f.Add(sealed(bad))
	}
	f.Add(sealed(append(bytes.Clone(body), 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		all := [][]byte{b}
		if len(b) >= 4 {
			all = append(all, sealed(b[:len(b)-4]))
		}
		for _, b := range all {
			c, err := decodeCuts(b)
			if err != nil {
				knownRefusal(t, err, append(b, 0)[0], cutsVersion)
				require.Empty(t, c.keys)
				continue
			}
			require.Equal(t, c.encode(), b)
			require.Less(t, len(c.keys), cutRanges)
			require.True(t, slices.IsSortedFunc(c.keys, bytes.Compare))
		}
	})
}

// Goal: whatever the bytes, an edit of a manifest is refused and changes nothing, or
// changes the set of tables by what it says.
func FuzzEdit(f *testing.F) {
	f.Add(edit(editComparer, "name", editLogNumber, 3, editNextFile, 20, editLastSeq, 40, editDeleted, 6, 7))
	f.Add(edit(editNewFile2, 2, 9, 100, editKey("a"), editKey("m"), 4, 5))
	f.Add(edit(editDeleted, 6, 8, editNewFile4, 1, 12, 200, editKey("n"), editKey("z"), 6, 6, 2, "custom", fieldEnd))
	f.Add(edit(editDeleted, 6, 7, 55)) // no such tag
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := map[uint64]Remnant{7: {Number: 7}, 8: {Number: 8}}
		v := &version{live: maps.Clone(before)}
		if err := v.apply(bytes.NewReader(b)); err != nil {
			require.Equal(t, &version{live: before}, v, "half of an edit")
			return
		}
		for _, r := range v.live {
			require.Less(t, r.Level, maxLevels)
			require.LessOrEqual(t, len(r.Lower)+len(r.Upper), len(b))
		}
	})
}
