package storage

import (
	"errors"
	"os"
	"strings"
)

// hold keeps, while L3 is being judged, what Pebble calls obsolete as it opens. A
// manifest that lost its end, by one bit or by being put back, opens without complaint
// as an older L3, and Pebble at once removes every table that the older manifest does
// not name, and every marker but the one it followed. Only the watermark shows that
// those were the newest.
type hold struct {
	on    bool
	names []string
}

// holds says that name is kept for now, and remembers it.
func (g *gate) holds(name string) bool {
	base := g.inner.PathBase(name)
	ofL3 := g.inner.PathDir(name) == g.dir && (strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker."))
	if !ofL3 && !g.table(name) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold.on {
		g.hold.names = append(g.hold.names, name)
	}
	return g.hold.on
}

// Release removes what Options.Hold kept, lets compactions begin, and ends the hold.
// Numbers of files are never used twice, so no name has come to mean another file. A
// file that cannot be removed is garbage and no error.
func (s *Store) Release() error {
	s.fs.mu.Lock()
	names := s.fs.hold.names
	s.fs.hold = hold{}
	s.fs.mu.Unlock()
	if err := s.fs.fault(); err != nil {
		return err // nothing is changed behind a closed gate
	}
	for _, name := range names {
		// Past the gate, which a manifest that stays would close: these are obsolete.
		if err := s.fs.inner.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("storage: an obsolete file stays", "file", name, "error", err)
		}
	}
	s.sched.open()
	return nil
}
