package oracle

import (
	"encoding/binary"
	"hash/fnv"
)

// Digest is a fingerprint of keys, values and revisions of everything in b.
func Digest(s Store, b Bounds) (uint64, error) {
	h := fnv.New64a()
	var n [8]byte
	part := func(p []byte) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	for c, err := range s.Scan(b, false) {
		if err != nil {
			return 0, err
		}
		part(c.Key)
		part(c.Value)
		binary.LittleEndian.PutUint64(n[:], c.Revision)
		h.Write(n[:])
	}
	return h.Sum64(), nil
}

// Frozen checks O8: it takes the digest of a snapshot now, and compares it later.
type Frozen struct {
	s      Store
	lsn    uint64
	digest uint64
}

// Freeze takes the first digest of the snapshot at commit lsn.
func Freeze(s Store, lsn uint64) (*Frozen, error) {
	d, err := Digest(s, Bounds{})
	return &Frozen{s, lsn, d}, err
}

// Check takes it again. The store's error is returned as it is.
func (f *Frozen) Check() error {
	d, err := Digest(f.s, Bounds{})
	if err == nil && d != f.digest {
		return Broken(Moved, "", f.lsn, "digest %016x, was %016x", d, f.digest)
	}
	return err
}

// Same checks O5: the digests of two openings in a row, with no write between.
func Same(first, second uint64) error {
	if first != second {
		return Broken(Unstable, "", 0, "two openings in a row show different contents")
	}
	return nil
}
