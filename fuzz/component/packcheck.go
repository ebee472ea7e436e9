package component

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/mmap"
)

// packErrors is all that may be said of a blob that is not right.
var packErrors = []error{mmap.ErrCorrupt, mmap.ErrMissing}

func typed(err error) bool {
	for _, k := range packErrors {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

func (l *packLife) recover(i int, _ simfs.Image, disk *simfs.FS, goOn bool) (life, error) {
	f := l.moments[i].facts
	o := l.opt
	o.FS, o.ReadOnly = disk, true
	s, err := mmap.Open(o)
	if err != nil {
		return nil, oracle.Broken(oracle.Lost, "", 0, "open: %w", err)
	}
	known := l.blobs[:min(f.most, len(l.blobs))]
	if err := errors.Join(l.look(i, f, s, known), s.Close()); err != nil || !goOn {
		return nil, err
	}
	c := &packLife{rnd: rand.New(rand.NewPCG(l.rnd.Uint64(), 1)), opt: l.opt, born: f}
	// What is gone, or may be, is of no interest to the next life: those who removed
	// it have nothing that names it.
	for n, b := range known {
		if !f.dead(&b) {
			c.blobs = append(c.blobs, b)
			continue
		}
		if n < f.durable {
			c.born.durable--
		}
	}
	return c, nil
}

// look reads every blob that may be there.
func (l *packLife) look(i int, f packFacts, s *mmap.Store, known []blob) error {
	for n := range known {
		b := &known[n]
		name := fmt.Sprintf("pack %d, offset %d", b.at.Pack, b.at.Offset)
		certain := n < f.durable && !f.dead(b)
		value, read := readBlob(s, b.ref)
		has, exists, verified := s.Has(b.ref), read, read
		if !certain || (n+i)%4 == 0 { // a read looks at all of it anyway
			exists, verified = s.Exists(b.ref), s.Verify(b.ref)
		}
		for _, err := range []error{has, exists, verified, read} {
			switch {
			case err == nil:
			case certain:
				return oracle.Broken(oracle.Lost, name, 0, "a sync covered it: %w", err)
			case !typed(err):
				return oracle.Broken(oracle.Lied, name, 0, "an error of no type that damage has: %w", err)
			}
		}
		switch {
		case read == nil && !bytes.Equal(value, b.value()):
			return oracle.Broken(oracle.Lied, name, 0, "reads as something else")
		case (verified == nil) != (read == nil):
			return oracle.Broken(oracle.Lied, name, 0, "verify says %v, a read says %v", verified, read)
		case (exists == nil) != (verified == nil):
			return oracle.Broken(oracle.Lied, name, 0, "exists says %v, verify says %v", exists, verified)
		case f.gone[b.at.Pack] && has == nil:
			return oracle.Broken(oracle.Resurrected, name, 0, "its pack was removed, and the folder synced")
		case f.left[b.at] && read == nil:
			return oracle.Broken(oracle.Resurrected, name, 0, "a rewrite left it out, and the folder was synced")
		}
	}
	return nil
}

func readBlob(s *mmap.Store, ref []byte) ([]byte, error) {
	b, err := s.Open(ref)
	if err != nil {
		return nil, err
	}
	v, err := b.AppendTo(nil)
	return v, errors.Join(err, b.Close())
}
