package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// result is one line of the JSON report.
type result struct {
	ID     string  `json:"id"`
	Peer   string  `json:"peer"`
	Ours   float64 `json:"ours"`
	Theirs float64 `json:"theirs"`
	Unit   string  `json:"unit"`
	Ratio  float64 `json:"ratio"`
	Lo     float64 `json:"lo"` // of the rounds
	Hi     float64 `json:"hi"`
	Floor  float64 `json:"floor,omitempty"`
	Goal   float64 `json:"goal,omitempty"`
}

var (
	suite   = flag.String("suite", "quick", "quick (one round, short arms) or full")
	only    = flag.String("rows", "", "comma-separated row ids; empty: all")
	against = flag.String("peers", "", "comma-separated peers; empty: all")
	out     = flag.String("json", "", "write the report here")
	armRow  = flag.String("arm-row", "", "internal: measure one row")
	armOf   = flag.String("arm-of", "", "internal: on this store")
	seconds = flag.Float64("seconds", 0, "length of an arm; 0: by suite")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	rounds := 1
	if *suite == "full" {
		rounds = 5
	} else if *suite != "quick" {
		return fmt.Errorf("no suite is called %q", *suite)
	}
	if *seconds == 0 {
		*seconds = map[string]float64{"quick": 1, "full": 10}[*suite]
	}
	if *armRow != "" {
		return arm(*armRow, *armOf)
	}
	var results []result
	tw := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Printf("%s/%s, %d cores, %s, budget %d MiB\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), budget>>20)
	fmt.Fprintln(tw, "row\tpeer\tours/s\ttheirs/s\tratio\tlo\thi\tfloor\tgoal\t")
	for _, r := range rows {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), r.id) {
			continue
		}
		for _, p := range peers {
			if *against != "" && !slices.Contains(strings.Split(*against, ","), p) || r.skip[p] != "" {
				continue
			}
			res, err := measure(r, p, rounds)
			if err != nil {
				return fmt.Errorf("%s against %s: %w", r.id, p, err)
			}
			results = append(results, res)
			fmt.Fprintf(tw, "%s\t%s\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%s\t%s\t\n", r.id, p, res.Ours, res.Theirs, res.Ratio, res.Lo, res.Hi, limit(res.Floor), limit(res.Goal))
			fmt.Fprintf(os.Stderr, "%s against %s: %.2f\n", r.id, p, res.Ratio)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if *out == "" {
		return nil
	}
	b, err := json.MarshalIndent(map[string]any{
		"machine": map[string]any{"os": runtime.GOOS, "arch": runtime.GOARCH, "cores": runtime.NumCPU(), "go": runtime.Version()},
		"rows":    results,
	}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(*out, append(b, '\n'), 0o644)
}

func limit(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprint(x)
}

// measure runs A-B-B-A rounds and takes the median of their ratios.
func measure(r row, peer string, rounds int) (result, error) {
	res := result{ID: r.id, Peer: peer, Unit: "ops/s"}
	if peer == "pebble" {
		res.Floor, res.Goal = r.floor, r.goal
	}
	var ratios, ours, theirs []float64
	for range rounds {
		var x [4]float64
		for i, who := range []string{"holdfast", peer, peer, "holdfast"} {
			var err error
			if x[i], err = child(r.id, who); err != nil {
				return res, err
			}
		}
		ours = append(ours, (x[0]+x[3])/2)
		theirs = append(theirs, (x[1]+x[2])/2)
		ratios = append(ratios, (x[0]+x[3])/(x[1]+x[2]))
	}
	res.Ratio, res.Ours, res.Theirs = median(ratios), median(ours), median(theirs)
	res.Lo, res.Hi = slices.Min(ratios), slices.Max(ratios)
	return res, nil
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// child measures one arm in a fresh process.
func child(id, who string) (ops float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	c := exec.Command(self, "-suite", *suite, "-seconds", fmt.Sprint(*seconds), "-arm-row", id, "-arm-of", who)
	c.Stderr = os.Stderr
	b, err := c.Output()
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(string(b), &ops)
	return ops, err
}

// arm is the fresh process: a fresh directory, one row, one store, one number.
func arm(id, who string) error {
	i := slices.IndexFunc(rows, func(r row) bool { return r.id == id })
	if i < 0 {
		return fmt.Errorf("no row is called %q", id)
	}
	r := rows[i]
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := open(who, dir, budget, r.durable)
	if err != nil {
		return err
	}
	ops, err := r.run(s, newData(r.keys(), 256), *seconds)
	if err != nil {
		return err
	}
	fmt.Println(ops)
	return s.close()
}
