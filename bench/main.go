package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

var (
	suite   = flag.String("suite", "quick", "quick (one round, short arms, the first peer of each row) or full")
	only    = flag.String("rows", "", "comma-separated row ids; empty: all")
	against = flag.String("peers", "", "comma-separated peers; empty: all")
	rounds  = flag.Int("rounds", 0, "of A-B-B-A; 0: by suite")
	seconds = flag.Float64("seconds", 0, "length of an arm; 0: by suite")
	out     = flag.String("json", "", "write the report here")
	picture = flag.String("svg", "", "draw the ratios here")
	ref     = flag.String("ref", "", "another build of this program: measure our rows beside its own, and no peers")
	syncs   = flag.Bool("syncs", false, "count the sync calls of durable rows in a run of their own; wants strace")
	guards  = flag.Bool("guard", false, "measure a few rows beside Pebble in this process, and fail where one is far below its floor")
	list    = flag.Bool("list", false, "say what the rows are")

	armRow    = flag.String("arm-row", "", "internal: measure one row")
	armOf     = flag.String("arm-of", "", "internal: on this store")
	armBudget = flag.Int64("arm-budget", 0, "internal: with so many bytes")
	fillDir   = flag.String("fill", "", "internal: fill the store in this folder and be killed")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var rows = slices.Concat(readRows, tightRows, writeRows, ycsbRows, wholeRows)

func run() error {
	switch *suite {
	case "quick":
		defaults(1, 1)
	case "full":
		defaults(5, 10)
	default:
		return fmt.Errorf("no suite is called %q", *suite)
	}
	if *armRow != "" {
		return child(*armRow, *armOf)
	}
	if *list {
		for _, r := range rows {
			fmt.Printf("%-18s %s\n", r.id, r.what)
		}
		return nil
	}
	if *guards {
		return guard()
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if *syncs {
		if _, err := exec.LookPath("strace"); err != nil {
			return err
		}
	}
	rep := newReport()
	for _, r := range chosen {
		peers := r.peers
		if *ref != "" {
			peers = []string{refPeer}
		}
		for i, p := range peers {
			if *against == "" && *suite == "quick" && i > 0 || *against != "" && !slices.Contains(strings.Split(*against, ","), p) {
				continue
			}
			res, err := compare(r, p, *rounds)
			if err != nil {
				return fmt.Errorf("%s against %s: %w", r.id, p, err)
			}
			rep.Rows = append(rep.Rows, res)
			fmt.Fprintln(os.Stderr, res.line())
		}
	}
	rep.print(os.Stdout)
	if *out != "" {
		b, err := json.MarshalIndent(rep, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*out, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if *picture != "" {
		return rep.draw(*picture)
	}
	return nil
}

func defaults(r int, s float64) {
	if *rounds == 0 {
		*rounds = r
	}
	if *seconds == 0 {
		*seconds = s
	}
}

func choose(ids string) ([]*row, error) {
	if ids == "" {
		return rows, nil
	}
	var chosen []*row
	for id := range strings.SplitSeq(ids, ",") {
		r, err := rowOf(id)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, r)
	}
	return chosen, nil
}

func rowOf(id string) (*row, error) {
	i := slices.IndexFunc(rows, func(r *row) bool { return r.id == id })
	if i < 0 {
		return nil, fmt.Errorf("no row is called %q; -list names them", id)
	}
	return rows[i], nil
}
