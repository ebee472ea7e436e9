package cache

import "sync"

const flightShards = 64

// flight is a load that is under way. Its stamp is known from the start: the
// seq of the view its leader searched (C2).
type flight struct {
	stamp uint64
	key   string
	done  chan struct{}

	// Set before done is closed.
	cell []byte
	ok   bool
}

// flights is the table of loads, by hash.
type flights [flightShards]struct {
	mu sync.Mutex
	m  map[uint64]*flight
	_  [48]byte
}

// get returns the load in flight under the hash, of whichever key.
func (fs *flights) get(hash uint64) *flight {
	s := &fs[hash%flightShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[hash]
}

// lead enters f in place of prev. If another load took the place since prev
// was seen, that one is returned, to be joined or replaced.
func (fs *flights) lead(hash uint64, f, prev *flight) (other *flight) {
	s := &fs[hash%flightShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if cur := s.m[hash]; cur != nil && cur != prev {
		return cur
	}
	if s.m == nil {
		s.m = make(map[uint64]*flight)
	}
	s.m[hash] = f
	return nil
}

// land takes f out and wakes those who joined.
func (fs *flights) land(hash uint64, f *flight) {
	s := &fs[hash%flightShards]
	s.mu.Lock()
	if s.m[hash] == f {
		delete(s.m, hash)
	}
	s.mu.Unlock()
	close(f.done)
}
