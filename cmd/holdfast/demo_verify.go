package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"

	"github.com/holdfastdb/holdfast/engine"
)

// model is what the store must hold: the parent's own account of every batch that
// was acknowledged, or that turned out to be there.
type model struct {
	p     *plan
	keys  map[string]wanted
	lanes []laneState
	sums  []*digest // of the files as they are, once computed
}

type digest [sha256.Size]byte

// wanted is the value that a key must have, and the batch it came with.
type wanted struct {
	sum     digest
	size    int64
	lane, n int
}

type laneState struct {
	acked   int      // the child reported it and every one before
	applied int      // the model has it and every one before
	lsn     []uint64 // of batch n at n-1; zero if the report of it was killed
}

func newModel(p *plan) *model {
	return &model{
		p: p, keys: make(map[string]wanted), lanes: make([]laneState, len(p.lanes)),
		sums: make([]*digest, len(p.Files)),
	}
}

// ack notes the child's report. Reports of a lane come in order.
func (m *model) ack(l, n int, lsn uint64) error {
	if l < 0 || l >= len(m.lanes) || n != m.lanes[l].acked+1 {
		return fmt.Errorf("the child reported batch %d of lane %d out of order", n, l)
	}
	m.lanes[l].acked = n
	m.lanes[l].lsn = append(m.lanes[l].lsn, lsn)
	return nil
}

func (m *model) ackedLSN() (most uint64) {
	for _, l := range m.lanes {
		for i := len(l.lsn) - 1; i >= 0; i-- {
			if l.lsn[i] != 0 {
				most = max(most, l.lsn[i])
				break
			}
		}
	}
	return most
}

// importLeft is how many batches of the import have not been acknowledged.
func (m *model) importLeft() (left int) {
	for l := range m.lanes {
		left += max(0, len(m.p.lanes[l].imports)-m.lanes[l].acked)
	}
	return left
}

func (m *model) imported() bool { return m.importLeft() == 0 }

// live lists the files that have a key.
func (m *model) live() (files []int) {
	for i := range m.p.Files {
		if _, ok := m.keys[string(m.p.key(i))]; ok {
			files = append(files, i)
		}
	}
	return files
}

// apply advances a lane through batch n.
func (m *model) apply(l, n int) error {
	for at := &m.lanes[l].applied; *at < n; {
		next := *at + 1
		steps := m.p.steps(l, next)
		for _, s := range steps {
			switch s.kind {
			case stepDelete:
				delete(m.keys, string(m.p.key(s.file)))
			case stepDeleteRange:
				for i := s.file; i < s.upto; i++ {
					delete(m.keys, string(m.p.key(i)))
				}
			default:
				w, err := m.content(s, l, next)
				if err != nil {
					return err
				}
				m.keys[string(m.p.key(s.file))] = w
			}
		}
		key, value := m.p.marker(l, next, steps)
		m.keys[string(key)] = wanted{sha256.Sum256(value), int64(len(value)), l, next}
		*at = next
	}
	return nil
}

func (m *model) content(s step, l, n int) (wanted, error) {
	w := wanted{size: m.p.Files[s.file].Size, lane: l, n: n}
	if sum := m.sums[s.file]; sum != nil && !s.altered {
		w.sum = *sum
		return w, nil
	}
	b, err := m.p.content(s, l, n)
	if err != nil {
		return w, err
	}
	w.sum, w.size = sha256.Sum256(b), int64(len(b))
	if !s.altered {
		m.sums[s.file] = (*digest)(&w.sum)
	}
	return w, nil
}

// verdict counts what a store that was killed does not hold as it should.
type verdict struct {
	Lost    int // acknowledged batches that are gone, or of which a key is
	Partial int // batches of which only a part is there
	Wrong   int // keys that should not be there, or were there with another revision

	Keys     int // proved: there, byte for byte
	Bytes    int64
	InFlight int      // batches that the kill cut off from their report, and that are there
	Details  []string // the first few
}

func (v *verdict) bad() bool { return v.Lost+v.Partial+v.Wrong > 0 }

func (v *verdict) note(count *int, format string, args ...any) {
	const most = 10
	if *count++; len(v.Details) < most {
		v.Details = append(v.Details, fmt.Sprintf(format, args...))
	}
}

// verify proves, after a kill, that the store holds every acknowledged batch as a
// whole, of each lane at most one more as a whole, and nothing else. Every value
// is read and hashed.
func (m *model) verify(e *engine.Engine) (verdict, error) {
	return m.verifyAt(e, e.Recovered().LSN)
}

