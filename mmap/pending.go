package mmap

import (
	"cmp"
	"errors"
	"os"
	"slices"
)

// Settle takes back what Write or Writer.Finish left on the pack of the
// blob they returned: its reference was committed, or given up. It is called
// once for each of them. A reference that is none, or of a pack that is not
// there, is passed over.
func (s *Store) Settle(ref []byte) {
	r, err := DecodeRef(ref)
	if err != nil {
		return
	}
	s.packs.mu.Lock()
	defer s.packs.mu.Unlock()
	if p := s.packs.m[r.Pack]; p != nil && p.pending > 0 {
		p.pending--
	}
}

// PackInfo describes a pack that is there.
type PackInfo struct {
	Num   uint64
	Bytes int64
	// Sealed: it gets no more blobs, and what it has is durable.
	Sealed bool
	// Pending counts its blobs that were written in this open and not settled.
	Pending int
}

// PackInfos describes the packs there are, by number. It asks the file system
// once for the length of each pack of an earlier open. One that will not say is left out.
func (s *Store) PackInfos() []PackInfo {
	// Order: sealed, then pending. A sealed pack gets no blob, so none comes in between.
	sealed := make(map[uint64]bool)
	for _, num := range s.Packs() {
		sealed[num] = !s.writesTo(num)
	}
	s.packs.mu.Lock()
	list := make([]*pack, 0, len(s.packs.m))
	for _, p := range s.packs.m {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *pack) int { return cmp.Compare(a.num, b.num) })
	out := make([]PackInfo, 0, len(list))
	for _, p := range list {
		out = append(out, PackInfo{Num: p.num, Pending: p.pending, Sealed: sealed[p.num]})
	}
	s.packs.mu.Unlock()

	kept := out[:0]
	for i, p := range list {
		n, err := s.packBytes(p)
		if errors.Is(err, os.ErrNotExist) && !s.has(p) {
			continue // removed meanwhile
		}
		if err != nil {
			s.log.Warn("mmap: the length of a pack", "pack", packName(p.num), "err", err)
			continue
		}
		out[i].Bytes = n
		kept = append(kept, out[i])
	}
	return kept
}

// packBytes is how long the pack is: what was published of one of ours that is whole.
func (s *Store) packBytes(p *pack) (int64, error) {
	if n := p.published.Load(); n != 0 && !p.torn.Load() {
		return int64(n), nil
	}
	if n := p.statted.Load(); n != 0 {
		return n, nil
	}
	info, err := s.o.FS.Stat(p.name)
	if err != nil {
		return 0, err
	}
	p.statted.Store(info.Size())
	return info.Size(), nil
}

func (s *Store) has(p *pack) bool {
	s.packs.mu.Lock()
	defer s.packs.mu.Unlock()
	return s.packs.m[p.num] == p
}
