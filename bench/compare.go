package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
)

// figure is what one arm gave, as its process prints it, and what the kernel says of it.
type figure struct {
	Value float64 `json:"value"`
	Note  string  `json:"note,omitempty"`
	Cost  cost    `json:"cost"`
	Ops   int64   `json:"ops"`
	peak  float64 // MiB that were resident at most
}

// compare runs rounds of A-B-B-A and takes the median of their ratios. Above 1 we are
// faster, or smaller.
func compare(r *row, peer string, rounds int) (result, error) {
	res := result{ID: r.id, Peer: peer, Unit: r.unit, What: r.what}
	if res.Unit == "" {
		res.Unit = "ops/s"
	}
	if peer == r.peers[0] {
		res.Floor, res.Goal = r.floor, r.goal
	}
	theirs := r.memory()
	if r.same && peer != refPeer {
		var err error
		if theirs, err = sameSize(r, peer); err != nil {
			return res, err
		}
	}
	var ratios []float64
	var sum [2][]float64
	var peaks [2][]float64
	var costs [2][]cost
	var guard []probes
	for range rounds {
		var x [2]float64
		for _, who := range []int{0, 1, 1, 0} {
			name, budget := "holdfast", r.memory()
			if who == 1 {
				name, budget = peer, theirs
			}
			p, err := probe()
			if err != nil {
				return res, fmt.Errorf("probe: %w", err)
			}
			f, err := measure(r, name, budget)
			if err != nil {
				return res, fmt.Errorf("%s: %w", name, err)
			}
			guard, costs[who] = append(guard, p), append(costs[who], f.Cost)
			x[who] += f.Value / 2
			peaks[who] = append(peaks[who], f.peak)
			if f.Note != "" {
				res.Notes = append(res.Notes, name+": "+f.Note)
			}
		}
		for who := range sum {
			sum[who] = append(sum[who], x[who])
		}
		ratio := x[0] / x[1]
		if r.less {
			ratio = 1 / ratio
		}
		ratios = append(ratios, ratio)
	}
	res.Ratio, res.Ours, res.Theirs = median(ratios), median(sum[0]), median(sum[1])
	res.Lo, res.Hi = interval(ratios)
	res.OursCost, res.TheirsCost = medianCost(costs[0]), medianCost(costs[1])
	if *syncs && r.durable && r.run == nil {
		for name, budget := range map[string]int64{"holdfast": r.memory(), peer: theirs} {
			n, err := countSyncs(r, name, budget)
			if err != nil { // what was measured stays
				n = fmt.Sprintf("%s: its sync calls were not counted: %v", name, err)
			}
			res.Notes = append(res.Notes, n)
		}
	}
	if d := drift(guard, r.durable); d != "" {
		res.Notes = append(res.Notes, "unsteady:"+strings.TrimSuffix(d, ";"))
	}
	res.OursMiB, res.TheirsMiB = median(peaks[0]), median(peaks[1])
	return res, nil
}

// sameSize finds the budget with which the peer's peak resident size is ours, within five
// percent, or as near as five tries come.
func sameSize(r *row, peer string) (int64, error) {
	ours, err := measure(r, "holdfast", r.memory())
	if err != nil {
		return 0, err
	}
	best, off := r.memory(), 1e9
	for try, budget := 0, r.memory(); try < 5; try++ {
		f, err := measure(r, peer, budget)
		if err != nil {
			return 0, err
		}
		d := ours.peak - f.peak
		fmt.Fprintf(os.Stderr, "%s: %.0f MiB of ours resident, %.0f of %s with a budget of %d MiB\n", r.id, ours.peak, f.peak, peer, budget>>20)
		if max(d, -d) < off {
			best, off = budget, max(d, -d)
		}
		if off < ours.peak/20 {
			break
		}
		budget = max(budget+int64(d)<<20, 8<<20)
	}
	return best, nil
}

func (r *row) memory() int64 {
	if r.budget == 0 {
		return budget
	}
	return r.budget
}

// interval is where the median of the ratios lies with 95 percent, by the bootstrap
// (Efron, Annals of Statistics 7, 1979); of less than five the lowest and the highest.
func interval(x []float64) (lo, hi float64) {
	if len(x) < 5 {
		return slices.Min(x), slices.Max(x)
	}
	const draws = 2000
	rnd, medians, drawn := rand.New(rand.NewPCG(1, 1)), make([]float64, draws), make([]float64, len(x))
	for i := range medians {
		for j := range drawn {
			drawn[j] = x[rnd.IntN(len(x))]
		}
		medians[i] = median(drawn)
	}
	slices.Sort(medians)
	return medians[draws/40], medians[draws-1-draws/40]
}

func medianCost(all []cost) cost {
	of := func(f func(c cost) float64) float64 {
		x := make([]float64, len(all))
		for i, c := range all {
			x[i] = f(c)
		}
		return median(x)
	}
	return cost{
		P50: of(func(c cost) float64 { return c.P50 }), P99: of(func(c cost) float64 { return c.P99 }),
		P999: of(func(c cost) float64 { return c.P999 }), Allocs: of(func(c cost) float64 { return c.Allocs }),
		CPU: of(func(c cost) float64 { return c.CPU }), Written: of(func(c cost) float64 { return c.Written }),
	}
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// refPeer is ourselves, as another build has it.
const refPeer = "reference"

// armCommand is the process that measures one arm.
func armCommand(r *row, who string, budget int64) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if who == refPeer {
		self, who = *ref, "holdfast"
	}
	c := exec.Command(self, "-suite", *suite, "-seconds", fmt.Sprint(*seconds), "-arm-row", r.id, "-arm-of", who, "-arm-budget", fmt.Sprint(budget))
	c.Stderr = os.Stderr
	return c, nil
}

// measure runs one arm in a fresh process.
func measure(r *row, who string, budget int64) (f figure, err error) {
	c, err := armCommand(r, who, budget)
	if err != nil {
		return f, err
	}
	b, err := c.Output()
	if err != nil {
		return f, err
	}
	f.peak = float64(c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024
	if err := json.Unmarshal(b, &f); err != nil {
		return f, err
	}
	if r.unit == resident {
		f.Value = f.peak
	}
	return f, nil
}

// resident is the unit of rows that are about memory.
const resident = "MiB resident"

// child is the fresh process: a fresh folder, one row, one store, one figure.
func child(id, who string) error {
	r, err := rowOf(id)
	if err != nil {
		return err
	}
	if *fillDir != "" {
		return fill(r, who, *fillDir)
	}
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	a := &arm{row: r, name: who, dir: dir, budget: *armBudget, seconds: *seconds}
	if r.data != nil {
		a.data = r.data(r.memory())
		a.zipf = newZipfian(a.data.n, 0.99)
	}
	debug.FreeOSMemory() // what making them took is not the store's
	if a.store, err = open(who, dir, a.budget, r.durable); err != nil {
		return err
	}
	var f figure
	if f.Value, err = a.measure(); err != nil {
		return err
	}
	f.Note, f.Cost, f.Ops = a.note, a.cost, a.ops
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		return err
	}
	return a.close()
}
