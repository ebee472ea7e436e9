package cache

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The goal: no order of steps lets a reader see a cell older than one that was
// acknowledged before it began; and this search would notice if the rule were
// weaker.
//
// The model has one key with numbered versions, a writer, a flusher and some
// readers. What the libraries do with entries is left to an adversary: the
// cache is the set of all (version, stamp) pairs ever put in, and a reader may
// meet any of them or none. That contains every loss, delay, reordering,
// promotion and demotion. The horizons are the real ones.

type weakening int

const (
	asDesigned weakening = iota
	stampAtFill
	dropBeforeRecord
	uncheckedJoin
	recordsBeforeView
	swapBeforeIngest
	uncheckedHit
)

const (
	modelReaders = 2
	modelGens    = 4
	noGen        = 255
)

type modelView struct {
	active, frozen uint8 // generations
	horizon        uint8 // index into model.horizons
	snap           uint8 // version in this view's snapshot of storage
}

type modelReader struct {
	pc      uint8
	view    modelView
	low     uint8 // newest version acknowledged when the read began
	val     uint8
	joined  uint8
	horizon uint8 // read early, by recordsBeforeView only
}

const (
	pcIdle = iota
	pcViewed
	pcMissedMap
	pcLoading
	pcLoaded
	pcJoined
	pcHorizonOnly
)

type modelState struct {
	acked   uint8
	gens    [modelGens]uint8
	storage uint8
	view    modelView
	phase   uint8 // of the flusher
	cache   uint64
	readers [modelReaders]modelReader
}

const (
	flRotate = iota
	flIngest
	flSwap
	flRecord // only when dropped before
	flOffer
)

type model struct {
	weak        weakening
	versions    uint8
	gens        uint8
	recordBytes int64

	horizons []*Horizon
	pushed   map[[2]uint8]uint8
	covering *Record
	other    *Record
}

const modelHash = 42

var modelKey = []byte("k")

func newModel(w weakening, versions, gens uint8, records int) *model {
	m := &model{weak: w, versions: versions, gens: gens, pushed: map[[2]uint8]uint8{}}
	m.covering = NewRecord(slices.Values([]uint64{modelHash}), 1, nil)
	m.other = NewRecord(slices.Values([]uint64{7}), 1, nil)
	m.recordBytes = int64(records) * m.covering.Bytes()
	m.horizons = []*Horizon{NewHorizon(0)}
	return m
}

func (m *model) push(h uint8, covers bool) uint8 {
	k := [2]uint8{h, 0}
	r := m.other
	if covers {
		k[1], r = 1, m.covering
	}
	id, ok := m.pushed[k]
	if !ok {
		id = uint8(len(m.horizons))
		m.horizons = append(m.horizons, m.horizons[h].Push(r, m.recordBytes))
		m.pushed[k] = id
	}
	return id
}

func (m *model) fresh(h uint8, stamp uint64) bool {
	return m.horizons[h].Fresh(stamp, modelHash, modelKey)
}

func pair(version uint8, stamp uint64) uint64 { return 1 << (uint64(version)*8 + stamp) }

