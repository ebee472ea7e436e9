package live

import (
	"errors"
	"math/rand/v2"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// reader is one reader of versions.
type reader struct {
	*coherence
	rnd     *rand.Rand
	keys    *hotOrCold
	done    int
	key     []byte
	buf     []byte
	scratch []byte
}

// some makes some reads: mostly of single keys, sometimes through a snapshot or a scan.
func (r *reader) some() error {
	switch r.rnd.IntN(400) {
	case 0:
		return r.snapshotReads()
	case 1:
		return r.scan()
	}
	for range 16 {
		if err := r.one(r.keys.next()); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) one(k int) error {
	r.key = coherenceKey(r.key[:0], k)
	var version uint64
	floor := r.versions.Begin(k)
	var err error
	switch r.rnd.IntN(4) {
	case 0:
		err = r.e.View(r.key, func(v []byte) (err error) {
			version, err = unversioned(&r.scratch, k, v)
			return err
		})
	case 1:
		var v []byte
		if v, err = r.e.Get(r.key); err == nil {
			version, err = unversioned(&r.scratch, k, v)
		}
	case 2:
		if r.rnd.IntN(8) == 0 {
			return r.exists(k, floor)
		}
		fallthrough
	default:
		if r.buf, err = r.e.GetInto(r.buf[:0], r.key); err == nil {
			version, err = unversioned(&r.scratch, k, r.buf)
		}
	}
	r.done++
	return r.judge(k, floor, version, err)
}

func (r *reader) judge(k int, floor, version uint64, err error) error {
	absent := errors.Is(err, engine.ErrNotFound)
	if v := (*oracle.Verdict)(nil); err != nil && !absent {
		if errors.As(err, &v) {
			return err
		}
		return oracle.Broken(oracle.Lied, string(r.key), 0, "read: %w", err)
	}
	return r.versions.end(k, r.key, floor, version, absent)
}

// exists learns from an absence only; a presence may be of any version but a delete.
func (r *reader) exists(k int, floor uint64) error {
	found, err := r.e.Has(r.key)
	r.done++
	if err == nil && !found {
		err = engine.ErrNotFound
	}
	if err != nil {
		return r.judge(k, floor, 0, err)
	}
	if last := r.versions.issued[k].Load(); isDelete(floor) && last == floor {
		return oracle.Broken(oracle.Stale, string(r.key), 0, "is there, but version %d, the last one, is a delete", floor)
	}
	return nil
}

// snapshotReads reads through a snapshot: at least what was acknowledged before it was
// taken, at most what was written by then.
func (r *reader) snapshotReads() error {
	const n = 16
	var keys [n]int
	var floors, tops [n]uint64
	for i := range keys {
		keys[i] = r.keys.next()
		floors[i] = r.versions.Begin(keys[i])
	}
	snap, err := r.e.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	for i, k := range keys {
		tops[i] = r.versions.issued[k].Load()
	}
	for i, k := range keys {
		breathe(r.rnd)
		r.key = coherenceKey(r.key[:0], k)
		var version uint64
		r.buf, err = snap.GetInto(r.buf[:0], r.key)
		if errors.Is(err, engine.ErrSnapshotTooOld) {
			return nil
		}
		if err == nil {
			version, err = unversioned(&r.scratch, k, r.buf)
		}
		absent := errors.Is(err, engine.ErrNotFound)
		if err != nil && !absent {
			return r.judge(k, floors[i], version, err)
		}
		if err := r.within(k, floors[i], tops[i], version, absent, "snapshot"); err != nil {
			return err
		}
	}
	r.done += n
	r.snapshot.Add(n)
	return nil
}

// within judges what one moment shows of a key, between two versions.
func (r *reader) within(k int, floor, top, version uint64, absent bool, how string) error {
	name := string(coherenceKey(nil, k))
	if absent {
		version = (floor + deleteEvery - 1) / deleteEvery * deleteEvery
	}
	if version < floor {
		return oracle.Broken(oracle.Stale, name, 0, "%s: version %d, but %d was acknowledged or read before it began", how, version, floor)
	}
	if version > top {
		return oracle.Broken(oracle.Lied, name, 0, "%s: version %d (absent: %v), at most %d was written when it began", how, version, absent, top)
	}
	return nil
}

// scan reads some neighbours at one moment.
func (r *reader) scan() error {
	const n = 2 * block
	first := r.rnd.IntN(coherenceKeys/n) * n
	var floors, seen [n]uint64
	var found [n]bool
	for i := range floors {
		floors[i] = r.versions.Begin(first + i)
	}
	rg := engine.Range{Lower: coherenceKey(nil, first), Upper: append(coherenceKey(nil, first+n-1), 0), Reverse: r.rnd.IntN(2) == 0}
	for item, err := range r.e.Scan(rg) {
		if errors.Is(err, engine.ErrSnapshotTooOld) {
			return nil
		}
		var v []byte
		if err == nil {
			v, err = item.Value()
		}
		if err != nil {
			return oracle.Broken(oracle.Lied, "", 0, "scan: %w", err)
		}
		for i := range n {
			if string(coherenceKey(nil, first+i)) == string(item.Key()) {
				found[i] = true
				if seen[i], err = unversioned(&r.scratch, first+i, v); err != nil {
					return err
				}
			}
		}
	}
	for i := range n {
		top := r.versions.issued[first+i].Load()
		if err := r.within(first+i, floors[i], top, seen[i], !found[i], "scan"); err != nil {
			return err
		}
		// A block that is written together is seen together (O3).
		if i%block != 0 && together(first+i) && (found[i] != found[i-1] || seen[i] != seen[i-1]) {
			return oracle.Broken(oracle.Torn, string(coherenceKey(nil, first+i)), 0, "version %d (%v) in a scan that shows %d (%v) beside it",
				seen[i], found[i], seen[i-1], found[i-1])
		}
	}
	r.done += n
	r.snapshot.Add(n)
	return nil
}
