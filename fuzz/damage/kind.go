package damage

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
)

// Case is one damage: a class of file, what was done, and the store it leaves.
type Case struct {
	Class, What string
	Make        func() Image

	// File and Change are what was done, if it was done to the bytes of one file.
	File   string
	Change func(b []byte) []byte

	// System allows errors of the operating system: a folder where a file should be.
	System bool
	// Rewinds is the earliest commit that the store may go back to, if the damage puts
	// back both that bear promises; nil: it may not.
	Rewinds *uint64
	// Cuts is the earliest commit that a log which was not closed may end with, if the
	// damage reaches its newest frame: what is before the damage. Nil: none is missing.
	Cuts *uint64
	// Dull damage is inside a run of zeros.
	Dull bool
	// Brief leaves out the second open, and Reading opens for reading only: a sweep of
	// every byte gives each bit one of the three.
	Brief, Reading bool
}

// Kind is one way to damage a file.
type Kind struct {
	Name string
	// Every is how often a sweep of stride n takes a case: once in n/Every, at most
	// always. Kinds with few or strong cases are taken more often.
	Every int
	Cases func(f *Fixture) iter.Seq[Case]
}

// bytesOnly is how many of Kinds damage bytes of one file.
const bytesOnly = 9

// Kinds of damage to a store at rest.
func Kinds() []Kind {
	return []Kind{
		{"bit flip", 1, flips},
		{"header bit", 1, headerBits},
		{"zeroed sector", 8, wiped("sector", sector, zeros)},
		{"zeroed page", 8, wiped("page", page, zeros)},
		{"garbage sector", 8, wiped("sector of garbage", sector, garbage)},
		{"truncated", 2, truncated},
		{"extended", 64, extended},
		{"swapped sectors", 8, swappedSectors},
		{"misdirected", 8, misdirected},
		{"swapped files", 64, swappedFiles},
		{"stale file", 64, staleFiles},
		{"stale pair", 8, stalePairs},
		{"stale folder", 64, staleFolders},
		{"foreign", 64, foreign},
		{"missing", 64, missing},
		{"wrong sort", 64, wrongSort},
		{"unknown extra", 64, extras},
	}
}

// change is what one case does to a file, in bytes [from, to).
type change struct {
	what     string
	from, to int
	make     func(b []byte) []byte
}

// eachFile makes the cases of every file that has bytes.
func eachFile(f *Fixture, cases func(name string, b []byte, yield func(change) bool) bool) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		for _, name := range f.Image.Files() {
			b := f.Image[name]
			if len(b) == 0 {
				continue
			}
			more := cases(name, b, func(c change) bool {
				return yield(Case{
					Class: Class(name), What: fmt.Sprintf("%s: %s", name, c.what), File: name, Change: c.make,
					Cuts: f.cuts(name, c), Dull: c.to-c.from == 1 && allZero(b[max(0, c.from-8):min(len(b), c.to+8)]),
					Make: func() Image { return f.Image.With(name, c.make(b)) },
				})
			})
			if !more {
				return
			}
		}
	}
}

