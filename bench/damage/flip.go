package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// outcome of one damaged copy, worst first.
type outcome uint8

const (
	wrong outcome = iota
	silent
	exited
	hung
	refused
	reported
	right
	outcomes
)

var outcomeNames = [outcomes]string{"wrong value", "silently missing", "process exit", "hang", "refused at open", "reported by a read", "right"}

func (o outcome) String() string { return outcomeNames[o] }

// flipRow is a line of the table.
type flipRow struct {
	Store    string        `json:"store"`
	Ended    string        `json:"ended"`
	Class    string        `json:"class"`
	Flips    int           `json:"flips"`
	Count    [outcomes]int `json:"outcomes"` // wrong, missing, exit, hang, refused, reported, right
	Examples []string      `json:"examples,omitempty"`
}

func (r flipRow) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | %s | %s | %d |", r.Store, r.Ended, r.Class, r.Flips)
	for _, n := range r.Count {
		fmt.Fprintf(&b, " %d |", n)
	}
	return b.String()
}

// place is a page that holds something.
type place struct {
	file string
	off  int64
	size int64
}

const page = 4096

// flips fills a store and flips n bits in each class of its files, one bit a copy.
func flips(s storeKind, end string, n int, seed uint64) (rows []flipRow, err error) {
	root, err := os.MkdirTemp("", "holdfast-damage-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	whole := filepath.Join(root, "whole")
	if err := os.Mkdir(whole, 0o755); err != nil {
		return nil, err
	}
	kill := 0
	if end == "killed" {
		kill = 1
	}
	if c := runChild("fill", s.name, whole, kill, nil); c.err != nil && !(end == "killed" && c.killed) {
		return nil, fmt.Errorf("fill: %w\n%s", c.err, c.stderr)
	}
	// An undamaged copy must be right, or nothing below means anything.
	if o, ex, err := flipped(s, root, whole, place{}, 0, 0); err != nil || o != right {
		return nil, errors.Join(err, fmt.Errorf("without damage: %s: %s", o, ex))
	}
	places, err := pages(whole)
	if err != nil {
		return nil, err
	}
	rnd := rand.New(rand.NewPCG(seed, uint64(kill)))
	for _, class := range slices.Sorted(keys(places)) {
		row := flipRow{Store: s.name, Ended: end, Class: class, Flips: n}
		for range n {
			p := places[class][rnd.IntN(len(places[class]))]
			off, bit := p.off+rnd.Int64N(p.size), rnd.IntN(8)
			o, example, err := flipped(s, root, whole, p, off, bit)
			if err != nil {
				return rows, err
			}
			row.Count[o]++
			if o <= hung && len(row.Examples) < 3 {
				row.Examples = append(row.Examples, fmt.Sprintf("%s: bit %d of byte %d: %s: %s", p.file, bit, off, o, example))
			}
		}
		rows = append(rows, row)
		fmt.Fprintln(os.Stderr, row.markdown())
	}
	return rows, nil
}

// flipped reads a copy with one bit flipped; a place without a file flips none.
func flipped(s storeKind, root, whole string, p place, off int64, bit int) (o outcome, example string, err error) {
	at := filepath.Join(root, "copy")
	defer func() { err = errors.Join(err, os.RemoveAll(at)) }()
	if err := copyTree(at, whole); err != nil {
		return 0, "", err
	}
	if p.file != "" {
		if err := flipBit(filepath.Join(at, p.file), off, bit); err != nil {
			return 0, "", err
		}
	}
	c := runChild("read", s.name, at, 0, nil)
	a, ok := parseAnswer(c.stdout)
	switch {
	case c.hung:
		return hung, "", nil
	case c.failed:
		return 0, "", fmt.Errorf("read: %w\n%s", c.err, c.stderr)
	case a.Wrong > 0:
		return wrong, a.Example, nil
	case a.Missing > 0:
		return silent, a.Example, nil
	case !ok || c.err != nil:
		return exited, lastCause(c.stderr), nil
	case a.Refused:
		return refused, a.Example, nil
	case a.Errors > 0:
		return reported, a.Example, nil
	}
	return right, "", nil
}

// lastCause is the line that says why a process ended.
func lastCause(stderr string) string {
	for line := range strings.Lines(stderr) {
		if l := strings.TrimSpace(line); strings.HasPrefix(l, "panic:") || strings.HasPrefix(l, "fatal") || strings.Contains(l, "SIG") {
			return fmt.Sprintf("%.200s", l)
		}
	}
	return fmt.Sprintf("%.200s", strings.TrimSpace(stderr))
}

func flipBit(name string, off int64, bit int) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	if err == nil {
		b[0] ^= 1 << bit
		_, err = f.WriteAt(b[:], off)
	}
	return errors.Join(err, f.Close())
}

// pages lists, by class, the pages that hold anything but zeros.
func pages(dir string) (map[string][]place, error) {
	out := map[string][]place{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		c := class(name)
		if err != nil || c == "" {
			return err
		}
		return eachExtent(path, func(f *os.File, from, to int64) error {
			b := make([]byte, page)
			for off := from; off < to; off += page {
				n, err := f.ReadAt(b[:min(page, to-off)], off)
				if err != nil && err != io.EOF {
					return err
				}
				if strings.Trim(string(b[:n]), "\x00") != "" {
					out[c] = append(out[c], place{name, off, int64(n)})
				}
			}
			return nil
		})
	})
	return out, err
}
