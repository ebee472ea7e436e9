package simfs

import (
	"slices"
	"time"
)

// write is one change of a file's bytes or of its length that no sync has covered.
type write struct {
	seq  uint64
	off  int64
	n    int64
	data []byte // nil: n zeros
	size int64  // of the file after it
}

func (w *write) extent() extent { return extent{w.off, w.off + w.n} }

// apply puts the part of w inside e into c; the size is the caller's affair.
func (w *write) apply(c *content, e extent) {
	e = e.and(w.extent())
	if e.off >= e.end {
		return
	}
	if w.data == nil {
		c.zero(e.off, e.end-e.off)
		return
	}
	size := c.size
	c.writeAt(w.data[e.off-w.off:e.end-w.off], e.off)
	c.size = size
}

// inode is a file or a directory, whatever its names.
type inode struct {
	id    uint64
	dir   bool
	mod   time.Time
	links int // names that are visible
	open  int // handles

	// A file. Always data == disk + writes, except in lost.
	data   content  // what readers see
	disk   content  // what every crash keeps
	writes []write  // oldest first
	lost   []extent // marked clean by a failed sync, never written

	alloc, allocKept         int64    // preallocated up to; the same, synced
	unwritten, unwrittenKept []extent // preallocated and never written: nothing but zeros on the device

	// A directory. Always entries == kept + the pending nameOps.
	entries map[string]*inode
	kept    map[string]*inode
	last    map[string]*nameOp // the newest pending operation per name
	parent  *inode
	bound   *nameOp // gave the directory its name
}

func (n *inode) charge() int64 { return max(n.data.size, n.alloc) }

// record notes a change that readers see already. A page that was marked clean
// although it never reached the disk becomes dirty as a whole when a byte of it is
// written again, so that what was lost may come back.
func (n *inode) record(seq uint64, w write) {
	w.seq = seq
	if w.n > 0 && len(n.lost) > 0 {
		dirty := w.extent().grow(PageSize)
		for _, l := range n.lost {
			if l = l.and(dirty); l.off < l.end {
				n.writes = append(n.writes, write{seq, l.off, l.end - l.off, n.data.span(l.off, l.end-l.off), w.size})
			}
		}
		n.lost = without(n.lost, dirty)
	}
	n.writes = append(n.writes, w)
}

// syncData moves everything up to seq to the disk.
func (n *inode) syncData(upto uint64) {
	i := 0
	for ; i < len(n.writes) && n.writes[i].seq <= upto; i++ {
		w := &n.writes[i]
		n.disk.resize(max(w.size, n.disk.size))
		w.apply(&n.disk, w.extent())
		n.disk.resize(w.size)
		n.unwritten = without(n.unwritten, w.extent())
	}
	n.writes = append([]write(nil), n.writes[i:]...)
	n.allocKept, n.unwrittenKept = n.alloc, slices.Clone(n.unwritten)
}

// loseData is what a failed sync does on Linux: everything up to seq counts as
// clean from here on, readers see it, and it never was written. Lengths are
// metadata; they stay unsynced, and a later sync keeps them.
func (n *inode) loseData(upto uint64) {
	for i := range n.writes {
		w := &n.writes[i]
		if w.seq > upto {
			break
		}
		if w.n > 0 {
			n.lost = append(without(n.lost, w.extent()), w.extent())
		}
		w.n, w.data = 0, nil
	}
}

// evict forgets clean pages: readers see what the disk and the dirty pages hold.
func (n *inode) evict() {
	size := n.data.size
	n.data = n.disk.clone()
	n.data.resize(max(size, n.data.size))
	for i := range n.writes {
		n.writes[i].apply(&n.data, n.writes[i].extent())
	}
	n.data.resize(size)
	n.lost = nil
}
