package fault

import (
	"context"
	"math/rand/v2"
	"sync"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// callsPerCase is at how many calls a case lets a workload fail.
const callsPerCase = 12

// Errors lets a workload fail at some of its calls, one at a time.
func Errors() runner.Runner {
	return runner.Runner{
		Name:  "I/O errors",
		About: "an error, a full disk, a short transfer or a lost sync at the nth call, once and for ever",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			rnd := rand.New(rand.NewPCG(seed, 0x6661756c))
			all := prepared()
			// Each seed has another pair of workload and kind, and each round of
			// them other calls.
			i := int(seed) % (len(all.loads) * len(Kinds()))
			s := Sweep{Load: i % len(all.loads), Kind: Kinds()[i/len(all.loads)], Sticky: rnd.IntN(2) == 0, Seed: seed}
			s.Stride = max(1, all.calls[s.Load]/callsPerCase)
			s.First = 1 + rnd.IntN(s.Stride)
			counts, err := s.Run(ctx, nil)
			return counts, oracle.WithSeed(err, seed)
		},
	}
}

// set is the workloads with their disks. A workload's history is used by one run at
// a time.
type set struct {
	loads  []workload
	starts []*start
	calls  []int // of the file system, in peace
	err    error
	mu     []sync.Mutex
}

var prepared = sync.OnceValue(func() *set {
	s := &set{loads: workloads()}
	s.mu = make([]sync.Mutex, len(s.loads))
	for i := range s.loads {
		st, err := s.loads[i].prepare()
		if err != nil {
			s.err = err
			return s
		}
		t := try{wl: &s.loads[i], start: st, kind: Kinds()[0], rule: Kinds()[0].at(1<<30, false), counts: runner.Counts{}}
		_, cover, err := t.run()
		if err != nil {
			s.err = err
			return s
		}
		n := 0
		for _, row := range cover {
			n += row.Calls
		}
		s.starts, s.calls = append(s.starts, st), append(s.calls, n)
	}
	return s
})

// Sweep is one workload under one kind of failure, at every stride-th call that the
// kind fits, until the workload ends without meeting it.
type Sweep struct {
	Load   int // which workload
	Kind   Kind
	Sticky bool
	First  int
	Stride int
	Seed   uint64
}

// Run runs the sweep. Coverage of each run goes to cover, if there is one.
func (s Sweep) Run(ctx context.Context, cover func([]simfs.Coverage)) (runner.Counts, error) {
	counts := runner.Counts{}
	all := prepared()
	if all.err != nil {
		return counts, all.err
	}
	all.mu[s.Load].Lock()
	defer all.mu[s.Load].Unlock()
	for nth := s.First; ctx.Err() == nil; nth += s.Stride {
		corners := simfs.Corners()
		t := try{
			wl: &all.loads[s.Load], start: all.starts[s.Load], kind: s.Kind, sticky: s.Sticky, rule: s.Kind.at(nth, s.Sticky),
			image: simfs.CrashConfig{Seed: s.Seed + uint64(nth), Image: corners[(nth/s.Stride)%len(corners)]},
			twice: nth/s.Stride%3 == 0, counts: counts,
		}
		counts["cuts"]++
		fired, rows, err := t.run()
		if cover != nil {
			cover(rows)
		}
		if err != nil || !fired {
			return counts, err
		}
	}
	return counts, nil
}
