package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// edit builds a version edit: numbers as varints, strings with their length.
func edit(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.AppendUvarint(b, uint64(p))
		case string:
			b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
		}
	}
	return b
}

func editKey(user string) string { return "\x10" + user + "\x01\x07\x00\x00\x00\x00\x00\x00" }

// Goal: an edit that decodes changes what lives, tables that move included; one that
// does not decode whole changes nothing, whatever is wrong with it.
func TestRemains_applyEdit(t *testing.T) {
	v := &version{live: map[uint64]Remnant{7: {Level: 6}, 9: {Level: 0}}}
	good := edit(editComparer, "name", editLogNumber, 3, editNextFile, 20, editLastSeq, 40,
		editDeleted, 6, 7, editDeleted, 0, 9, editNewFile2, 2, 9, 100, editKey("a"), editKey("m"), 4, 5,
		editNewFile4, 1, 12, 200, editKey("n"), "\x11"+strings.Repeat("\xff", 8), 6, 6, 2, "custom", fieldEnd)
	want := map[uint64]Remnant{
		9:  {NamedSize: 100, Level: 2, Lower: []byte("a"), Upper: []byte("m"), First: 4, Last: 5},
		12: {NamedSize: 200, Level: 1, Lower: []byte("n"), First: 6, Last: 6},
	}
	require.NoError(t, v.apply(bytes.NewReader(good)))
	require.Equal(t, &version{want, 40}, v)

	file := func(rest ...any) []byte { return edit(append([]any{editDeleted, 2, 9, editNewFile4}, rest...)...) }
	for name, bad := range map[string][]byte{
		"unknown tag":     edit(editDeleted, 2, 9, 55),
		"tag overflows":   bytes.Repeat([]byte{0xff}, 11),
		"number overflow": append(edit(editDeleted, 2, 9, editLastSeq), bytes.Repeat([]byte{0xff}, 11)...),
		"no level":        file(),
		"level too deep":  file(maxLevels, 13, 1, editKey("a"), editKey("b"), 1, 1, fieldEnd),
		"short key":       file(1, 13, 1, "abc", editKey("b"), 1, 1, fieldEnd),
		"key is cut":      file(1, 13, 1, 1000),
		"length lies":     file(1, 13, 1, 1<<40),
		"unsafe field":    file(1, 13, 1, editKey("a"), editKey("b"), 1, 1, fieldUnsafe+1, "x", fieldEnd),
		"field is cut":    file(1, 13, 1, editKey("a"), editKey("b"), 1, 1, 2, 9),
		"no end":          file(1, 13, 1, editKey("a"), editKey("b"), 1, 1),
	} {
		t.Run(name, func(t *testing.T) {
			err := v.apply(bytes.NewReader(bad))
			require.Error(t, err)
			require.Equal(t, &version{want, 40}, v, "half an edit was applied")
		})
	}
	broken := errors.New("broken")
	err := v.apply(io.MultiReader(bytes.NewReader(good[:5]), errReader{broken}))
	require.ErrorIs(t, err, broken)
	require.Equal(t, &version{want, 40}, v)
	for n := range good { // a prefix is refused, or it ends between two parts
		err := newVersion().apply(bytes.NewReader(good[:n]))
		if err != nil {
			require.True(t, errors.Is(err, errEdit) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