// cuts is the last commit before a change that reaches into the newest frame of a log
// that was not closed. Each frame's promise is in a later one, so what is destroyed up
// to the end may have been promised by nothing that is left.
func (f *Fixture) cuts(name string, c change) *uint64 {
	if !f.Loose || name != newest(f.Image) {
		return nil
	}
	b := f.Image[name]
	fr := frames(b)
	if last := fr[len(fr)-1]; c.from >= last.off+last.size || c.to <= last.off {
		return nil
	}
	var floor uint64
	for _, s := range fr {
		if s.off+s.size <= c.from && s.kind == kindData {
			floor = s.lastLSN(b)
		}
	}
	return &floor
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func flips(f *Fixture) iter.Seq[Case] {
	return eachFile(f, func(_ string, b []byte, yield func(change) bool) bool {
		for off := range b {
			if !yield(change{fmt.Sprintf("bit %d of byte %d", off%8, off), off, off + 1, func(b []byte) []byte { return flipped(b, off, off%8) }}) {
				return false
			}
		}
		return true
	})
}

// headerBits flips the seven bits of header bytes that flips leaves alone.
func headerBits(f *Fixture) iter.Seq[Case] {
	return eachFile(f, func(name string, b []byte, yield func(change) bool) bool {
		for _, s := range headers(name, b) {
			for off := s.off; off < s.off+s.size; off++ {
				for bit := range 8 {
					if bit != off%8 && !yield(change{fmt.Sprintf("bit %d of byte %d", bit, off), off, off + 1, func(b []byte) []byte { return flipped(b, off, bit) }}) {
						return false
					}
				}
			}
		}
		return true
	})
}

func flipped(b []byte, off, bit int) []byte {
	out := bytes.Clone(b)
	out[off] ^= 1 << bit
	return out
}

func zeros(n int, _ uint64) []byte { return make([]byte, n) }

func garbage(n int, seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// wiped overwrites each aligned unit.
func wiped(what string, unit int, fill func(n int, seed uint64) []byte) func(f *Fixture) iter.Seq[Case] {
	return func(f *Fixture) iter.Seq[Case] {
		return eachFile(f, func(_ string, b []byte, yield func(change) bool) bool {
			for off := 0; off < len(b); off += unit {
				n := min(unit, len(b)-off)
				put := fill(n, uint64(off))
				if bytes.Equal(put, b[off:off+n]) {
					continue
				}
				if !yield(change{fmt.Sprintf("%s at %d", what, off), off, off + n, func(b []byte) []byte { return over(b, off, put) }}) {
					return false
				}
			}
			return true
		})
	}
}

// part is bytes with a name.
type part struct {
	name string
	b    []byte
}

// over is b with more written at off; the file grows if it must.
func over(b []byte, off int, more []byte) []byte {
	out := make([]byte, max(len(b), off+len(more)))
	copy(out, b)
	copy(out[off:], more)
	return out
}

// truncated cuts STATE and the log at every length where something is written, and at
// every 16 bytes of zeros; the other files at every 64 bytes.
func truncated(f *Fixture) iter.Seq[Case] {
	return eachFile(f, func(name string, b []byte, yield func(change) bool) bool {
		step := 64
		if c := Class(name); c == "STATE" || c == "log" {
			step = 1
		}
		for n := 0; n < len(b); n += step {
			if step == 1 && n%16 != 0 && b[n-1] == 0 && b[n] == 0 {
				continue
			}
			if !yield(change{fmt.Sprintf("cut to %d bytes", n), n, len(b), func(b []byte) []byte { return b[:n:n] }}) {
				return false
			}
		}
		return true
	})
}

func extended(f *Fixture) iter.Seq[Case] {
	return eachFile(f, func(_ string, b []byte, yield func(change) bool) bool {
		for _, n := range []int{1, 7, 8, 64, sector, page, 3 * page} {
			for _, more := range []part{{"garbage", garbage(n, uint64(n))}, {"zeros", zeros(n, 0)}, {"its own end", b[max(0, len(b)-n):]}} {
				if !yield(change{fmt.Sprintf("and %d bytes of %s", n, more.name), len(b), len(b) + n, func(b []byte) []byte { return over(b, len(b), more.b) }}) {
					return false
				}
			}
		}
		return true
	})
}

// swappedSectors exchanges each sector with some later ones, near and far.
func swappedSectors(f *Fixture) iter.Seq[Case] {
	return eachFile(f, func(_ string, b []byte, yield func(change) bool) bool {
		for i := 0; i+sector <= len(b); i += sector {
			for _, d := range []int{1, 2, 3, 5, 8, 13, 21} {
				j := i + d*sector
				if j+sector > len(b) || bytes.Equal(b[i:i+sector], b[j:j+sector]) {
					continue
				}
				if !yield(change{fmt.Sprintf("sectors at %d and %d swapped", i, j), i, j + sector, func(b []byte) []byte {
					return over(over(b, i, b[j:j+sector]), j, b[i:i+sector])
				}}) {
					return false
				}
			}
		}
		return true
	})
}

// misdirected writes each frame, blob, slot or sector a second time where another
// lies, and behind the last.
func misdirected(f *Fixture) iter.Seq[Case] {
	return eachFile(f, func(name string, b []byte, yield func(change) bool) bool {
		all := units(name, b)
		places := make([]int, 0, len(all)+1)
		for _, u := range all {
			places = append(places, u.off)
		}
		if n := len(all); n > 0 {
			places = append(places, all[n-1].off+all[n-1].size)
		}
		for _, u := range all {
			for _, at := range places {
				if at == u.off || at+u.size > len(b) && !strings.HasSuffix(name, ".pack") {
					continue
				}
				if !yield(change{fmt.Sprintf("%d bytes at %d written at %d, too", u.size, u.off, at), at, at + u.size, func(b []byte) []byte {
					return over(b, at, u.of(b))
				}}) {
					return false
				}
			}
		}
		return true
	})
}
