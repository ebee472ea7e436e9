package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What a row is worth depends on what each store calls durable. With -syncs every arm of a
// durable row runs once more under strace, and the calls that reach for the device are
// counted between two calls that only mark the place.
const (
	markBegin = -7701 // no descriptor
	markEnd   = -7702
)

// mark is seen by strace and nobody else.
func mark(where int) { _ = unix.Fdatasync(where) }

var syncCall = regexp.MustCompile(`\b(fsync|fdatasync|msync|sync_file_range)\((-?\d+)?`)

// countSyncs describes the sync calls for an operation of a row.
func countSyncs(r *row, name string, budget int64) (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	log := filepath.Join(dir, "calls")
	c, err := armCommand(r, name, budget)
	if err != nil {
		return "", err
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		return "", err
	}
	c.Args = append([]string{"strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,msync,sync_file_range", "-e", "signal=none", "-o", log}, c.Args...)
	c.Path = strace
	out, err := c.Output()
	if err != nil {
		return "", err
	}
	var f figure
	if err := json.Unmarshal(out, &f); err != nil {
		return "", err
	}
	calls, err := os.Open(log)
	if err != nil {
		return "", err
	}
	defer calls.Close()
	counts, inside := map[string]int{}, false
	s := bufio.NewScanner(calls)
	for s.Scan() {
		m := syncCall.FindStringSubmatch(s.Text())
		switch {
		case m == nil:
		case m[2] == fmt.Sprint(markBegin):
			inside = true
		case m[2] == fmt.Sprint(markEnd):
			inside = false
		case inside: // a call that strace cut in two has its name in the first half only
			counts[m[1]]++
		}
	}
	if err := s.Err(); err != nil {
		return "", err
	}
	var parts []string
	for _, call := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%.3g %s", float64(counts[call])/float64(max(f.Ops, 1)), call))
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	return fmt.Sprintf("%s: %s an operation, of %d", name, strings.Join(parts, ", "), f.Ops), nil
}
