package mmap

import "container/list"

// maxAddress bounds the address space of a store's mappings. It costs next to
// nothing; 1 TiB of the 128 that a process has holds many of the largest values.
const maxAddress = 1 << 40

func (w *window) isTouched(i uint64) bool { return w.touched[i/32].Load()&(1<<(i%32)) != 0 }

// touch counts frame i, of n bytes as stored, as resident before it is read
// through the mapping, and gives back others for it. It returns false where
// nothing can be given back; then the frame is to be read from the file. The
// window is pinned. Once a frame is touched, no lock is taken.
//
// A reader that is past touch while the window is given back makes pages
// resident that are not counted, until the frame is next touched: as many
// frames as there are readers, at most.
func (ws *windows) touch(w *window, i uint64, n int64) bool {
	if w.isTouched(i) {
		return true
	}
	ws.mu.Lock()
	var victims []*window
	var ok bool
	if n > ws.maxWarm {
		// Cooling everything would not make room.
	} else if !w.isTouched(i) {
		victims = ws.roomLocked(n)
		if ok = ws.warm+n <= ws.maxWarm; ok {
			w.touched[i/32].Or(1 << (i % 32))
			ws.warmLocked(w, n)
		}
	} else {
		ok = true
	}
	ws.mu.Unlock()
	ws.giveBack(victims)
	return ok
}

// again says whether a small read of frame i is worth making its pages resident: they
// are, or it is not the first such read since the window was last given back. A page
// fault costs more than two reads through the file, a resident page a third of one.
func (w *window) again(i uint64) bool {
	if w.isTouched(i) {
		return true
	}
	bit := uint32(1) << (i % 32)
	return w.seen[i/32].Or(bit)&bit != 0
}

// enter counts the whole of a window for a View or Bytes, which read it without
// asking. Until exit it is not given back. It may pass the bound, for the
// alternative is a copy that cannot be given back at all.
func (ws *windows) enter(w *window) {
	ws.mu.Lock()
	w.inside++
	n := w.whole() - w.warm
	victims := ws.roomLocked(n)
	if n > 0 {
		for i := range w.touched {
			w.touched[i].Store(^uint32(0))
		}
		ws.warmLocked(w, n)
	}
	ws.mu.Unlock()
	ws.giveBack(victims)
}

// bound changes how much may be resident.
func (ws *windows) bound(n int64) {
	ws.mu.Lock()
	ws.maxWarm = n
	victims := ws.roomLocked(0)
	ws.mu.Unlock()
	ws.giveBack(victims)
}

// exit ends what enter began, and gives back what is above the bound.
func (ws *windows) exit(w *window) {
	ws.mu.Lock()
	w.inside--
	victims := ws.roomLocked(0)
	ws.mu.Unlock()
	ws.giveBack(victims)
}

// whole is how many bytes all frames of the window have.
func (w *window) whole() int64 {
	n := uint64(len(w.layout.sums))
	if n == 0 {
		return 0
	}
	_, to := w.layout.stored(n-1, w.ref.Size)
	return int64(to)
}

// roomLocked cools windows until n bytes more are within the bound, or nothing
// is left to cool: first what nobody pins, then what is pinned and has neither a
// View nor Bytes on it. They are pinned until giveBack is done with them.
func (ws *windows) roomLocked(n int64) (victims []*window) {
	for ws.warm+n > ws.maxWarm {
		w := oldest(&ws.idle)
		if w == nil {
			w = oldest(&ws.busy)
		}
		if w == nil {
			break
		}
		ws.coolLocked(w)
		ws.given++
		ws.pinLocked(w)
		victims = append(victims, w)
	}
	return victims
}

func oldest(l *list.List) *window {
	for e := l.Front(); e != nil; e = e.Next() {
		if w := e.Value.(*window); w.inside == 0 {
			return w
		}
	}
	return nil
}

// giveBack frees the pages of windows that were cooled, each with one call and
// outside the lock: it takes milliseconds for a large one.
func (ws *windows) giveBack(victims []*window) {
	for _, w := range victims {
		_ = giveBack(w.region) // fails only for a range that is not ours
		ws.put(w)
	}
}

func (ws *windows) warmLocked(w *window, n int64) {
	w.warm += n
	ws.warm += n
	if w.queued == nil {
		ws.queueLocked(w)
	}
}

// coolLocked takes a window out of the count. What was verified stays so.
func (ws *windows) coolLocked(w *window) {
	if w.warm == 0 {
		return
	}
	for i := range w.touched {
		w.touched[i].Store(0)
		w.seen[i].Store(0)
	}
	ws.warm -= w.warm
	w.warm = 0
	ws.queueLocked(w)
}

// queueLocked puts a window into the queue it belongs to now, last.
func (ws *windows) queueLocked(w *window) {
	if w.queued != nil {
		w.queue.Remove(w.queued)
		w.queued, w.queue = nil, nil
	}
	if w.warm == 0 {
		return
	}
	w.queue = &ws.busy
	if w.pins == 0 {
		w.queue = &ws.idle
	}
	w.queued = w.queue.PushBack(w)
}