// verifyAt takes the number that recovery came back to from its caller.
func (m *model) verifyAt(e *engine.Engine, at uint64) (v verdict, err error) {
	if acked := m.ackedLSN(); at < acked {
		v.note(&v.Lost, "the store is back at lsn %d, but %d was acknowledged", at, acked)
	}
	inFlight := make([]bool, len(m.lanes)) // a batch beyond the last report is there
	for l := range m.lanes {
		s := &m.lanes[l]
		last, err := lastBatch(e, l)
		if err != nil {
			return v, err
		}
		switch {
		case last < s.acked:
			v.note(&v.Lost, "lane %d is back at batch %d, but %d was acknowledged", l, last, s.acked)
		case last > s.acked+1:
			v.note(&v.Wrong, "lane %d is at batch %d, but only %d were written", l, last, s.acked+1)
		case last == s.acked+1:
			inFlight[l] = true
			v.InFlight++
			s.acked++
			s.lsn = append(s.lsn, 0)
		}
		if err := m.apply(l, s.acked); err != nil {
			return v, err
		}
	}
	seen, err := m.walk(e, &v, inFlight)
	if err != nil {
		return v, err
	}
	if seen == len(m.keys) && !v.bad() {
		return v, nil
	}
	err = m.findMissing(e, &v, inFlight)
	return v, err
}

// walk compares everything that is there with the model.
func (m *model) walk(e *engine.Engine, v *verdict, inFlight []bool) (seen int, err error) {
	broken := make(map[[2]int]bool)
	for item, err := range scanResumed(e, engine.Range{}) {
		if err != nil {
			return seen, err
		}
		value, err := item.Value()
		if err != nil {
			return seen, ofKey(item.Key(), err)
		}
		w, ok := m.keys[string(item.Key())]
		if !ok {
			v.note(m.stray(v, item.Key(), value), "%s is there and should not be", escape(item.Key()))
			continue
		}
		seen++
		lsn := &m.lanes[w.lane].lsn[w.n-1]
		if *lsn == 0 {
			*lsn = item.Revision() // the first key of a batch whose report was killed
		}
		switch batch := [2]int{w.lane, w.n}; {
		case int64(len(value)) != w.size || sha256.Sum256(value) != w.sum:
			if !broken[batch] {
				broken[batch] = true
				v.note(m.blame(v, item.Key(), value, w, inFlight), "%s is not what batch %d of lane %d wrote", escape(item.Key()), w.n, w.lane)
			}
		case *lsn != item.Revision():
			v.note(m.stray(v, item.Key(), value), "%s has revision %d, its batch was lsn %d", escape(item.Key()), item.Revision(), *lsn)
		default:
			v.Keys++
			v.Bytes += w.size
		}
	}
	return seen, nil
}

// stray says which counter a write belongs to that should not have happened.
func (m *model) stray(v *verdict, key, value []byte) *int {
	if m.nextWrote(key, value) {
		return &v.Partial
	}
	return &v.Wrong
}

// scanResumed is a Scan that goes on behind the last key when its snapshot gave way
// to the flush of what recovery had put into memory. It shows one moment only where
// nobody writes to r meanwhile.
func scanResumed(e *engine.Engine, r engine.Range) iter.Seq2[engine.Item, error] {
	return func(yield func(engine.Item, error) bool) {
		for {
			again := false
			for item, err := range e.Scan(r) {
				if again = errors.Is(err, engine.ErrSnapshotTooOld); again {
					break
				}
				if err == nil && r.Reverse {
					r.Upper = bytes.Clone(item.Key())
				} else if err == nil {
					r.Lower = append(bytes.Clone(item.Key()), 0)
				}
				if !yield(item, err) {
					return
				}
			}
			if !again {
				return
			}
		}
	}
}

// blame says which counter a broken key belongs to. A batch that was in flight when
// the kill came, or the one after it if it explains what is there, is partial;
// everything else was acknowledged, and is lost.
func (m *model) blame(v *verdict, key, value []byte, w wanted, inFlight []bool) *int {
	if inFlight[w.lane] && w.n == m.lanes[w.lane].acked || m.nextWrote(key, value) {
		return &v.Partial
	}
	return &v.Lost
}

// nextWrote says whether the first batch that must not be there, of any lane, would
// leave key with this value, or without one if it is nil.
func (m *model) nextWrote(key, value []byte) bool {
	for l := range m.lanes {
		n := m.lanes[l].acked + 1
		steps := m.p.steps(l, n)
		if marker, _ := m.p.marker(l, n, steps); bytes.Equal(marker, key) {
			return true
		}
		for _, s := range steps {
			for i := s.file; i < max(s.upto, s.file+1); i++ {
				if !bytes.Equal(m.p.key(i), key) {
					continue
				}
				if s.kind != stepPut {
					return value == nil
				}
				if b, err := m.p.content(s, l, n); err == nil && value != nil && bytes.Equal(b, value) {
					return true
				}
			}
		}
	}
	return false
}

func (m *model) findMissing(e *engine.Engine, v *verdict, inFlight []bool) error {
	missing := make(map[[2]int]bool)
	for key, w := range m.keys {
		ok, err := e.Has([]byte(key))
		if err != nil {
			return err
		}
		if batch := [2]int{w.lane, w.n}; !ok && !missing[batch] {
			missing[batch] = true
			v.note(m.blame(v, []byte(key), nil, w, inFlight), "%s of batch %d of lane %d is missing", key, w.n, w.lane)
		}
	}
	return nil
}