// next calls yield with every state one step away. It returns a description of
// a stale read, if one of the steps is one.
func (m *model) next(s modelState, yield func(modelState, string)) (stale string) {
	finish := func(n *modelState, i int, v uint8, how string) {
		if v < n.readers[i].low && stale == "" {
			stale = fmt.Sprintf("reader %d: %s returns version %d, %d was acknowledged before", i, how, v, n.readers[i].low)
		}
		n.readers[i] = modelReader{}
	}

	if s.acked < m.versions {
		n := s
		n.acked++
		n.gens[n.view.active] = n.acked
		yield(n, "put")
	}

	swap := func(n *modelState) {
		covers := n.gens[n.view.frozen] != 0
		n.view.frozen = noGen
		n.view.horizon = m.push(n.view.horizon, covers)
		n.view.snap = n.storage
	}
	n := s
	switch s.phase {
	case flRotate:
		if s.view.active+1 < m.gens {
			n.view.frozen, n.view.active = s.view.active, s.view.active+1
			n.phase = flIngest
			if m.weak == swapBeforeIngest {
				n.phase = flSwap
			}
			yield(n, "rotate")
		}
	case flIngest:
		frozen := s.view.active - 1
		if v := s.gens[frozen]; v != 0 {
			n.storage = v
		}
		n.phase = flSwap
		if m.weak == swapBeforeIngest {
			n.phase = flOffer
		}
		yield(n, "ingest")
	case flSwap:
		switch m.weak {
		case dropBeforeRecord:
			n.view.frozen, n.view.snap = noGen, n.storage
			n.phase = flRecord
		case swapBeforeIngest:
			swap(&n)
			n.phase = flIngest
		default:
			swap(&n)
			n.phase = flOffer
		}
		yield(n, "swap")
	case flRecord:
		n.view.horizon = m.push(n.view.horizon, s.gens[s.view.active-1] != 0)
		n.phase = flOffer
		yield(n, "record")
	case flOffer:
		n.phase = flRotate
		yield(n, "no offer")
		if v := s.gens[s.view.active-1]; v != 0 && s.cache != 0 {
			n.cache |= pair(v, m.horizons[s.view.horizon].Seq())
			yield(n, "offer")
		}
	}

	for i := range s.readers {
		r := s.readers[i]
		h := r.view.horizon
		switch r.pc {
		case pcIdle:
			n := s
			n.readers[i] = modelReader{pc: pcViewed, view: s.view, low: s.acked}
			if m.weak == recordsBeforeView {
				n.readers[i] = modelReader{pc: pcHorizonOnly, horizon: s.view.horizon, low: s.acked}
			}
			yield(n, fmt.Sprintf("reader %d: view", i))
		case pcHorizonOnly:
			n := s
			n.readers[i].view, n.readers[i].pc = s.view, pcViewed
			n.readers[i].view.horizon = r.horizon
			yield(n, fmt.Sprintf("reader %d: view", i))
		case pcViewed:
			n := s
			v := s.gens[r.view.active]
			if v == 0 && r.view.frozen != noGen {
				v = s.gens[r.view.frozen]
			}
			if v != 0 {
				finish(&n, i, v, "map")
			} else {
				n.readers[i].pc = pcMissedMap
			}
			yield(n, fmt.Sprintf("reader %d: map", i))
		case pcMissedMap:
			for v := uint8(0); v <= m.versions; v++ {
				for st := uint64(0); st < 8; st++ {
					if s.cache&pair(v, st) == 0 || (m.weak != uncheckedHit && !m.fresh(h, st)) {
						continue
					}
					n := s
					n.cache |= pair(v, max(st, m.horizons[h].Seq()))
					finish(&n, i, v, fmt.Sprintf("cache (stamp %d)", st))
					yield(n, fmt.Sprintf("reader %d: hit", i))
				}
			}
			for j := range s.readers {
				o := s.readers[j]
				if j == i || (o.pc != pcLoading && o.pc != pcLoaded) {
					continue
				}
				if m.weak != uncheckedJoin && !m.fresh(h, m.horizons[o.view.horizon].Seq()) {
					continue
				}
				n := s
				if o.pc == pcLoaded {
					finish(&n, i, o.val, "join")
				} else {
					n.readers[i].pc, n.readers[i].joined = pcJoined, uint8(j)
				}
				yield(n, fmt.Sprintf("reader %d: join", i))
			}
			n := s
			n.readers[i].pc = pcLoading
			yield(n, fmt.Sprintf("reader %d: miss", i))
		case pcLoading:
			// Through the view's snapshot, or later: both are allowed.
			for _, v := range slices.Compact([]uint8{r.view.snap, s.storage}) {
				n := s
				n.readers[i].val, n.readers[i].pc = v, pcLoaded
				for j := range n.readers {
					if n.readers[j].pc == pcJoined && n.readers[j].joined == uint8(i) {
						finish(&n, j, v, "join")
					}
				}
				yield(n, fmt.Sprintf("reader %d: load", i))
			}
		case pcLoaded:
			n := s
			stamp := m.horizons[h].Seq()
			if m.weak == stampAtFill {
				stamp = m.horizons[s.view.horizon].Seq()
			}
			n.cache |= pair(r.val, stamp)
			finish(&n, i, r.val, "load")
			yield(n, fmt.Sprintf("reader %d: fill", i))
		}
	}
	return stale
}

// search walks all states breadth first. It returns how many there are and the
// shortest way to a stale read, if there is one.
func (m *model) search(limit int) (states int, trace []string) {
	type from struct {
		prev int32
		how  string
	}
	start := modelState{view: modelView{frozen: noGen}}
	queue := []modelState{start}
	came := []from{{-1, "start"}}
	seen := map[modelState]struct{}{start: {}}
	for at := 0; at < len(queue) && at < limit; at++ {
		stale := m.next(queue[at], func(n modelState, how string) {
			if _, ok := seen[n]; !ok {
				seen[n] = struct{}{}
				queue = append(queue, n)
				came = append(came, from{int32(at), how})
			}
		})
		if stale != "" {
			trace = append(trace, stale)
			for i := int32(at); i >= 0; i = came[i].prev {
				trace = append(trace, came[i].how)
			}
			slices.Reverse(trace)
			return len(queue), trace
		}
	}
	return len(queue), nil
}

func TestRule_search(t *testing.T) {
	const limit = 3 << 20
	for _, c := range []struct {
		versions, gens uint8
		records        int
	}{
		{2, 3, 8}, // nothing is ever forgotten
		{2, 3, 0}, // no record is ever kept: the floor alone
		{2, 4, 1}, // the floor rises behind one record
	} {
		t.Run(fmt.Sprintf("versions=%d/gens=%d/records=%d", c.versions, c.gens, c.records), func(t *testing.T) {
			if raceEnabled && c.gens > 3 {
				t.Skip("single-threaded and large: the race detector only makes it slow")
			}
			states, trace := newModel(asDesigned, c.versions, c.gens, c.records).search(limit)
			require.Nil(t, trace, "a stale read")
			require.Less(t, states, limit, "the search was cut short")
			t.Logf("%d states, no stale read", states)
		})
	}
}

func TestRule_search_findsWeakenings(t *testing.T) {
	// The goal: a search that finds nothing in a broken rule proves nothing.
	for name, w := range map[string]weakening{
		"stamp taken at fill time":          stampAtFill,
		"drop before the record":            dropBeforeRecord,
		"unchecked joins":                   uncheckedJoin,
		"record list read before the view":  recordsBeforeView,
		"swap before ingest (I5)":           swapBeforeIngest,
		"entries used without being judged": uncheckedHit,
	} {
		t.Run(name, func(t *testing.T) {
			_, trace := newModel(w, 2, 3, 8).search(3 << 20)
			require.NotNil(t, trace, "the weakening was not noticed")
			t.Logf("%d steps: %q", len(trace)-2, trace)
		})
	}
}
