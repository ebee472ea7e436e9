package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// plan says what every batch of the demo writes. It follows from the list of files
// and the seed alone, so parent and child agree on it without talking, and the
// child goes on where a kill stopped it.
//
// The files, in order, are dealt to lanes: each lane is one writer of the child
// and owns a contiguous run of files. A lane's batches are numbered from 1 and
// written one after the other, so that after a kill the store holds a lane's
// batches through some number, and that number is the last acknowledged one or the
// one after it. First batches import the lane's files; then they overwrite, delete
// and restore them without end.
type plan struct {
	Root  string `json:"root"`
	Files []file `json:"files"` // sorted by path
	Seed  uint64 `json:"seed"`

	lanes []lane
}

type file struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

type lane struct {
	lo, hi  int   // its files
	imports []int // where each import batch ends
}

type stepKind uint8

const (
	stepPut stepKind = iota
	stepDelete
	stepDeleteRange // files [file, upto)
)

// step is one write of a batch.
type step struct {
	kind       stepKind
	file, upto int
	altered    bool // the content carries the batch's name in front
}

const (
	filePrefix  = "file/"
	batchPrefix = "batch/"

	demoLanes       = 4
	importFiles     = 32        // most files of an import batch
	importBytes     = 512 << 10 // an import batch ends beyond it
	churnSteps      = 12
	churnRange      = 8
	maxDemoFileSize = 64 << 20
)

// findFiles lists the regular files below root, but at most limit bytes of them.
func findFiles(root string, limit int64) (files []file, bytes int64, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			if d != nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
				return filepath.SkipDir // a repository's own store is not its source
			}
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > maxDemoFileSize || bytes+info.Size() > limit {
			return ignoreGone(err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files = append(files, file{filepath.ToSlash(rel), info.Size()})
		bytes += info.Size()
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no regular file below %s", root)
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.Path, b.Path) })
	return files, bytes, err
}

// deal gives the files to the lanes, so that each has about the same number of
// bytes, and cuts the import into batches.
func (p *plan) deal() {
	var total, sum int64
	for _, f := range p.Files {
		total += f.Size + 1
	}
	n := min(demoLanes, len(p.Files))
	p.lanes = make([]lane, 0, n)
	lo := 0
	for i, f := range p.Files {
		sum += f.Size + 1
		left := n - len(p.lanes) - 1 // lanes that still need a file
		full := sum*int64(n) >= total*int64(len(p.lanes)+1)
		if i == len(p.Files)-1 || left > 0 && (full || len(p.Files)-i-1 == left) {
			p.lanes = append(p.lanes, lane{lo: lo, hi: i + 1})
			lo = i + 1
		}
	}
	for l := range p.lanes {
		p.lanes[l].cut(p.Files, rand.New(rand.NewPCG(p.Seed, uint64(l))))
	}
}

func (l *lane) cut(files []file, r *rand.Rand) {
	for i := l.lo; i < l.hi; {
		var bytes int64
		end := min(l.hi, i+1+r.IntN(importFiles))
		for i < end && bytes < importBytes {
			bytes += files[i].Size
			i++
		}
		l.imports = append(l.imports, i)
	}
}

// importBatches is how many batches the import takes.
func (p *plan) importBatches() (n int) {
	for _, l := range p.lanes {
		n += len(l.imports)
	}
	return n
}

// steps is what batch n of a lane writes, in order. Later steps win.
func (p *plan) steps(laneNo, n int) []step {
	l := &p.lanes[laneNo]
	if n <= len(l.imports) {
		first := l.lo
		if n > 1 {
			first = l.imports[n-2]
		}
		steps := make([]step, 0, l.imports[n-1]-first)
		for i := first; i < l.imports[n-1]; i++ {
			steps = append(steps, step{kind: stepPut, file: i})
		}
		return steps
	}
	r := rand.New(rand.NewPCG(p.Seed, uint64(laneNo)<<32|uint64(n)))
	steps := make([]step, 0, churnSteps)
	for range 1 + r.IntN(churnSteps) {
		s := step{file: l.lo + r.IntN(l.hi-l.lo)}
		switch c := r.IntN(10); {
		case c < 5:
			s.altered = true
		case c < 7: // restored
		case c < 9:
			s.kind = stepDelete
		default:
			s.kind = stepDeleteRange
			s.upto = min(l.hi, s.file+1+r.IntN(churnRange))
		}
		steps = append(steps, s)
	}
	return steps
}

func (p *plan) key(i int) []byte { return []byte(filePrefix + p.Files[i].Path) }

// after is the lowest key above that of file i.
func (p *plan) after(i int) []byte { return append(p.key(i), 0) }

// content is what step s of a batch writes.
func (p *plan) content(s step, laneNo, n int) ([]byte, error) {
	f := p.Files[s.file]
	b, err := os.ReadFile(filepath.Join(p.Root, filepath.FromSlash(f.Path)))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != f.Size {
		return nil, fmt.Errorf("%s changed while the demo runs", f.Path)
	}
	if s.altered {
		b = append(fmt.Appendf(nil, "-- lane %d, batch %d --\n", laneNo, n), b...)
	}
	return b, nil
}

// marker is the key and value that each batch writes beside its files: the list of
// its members, for whoever looks into the store.
func (p *plan) marker(laneNo, n int, steps []step) (key, value []byte) {
	var m struct {
		Put    []string   `json:"put,omitempty"`
		Delete []string   `json:"delete,omitempty"`
		Ranges [][]string `json:"delete_range,omitempty"`
	}
	for _, s := range steps {
		key := string(p.key(s.file))
		switch s.kind {
		case stepPut:
			m.Put = append(m.Put, key)
		case stepDelete:
			m.Delete = append(m.Delete, key)
		default:
			m.Ranges = append(m.Ranges, []string{key, string(p.key(s.upto - 1))})
		}
	}
	value, _ = json.Marshal(m) // strings have JSON
	return fmt.Appendf(lanePrefix(laneNo), "%08d", n), value
}

func lanePrefix(laneNo int) []byte { return fmt.Appendf(nil, "%s%02d/", batchPrefix, laneNo) }

// markerNumber is the batch number in a marker's key.
func markerNumber(key []byte) (n int, err error) {
	at := bytes.LastIndexByte(key, '/')
	if _, err = fmt.Sscanf(string(key[at+1:]), "%d", &n); err != nil {
		return 0, fmt.Errorf("key %s is no marker of a batch", escape(key))
	}
	return n, nil
}

// save and loadPlan carry the plan to the child.
func (p *plan) save(name string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o600)
}

func loadPlan(name string) (*plan, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	p := new(plan)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(p.Files) == 0 {
		return nil, errors.New(name + ": no files")
	}
	p.deal()
	return p, nil
}
