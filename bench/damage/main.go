package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

var (
	flipCount = flag.Int("flips", 16, "flipped bits for each class of file, closed and killed each")
	killCount = flag.Int("kills", 8, "kills of each store")
	firstSeed = flag.Uint64("seed", 1, "seed of places and times")
	only      = flag.String("stores", "", "comma-separated stores; empty: all")
	jsonFile  = flag.String("json", "", "write the report here")
	asChild   = flag.String("child", "", "internal: fill, read or write")
	childOf   = flag.String("store", "", "internal: this store")
	childDir  = flag.String("dir", "", "internal: in this folder")
	childArg  = flag.Int("arg", 0, "internal")
)

func main() {
	flag.Parse()
	if *asChild != "" {
		if err := child(*asChild, *childOf, *childDir, *childArg); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(childFailed)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "damage:", err)
		os.Exit(1)
	}
}

// report is what -json writes.
type report struct {
	Machine  map[string]any    `json:"machine"`
	Versions map[string]string `json:"versions"`
	Seed     uint64            `json:"seed"`
	Flips    []flipRow         `json:"flips"`
	Kills    []killRow         `json:"kills"`
}

func run() error {
	rep := report{
		Machine:  map[string]any{"os": runtime.GOOS, "arch": runtime.GOARCH, "cores": runtime.NumCPU(), "go": runtime.Version()},
		Versions: versions(), Seed: *firstSeed,
	}
	fmt.Printf("%s/%s, %d cores, %s, seed %d\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), *firstSeed)
	for _, s := range stores {
		if wanted(s.name) {
			fmt.Printf("- %s %s: %s\n", s.name, rep.Versions[s.module], s.about)
		}
	}
	for _, s := range stores {
		if !wanted(s.name) {
			continue
		}
		for _, end := range []string{"closed", "killed"} {
			rows, err := flips(s, end, *flipCount, *firstSeed)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, end, err)
			}
			rep.Flips = append(rep.Flips, rows...)
		}
	}
	printFlips(rep.Flips)
	for _, s := range stores {
		if !wanted(s.name) {
			continue
		}
		row, err := kills(s, *killCount, *firstSeed)
		if err != nil {
			return fmt.Errorf("%s: kills: %w", s.name, err)
		}
		rep.Kills = append(rep.Kills, row)
	}
	printKills(rep.Kills)
	if *jsonFile == "" {
		return nil
	}
	b, err := json.MarshalIndent(rep, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(*jsonFile, append(b, '\n'), 0o644)
}

func wanted(name string) bool {
	return *only == "" || slices.Contains(strings.Split(*only, ","), name)
}

func printFlips(rows []flipRow) {
	fmt.Print("\n| store | ended | file | flips |")
	for o := range outcomes {
		fmt.Printf(" %s |", o)
	}
	fmt.Print("\n|---|---|---|---:|" + strings.Repeat("---:|", int(outcomes)) + "\n")
	totals := map[string]*flipRow{}
	var order []string
	for _, r := range rows {
		fmt.Println(r.markdown())
		if totals[r.Store] == nil {
			totals[r.Store] = &flipRow{Store: "**" + r.Store + "**", Ended: "both", Class: "all"}
			order = append(order, r.Store)
		}
		t := totals[r.Store]
		t.Flips += r.Flips
		for o, n := range r.Count {
			t.Count[o] += n
		}
	}
	for _, name := range order {
		fmt.Println(totals[name].markdown())
	}
	for _, r := range rows {
		for _, e := range r.Examples {
			fmt.Fprintf(os.Stderr, "%s, %s, %s: %s\n", r.Store, r.Ended, r.Class, e)
		}
	}
}

func printKills(rows []killRow) {
	fmt.Println("\n| store | kills | acknowledged | acknowledged and lost | refused to open | process exit | hang |")
	fmt.Println("|---|---:|---:|---:|---:|---:|---:|")
	for _, r := range rows {
		fmt.Printf("| %s | %d | %d | %d | %d | %d | %d |\n", r.Store, r.Kills, r.Acked, r.Lost, r.Refused, r.Exits, r.Hangs)
	}
}
