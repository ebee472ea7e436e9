package mmap

import "fmt"

// View calls fn with the value; the slice is valid inside fn only and must not
// be modified. A raw value is not copied: it is the mapping itself, verified
// and made resident first. If its file is cut while fn reads, View returns
// ErrCorrupt. What fn returns or panics with comes through unchanged.
//
// A raw value is mapped even where it is larger than MaxMappedBytes, for a copy
// of it would be worse; its pages are given back when View ends.
func (b *Blob) View(fn func(value []byte) error) error {
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	l, w, err := b.begin(b.ref.Codec == Raw)
	if err != nil {
		return err
	}
	if b.ref.Codec == Raw && w != nil {
		b.s.windows.enter(w)
		defer b.s.windows.exit(w)
		if err := b.verifyWindow(l, w); err != nil {
			return b.s.seen(err)
		}
		value := w.blob[blobHeaderLen:][:b.ref.Size:b.ref.Size]
		return b.faulted(w, blobHeaderLen, guard(w.region, func() error { return fn(value) }))
	}
	buf := getBuffer(0)
	defer putBuffer(buf)
	if *buf, err = b.appendTo((*buf)[:0]); err != nil {
		return err
	}
	return fn(*buf)
}

// Bytes returns the value, which must not be modified and is valid until Close.
// A raw value that is mapped is the mapping itself, verified and made resident
// when it is first asked for; else it is a copy that the Blob keeps. An access
// to the mapping is the caller's own: if its file is cut meanwhile, the process
// gets a fault that no guard of ours can catch. With Options.NoMap it is a copy.
//
// A raw value is mapped even where it is larger than MaxMappedBytes; its pages
// are given back at Close.
func (b *Blob) Bytes() ([]byte, error) {
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.leave()
	b.bytesMu.Lock()
	defer b.bytesMu.Unlock()
	if b.bytes != nil {
		return b.bytes, nil
	}
	l, w, err := b.begin(b.ref.Codec == Raw)
	if err != nil {
		return nil, err
	}
	if b.ref.Codec == Raw && w != nil {
		b.s.windows.enter(w)
		if err := b.verifyWindow(l, w); err != nil {
			b.s.windows.exit(w)
			return nil, b.s.seen(err)
		}
		b.inside = true
		b.bytes = w.blob[blobHeaderLen:][:b.ref.Size:b.ref.Size]
		return b.bytes, nil
	}
	value, err := b.appendTo([]byte{})
	if err != nil {
		return nil, err
	}
	b.bytes = value[:len(value):len(value)]
	return b.bytes, nil
}

// verifyWindow makes a raw blob's mapping resident and verifies what was not
// verified in this mapping yet.
func (b *Blob) verifyWindow(l *layout, w *window) error {
	if err := populate(w.region); err != nil {
		return b.faulted(w, 0, &fault{err})
	}
	if w.all.Load() {
		return nil
	}
	for i := range uint64(len(l.sums)) {
		if err := b.verifyMapped(l, w, i); err != nil {
			return err
		}
	}
	w.all.Store(true)
	return nil
}

func (b *Blob) verifyMapped(l *layout, w *window, i uint64) error {
	if w.isVerified(i) {
		return nil
	}
	from, to := l.stored(i, b.ref.Size)
	var sum uint32
	err := guard(w.region, func() error {
		sum = checksum(w.blob[blobHeaderLen+from : blobHeaderLen+to])
		return nil
	})
	if err != nil {
		return b.faulted(w, blobHeaderLen+from, err)
	}
	if sum != l.sums[i] {
		b.s.windows.forget(w)
		return b.p.corrupt(b.at+blobHeaderLen+from, fmt.Sprintf("frame %d: checksum", i), nil)
	}
	w.setVerified(i)
	return nil
}
