package fuzz

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/engine"
)

var stride = flag.Int64("stride", 0, "damage every nth byte; 0: by file, a few hundred each")

func fixture(t *testing.T) *Fixture {
	t.Helper()
	f, err := NewFixture(engine.Options{
		MemoryBudget: 16 << 20, DiskReserve: -1, LargeValue: 4 << 10, SegmentBytes: 16 << 10,
	})
	require.NoError(t, err)
	return f
}

// class of a file, for the table.
func class(file string) string {
	file = strings.TrimPrefix(file, crashDir+"/")
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, file)
}

type tally map[string][3]int

func (c tally) log(t *testing.T) {
	for k, v := range c {
		t.Logf("%-24s %5d harmless  %5d reported  %5d refused", k, v[Harmless], v[Reported], v[Refused])
	}
}

func edit(fs vfs.FS, file string, off int64, change func(b []byte)) error {
	h, err := fs.OpenReadWrite(file, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err := h.ReadAt(b[:], off); err != nil {
		return err
	}
	change(b[:])
	if _, err := h.WriteAt(b[:], off); err != nil {
		return err
	}
	return h.Close()
}

// Goal (F-30, O6): a flipped bit in any file is harmless, or reported by the reads it
// touches, or refused at open; never a wrong value, a missing one, a panic or a hang.
func TestDamage_flip(t *testing.T) {
	f := fixture(t)
	counts, cases := tally{}, 0
	for _, file := range f.Files {
		size, err := f.Size(file)
		require.NoError(t, err)
		step := *stride
		if step == 0 {
			per := int64(400)
			if testing.Short() {
				per = 60
			}
			step = max(1, size/per)
		}
		for off := int64(0); off < size; off += step {
			v, err := f.Damaged(func(fs vfs.FS) error {
				return edit(fs, file, off, func(b []byte) { b[0] ^= 1 << (off % 8) })
			})
			require.NoError(t, err, "%s: bit %d of byte %d", file, off%8, off)
			c := counts[class(file)]
			c[v]++
			counts[class(file)] = c
			cases++
		}
	}
	counts.log(t)
	t.Logf("%d flips, 0 wrong, 0 missing", cases)
}

// Goal (F-34): each file gone is noticed.
func TestDamage_missing(t *testing.T) {
	f := fixture(t)
	counts := tally{}
	for _, file := range f.Files {
		v, err := f.Damaged(func(fs vfs.FS) error { return fs.Remove(file) })
		require.NoError(t, err, file)
		c := counts[class(file)]
		c[v]++
		counts[class(file)] = c
	}
	counts.log(t)
}

// Goal (F-32): each file cut short is noticed, or harmless.
func TestDamage_truncated(t *testing.T) {
	f := fixture(t)
	counts := tally{}
	for _, file := range f.Files {
		size, err := f.Size(file)
		require.NoError(t, err)
		per := int64(60)
		if testing.Short() {
			per = 12
		}
		for n := int64(0); n < size; n += max(1, size/per) {
			v, err := f.Damaged(func(fs vfs.FS) error { return truncate(fs, file, n) })
			require.NoError(t, err, "%s cut to %d", file, n)
			c := counts[class(file)]
			c[v]++
			counts[class(file)] = c
		}
	}
	counts.log(t)
}

func truncate(fs vfs.FS, file string, n int64) error {
	h, err := fs.Open(file)
	if err != nil {
		return err
	}
	b := make([]byte, n)
	if _, err := h.ReadAt(b, 0); err != nil && n > 0 {
		return fmt.Errorf("read %d: %w", n, err)
	}
	if err := h.Close(); err != nil {
		return err
	}
	w, err := fs.Create(file, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Close()
}
