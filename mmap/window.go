package mmap

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// window is the mapping of one blob. Its header and footer were verified; its
// frames are verified when they are first touched.
type window struct {
	key    windowKey
	ref    Ref    // what the header was compared with
	region []byte // what is mapped: from a page border to the blob's end
	blob   []byte // the blob in it
	layout *layout

	verified []atomic.Uint32 // one bit a frame
	all      atomic.Bool
	// touched has a bit for each frame that counts as resident. It is read
	// without a lock and changed under windows.mu, with warm.
	touched []atomic.Uint32
	seen    []atomic.Uint32 // frames that a small read had since; see again

	// Guarded by windows.mu.
	pins   int
	gone   bool          // not in the table any more; unmapped with the last pin
	at     *list.Element // in lru while nobody pins it
	warm   int64         // bytes of the frames that are touched
	inside int           // Views and Bytes that have the whole of it
	queued *list.Element // in idle or busy while warm
	queue  *list.List    // which of them
}

func newWindow(r Ref, region, blob []byte, l *layout) *window {
	words := (len(l.sums) + 31) / 32
	return &window{
		key: windowKey{r.Pack, r.Offset}, ref: r, region: region, blob: blob, layout: l,
		verified: make([]atomic.Uint32, words), touched: make([]atomic.Uint32, words), seen: make([]atomic.Uint32, words),
	}
}

type windowKey struct{ pack, offset uint64 }

func (w *window) isVerified(i uint64) bool {
	return w.all.Load() || w.verified[i/32].Load()&(1<<(i%32)) != 0
}

func (w *window) setVerified(i uint64) { w.verified[i/32].Or(1 << (i % 32)) }

// windows is the table of mappings: bounded in number, in address space and in
// what is resident of them (M7). What nobody pins stays until its place is
// needed, oldest first.
type windows struct {
	maxBytes int64 // of address space
	maxCount int

	mu      sync.Mutex // guards all below
	maxWarm int64      // resident
	m       map[windowKey]*window
	lru     list.List // of *window that nobody pins, oldest first
	bytes   int64     // mapped, in whole pages
	// Of *window with pages to give back, oldest first: not pinned, and pinned.
	idle, busy list.List
	warm       int64 // resident by our count
	given      uint64
	count      int
	pins       int
	closed     bool
	made       uint64
	refused    uint64
	unmapped   uint64
}

// pagesOf is the part of the region that has these bytes of the blob, from a
// page border on.
func (w *window) pagesOf(from, to uint64) []byte {
	at := uint64(len(w.region) - len(w.blob))
	return w.region[(at+from)&^uint64(pageSize-1) : at+to]
}

func pages(n int) int64 { return (int64(n) + int64(pageSize) - 1) &^ (int64(pageSize) - 1) }

// get pins the mapping of a blob if there is one.
func (ws *windows) get(k windowKey) *window {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.m[k]
	if w == nil {
		return nil
	}
	ws.pinLocked(w)
	return w
}

func (ws *windows) pinLocked(w *window) {
	if w.at != nil {
		ws.lru.Remove(w.at)
		w.at = nil
	}
	w.pins++
	ws.pins++
	if w.pins == 1 {
		ws.queueLocked(w)
	}
}

// reserve makes room for n bytes. With evict it may unmap what nobody pins.
func (ws *windows) reserve(n int64, evict bool) bool {
	ws.mu.Lock()
	var victims []*window
	ok := !ws.closed && n <= ws.maxBytes
	for ok && (ws.bytes+n > ws.maxBytes || ws.count+1 > ws.maxCount) {
		oldest := ws.lru.Front()
		if !evict || oldest == nil {
			ok = false
			break
		}
		w := oldest.Value.(*window)
		ws.dropLocked(w)
		victims = append(victims, w)
	}
	if ok {
		ws.bytes += n
		ws.count++
	} else {
		ws.refused++
	}
	ws.mu.Unlock()
	ws.unmap(victims)
	return ok
}

func (ws *windows) unreserve(n int64) {
	ws.mu.Lock()
	ws.bytes -= n
	ws.count--
	ws.mu.Unlock()
}

// add enters a new mapping, pinned. If another reader was faster, its mapping
// is returned and w goes.
func (ws *windows) add(w *window) *window {
	ws.mu.Lock()
	if other := ws.m[w.key]; other != nil {
		ws.pinLocked(other)
		ws.bytes -= pages(len(w.region))
		ws.count--
		ws.unmapped++
		ws.made++
		ws.mu.Unlock()
		_ = unmap(w.region)
		return other
	}
	ws.m[w.key] = w
	ws.pinLocked(w)
	ws.made++
	if ws.closed { // since reserve: lives as long as its pin
		delete(ws.m, w.key)
		w.gone = true
	}
	ws.mu.Unlock()
	return w
}

// put gives a pin back.
func (ws *windows) put(w *window) {
	ws.mu.Lock()
	w.pins--
	ws.pins--
	var victims []*window
	if w.pins == 0 {
		if w.gone {
			ws.freeLocked(w)
			victims = append(victims, w)
		} else {
			if w.warm > 0 {
				w.at = ws.lru.PushBack(w)
			} else {
				w.at = ws.lru.PushFront(w) // nothing is lost with it
			}
			ws.queueLocked(w)
		}
	}
	ws.mu.Unlock()
	ws.unmap(victims)
}

// forget takes a mapping out of the table, so that nobody new gets it: its
// bytes were found wrong.
func (ws *windows) forget(w *window) {
	ws.mu.Lock()
	if !w.gone {
		delete(ws.m, w.key)
		w.gone = true
	}
	ws.mu.Unlock()
}

// dropLocked takes an unpinned mapping out for good.
func (ws *windows) dropLocked(w *window) {
	ws.lru.Remove(w.at)
	w.at = nil
	delete(ws.m, w.key)
	w.gone = true
	ws.freeLocked(w)
}

func (ws *windows) freeLocked(w *window) {
	ws.bytes -= pages(len(w.region))
	ws.count--
	ws.unmapped++
	ws.coolLocked(w)
}

func (ws *windows) unmap(list []*window) {
	for _, w := range list {
		region := w.region
		w.region, w.blob = nil, nil // a use after this is a bug we want to see in Go
		_ = unmap(region)           // fails only for a range that is not ours
	}
}

// dropPack takes the mappings of one pack out of the table; those that are
// pinned go with their last pin.
func (ws *windows) dropPack(num uint64) {
	ws.mu.Lock()
	var victims []*window
	for k, w := range ws.m {
		switch {
		case k.pack != num:
		case w.pins == 0:
			ws.dropLocked(w)
			victims = append(victims, w)
		default:
			delete(ws.m, k)
			w.gone = true
		}
	}
	ws.mu.Unlock()
	ws.unmap(victims)
}

// drop unmaps what nobody pins. With close, the rest goes with its last pin.
func (ws *windows) drop(close bool) {
	ws.mu.Lock()
	var victims []*window
	for ws.lru.Len() > 0 {
		w := ws.lru.Front().Value.(*window)
		ws.dropLocked(w)
		victims = append(victims, w)
	}
	if close {
		ws.closed = true
		for k, w := range ws.m {
			delete(ws.m, k)
			w.gone = true
		}
	}
	ws.mu.Unlock()
	ws.unmap(victims)
}
