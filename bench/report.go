package main

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"
)

// report is what a run found.
type report struct {
	Machine map[string]any `json:"machine"`
	Rows    []result       `json:"rows"`
}

// result is one row against one peer.
type result struct {
	ID         string   `json:"id"`
	What       string   `json:"what"`
	Peer       string   `json:"peer"`
	Ours       float64  `json:"ours"`
	Theirs     float64  `json:"theirs"`
	Unit       string   `json:"unit"`
	Ratio      float64  `json:"ratio"`
	Lo         float64  `json:"lo"` // where the median lies with 95 percent; of few rounds their ends
	Hi         float64  `json:"hi"`
	Floor      float64  `json:"floor,omitempty"`
	Goal       float64  `json:"goal,omitempty"`
	OursMiB    float64  `json:"ours_mib"` // resident at most, by the kernel
	TheirsMiB  float64  `json:"theirs_mib"`
	OursCost   cost     `json:"ours_cost"`
	TheirsCost cost     `json:"theirs_cost"`
	Notes      []string `json:"notes,omitempty"`
}

func newReport() *report {
	return &report{Machine: map[string]any{
		"os": runtime.GOOS, "arch": runtime.GOARCH, "cores": runtime.NumCPU(), "go": runtime.Version(),
		"suite": *suite, "date": time.Now().Format(time.DateOnly),
	}}
}

func (r result) line() string { return fmt.Sprintf("%s against %s: %.2f", r.ID, r.Peer, r.Ratio) }

// print writes the table in Markdown, aligned.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s/%s, %d cores, %s, suite %s. MiB: resident at most, ours and theirs.\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), *suite)
	tw := tabwriter.NewWriter(w, 0, 8, 1, ' ', 0)
	fmt.Fprintln(tw, "| row\t| peer\t| ours\t| theirs\t| unit\t| ratio\t| from\t| to\t| floor\t| goal\t| MiB\t|")
	fmt.Fprintln(tw, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, x := range r.Rows {
		fmt.Fprintf(tw, "| %s\t| %s\t| %s\t| %s\t| %s\t| %.2f\t| %.2f\t| %.2f\t| %s\t| %s\t| %.0f, %.0f\t|\n",
			x.ID, x.Peer, short(x.Ours), short(x.Theirs), x.Unit, x.Ratio, x.Lo, x.Hi, limit(x.Floor), limit(x.Goal), x.OursMiB, x.TheirsMiB)
	}
	tw.Flush()
	fmt.Fprint(w, "\nOf one operation, ours and theirs: microseconds, allocations, CPU seconds for a million, bytes toward the device for a byte put.\n\n")
	fmt.Fprintln(tw, "| row\t| peer\t| p50\t| p99\t| p999\t| allocs\t| CPU\t| written\t|")
	fmt.Fprintln(tw, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, x := range r.Rows {
		o, t := x.OursCost, x.TheirsCost
		if o.CPU == 0 {
			continue
		}
		fmt.Fprintf(tw, "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n", x.ID, x.Peer,
			both(o.P50, t.P50), both(o.P99, t.P99), both(o.P999, t.P999), both(o.Allocs, t.Allocs), both(o.CPU, t.CPU), both(o.Written, t.Written))
	}
	tw.Flush()
	for _, x := range r.Rows {
		for _, n := range x.Notes {
			fmt.Fprintf(w, "\n%s: %s", x.ID, n)
		}
	}
	fmt.Fprintln(w)
}

func both(ours, theirs float64) string {
	if ours == 0 && theirs == 0 {
		return ""
	}
	return short(ours) + ", " + short(theirs)
}

func short(x float64) string {
	if x < 1000 {
		return fmt.Sprintf("%.3g", x)
	}
	return fmt.Sprintf("%.0f", x)
}

func limit(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprint(x)
}
