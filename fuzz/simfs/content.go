package simfs

import (
	"bytes"
	"slices"
)

// Units of the simulated device.
const (
	// SectorSize is what a device writes whole or not at all.
	SectorSize = 512
	// PageSize is what a kernel keeps, marks clean, and writes back together.
	PageSize = 4096
)

type page [PageSize]byte

// content is the bytes of a file in pages that several contents may share. A nil
// page is zeros, and so is all from size on.
type content struct {
	pages []*page
	own   []bool // own[i]: nobody else sees pages[i], it may be written in place
	size  int64
}

// clone shares every page; from now on both sides copy before they write.
func (c *content) clone() content {
	clear(c.own)
	return content{pages: slices.Clone(c.pages), own: make([]bool, len(c.own)), size: c.size}
}

// copied is clone for a content that owns no page and is read by many.
func (c *content) copied() content {
	return content{pages: slices.Clone(c.pages), own: make([]bool, len(c.own)), size: c.size}
}

// readAt fills p from off on and returns how much of it lies below size.
func (c *content) readAt(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	for done := 0; done < len(p); {
		i, at := (off+int64(done))/PageSize, (off+int64(done))%PageSize
		n := min(len(p)-done, PageSize-int(at))
		if int(i) < len(c.pages) && c.pages[i] != nil {
			copy(p[done:done+n], c.pages[i][at:])
		} else {
			clear(p[done : done+n])
		}
		done += n
	}
	return len(p)
}

// span returns n bytes from off on, zeros where the file has none.
func (c *content) span(off, n int64) []byte {
	p := make([]byte, n)
	c.readAt(p, off)
	return p
}

// writable returns page i, made and owned.
func (c *content) writable(i int64) *page {
	if n := int(i) + 1 - len(c.pages); n > 0 {
		c.pages = append(c.pages, make([]*page, n)...)
		c.own = append(c.own, make([]bool, n)...)
	}
	if !c.own[i] {
		fresh := new(page)
		if c.pages[i] != nil {
			*fresh = *c.pages[i]
		}
		c.pages[i], c.own[i] = fresh, true
	}
	return c.pages[i]
}

// writeAt stores p and lets the file grow over it.
func (c *content) writeAt(p []byte, off int64) {
	for done := 0; done < len(p); {
		i, at := (off+int64(done))/PageSize, (off+int64(done))%PageSize
		n := min(len(p)-done, PageSize-int(at))
		copy(c.writable(i)[at:], p[done:done+n])
		done += n
	}
	c.size = max(c.size, off+int64(len(p)))
}

// isZeros spares files of zeros, which logs begin with, their bytes.
func isZeros(p []byte) bool {
	var none page
	for ; len(p) > PageSize; p = p[PageSize:] {
		if !bytes.Equal(p[:PageSize], none[:]) {
			return false
		}
	}
	return bytes.Equal(p, none[:len(p)])
}

// zero clears what exists of [off, off+n); the size stays.
func (c *content) zero(off, n int64) {
	end := min(off+n, int64(len(c.pages))*PageSize)
	for off < end {
		i, at := off/PageSize, off%PageSize
		k := min(end-off, PageSize-at)
		if c.pages[i] != nil {
			clear(c.writable(i)[at : at+k])
		}
		off += k
	}
}

// resize cuts the file, or lets it grow by zeros.
func (c *content) resize(size int64) {
	if size < c.size {
		c.zero(size, c.size-size)
		keep := int((size + PageSize - 1) / PageSize)
		if keep < len(c.pages) {
			c.pages, c.own = c.pages[:keep:keep], c.own[:keep:keep]
		}
	}
	c.size = size
}

func (c *content) bytes() []byte { return c.span(0, c.size) }

// extent is the bytes from off up to end.
type extent struct{ off, end int64 }

func (e extent) overlaps(o extent) bool { return e.off < o.end && o.off < e.end }

func (e extent) covers(o extent) bool { return e.off <= o.off && o.end <= e.end }

func (e extent) and(o extent) extent { return extent{max(e.off, o.off), min(e.end, o.end)} }

// grow rounds e outward to multiples of unit.
func (e extent) grow(unit int64) extent {
	return extent{e.off / unit * unit, (e.end + unit - 1) / unit * unit}
}

// without removes cut from every extent of list.
func without(list []extent, cut extent) []extent {
	var out []extent
	for _, e := range list {
		if !e.overlaps(cut) {
			out = append(out, e)
			continue
		}
		if e.off < cut.off {
			out = append(out, extent{e.off, cut.off})
		}
		if cut.end < e.end {
			out = append(out, extent{cut.end, e.end})
		}
	}
	return out
}
