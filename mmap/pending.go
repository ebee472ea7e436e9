package mmap

// PackInfo describes a pack that is there.
type PackInfo struct {
	Num     uint64
	Bytes   int64
	Sealed  bool
	Pending int
}

// Settle takes back the pin of a Write once its reference was committed or given up.
func (s *Store) Settle(ref []byte) {
	r, err := DecodeRef(ref)
	if err != nil {
		return
	}
	s.packs.mu.Lock()
	if p := s.packs.m[r.Pack]; p != nil && p.pending > 0 {
		p.pending--
	}
	s.packs.mu.Unlock()
}

// PackInfos lists the packs.
func (s *Store) PackInfos() ([]PackInfo, error) {
	// Order: sealed, then pending. A sealed pack gets no blob, so none comes in between.
	sealed := make(map[uint64]bool)
	for _, num := range s.Packs() {
		sealed[num] = !s.writesTo(num)
	}
	var out []PackInfo
	s.packs.mu.Lock()
	for _, p := range s.packs.m {
		out = append(out, PackInfo{Num: p.num, Sealed: sealed[p.num], Pending: p.pending, Bytes: int64(p.published.Load())})
	}
	s.packs.mu.Unlock()
	for i := range out {
		if out[i].Bytes == 0 {
			fi, err := s.o.FS.Stat(s.path(out[i].Num))
			if err != nil {
				return nil, err
			}
			out[i].Bytes = fi.Size()
		}
	}
	return out, nil
}
