package simfs

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Legal says whether a crash at this cut may leave what was observed; nil is yes.
// The error names the first contradiction. Random content makes it sharp: where
// files look alike it may take one for another. Two names of one file are looked at
// one by one.
//
// It decides by names: each name goes through its meanings in order, so a place in
// that order is all there is to choose. What needs what only ever forces a name
// further on, so the least places that fit the observation fit the needs, or none do.
func (c *Cut) Legal(observed Tree) error {
	s := &solver{c: c, seen: observed, chains: map[chainKey]*chain{}, files: map[fileKey]error{}}
	for i := range c.nodes {
		for name, child := range c.nodes[i].kept {
			s.chain(i, name).meanings[0] = child
		}
	}
	for i, op := range c.ops {
		ch := s.chain(op.dir, op.name)
		ch.meanings = append(ch.meanings, op.child)
		s.place = append(s.place, spot{ch, len(ch.meanings) - 1})
		ch.ops = append(ch.ops, i)
	}
	children := map[string][]string{}
	for p := range observed {
		if p == "/" || clean(p) != p {
			return fmt.Errorf("simfs: %q is no path of a tree", p)
		}
		i := strings.LastIndexByte(p, '/')
		if dir := p[:i]; dir != "" && !observed[dir].Dir {
			return fmt.Errorf("simfs: %s is in no directory", p)
		}
		children[p[:i]] = append(children[p[:i]], p[i+1:])
	}
	s.children = children
	return s.walk([]visit{{0, ""}})
}

type chainKey struct {
	dir  int
	name string
}

// chain is the meanings of a name, the durable one first.
type chain struct {
	name     string
	meanings []int // nodes; -1: none
	ops      []int // ops[i] leads to meanings[i+1]
	fits     []int // places that the observation allows; nil: all, nobody can see
}

type spot struct {
	chain *chain
	at    int
}

type visit struct {
	node int
	path string
}

type fileKey struct {
	node int
	path string
}

type solver struct {
	c        *Cut
	seen     Tree
	children map[string][]string
	chains   map[chainKey]*chain
	byDir    map[int][]string
	place    []spot // of each op
	files    map[fileKey]error
}

func (s *solver) chain(dir int, name string) *chain {
	k := chainKey{dir, name}
	ch := s.chains[k]
	if ch == nil {
		ch = &chain{name: name, meanings: []int{-1}}
		s.chains[k] = ch
		if s.byDir == nil {
			s.byDir = map[int][]string{}
		}
		s.byDir[dir] = append(s.byDir[dir], name)
	}
	return ch
}

// walk settles the directories to visit one by one; where a name may stand for one of
// several directories it tries each.
func (s *solver) walk(todo []visit) error {
	if len(todo) == 0 {
		return s.settle()
	}
	v := todo[0]
	todo = slices.Clone(todo[1:])
	for _, name := range s.children[v.path] {
		if s.chains[chainKey{v.node, name}] == nil {
			return fmt.Errorf("simfs: %s/%s: nobody made that name", v.path, name)
		}
	}
	type fork struct {
		ch   *chain
		path string
		dirs []int
	}
	var forks []fork
	names := slices.Clone(s.byDir[v.node])
	slices.Sort(names)
	var mine []*chain
	defer func() {
		for _, ch := range mine {
			ch.fits = nil
		}
	}()
	for _, name := range names {
		ch := s.chains[chainKey{v.node, name}]
		path := v.path + "/" + name
		e, there := s.seen[path]
		var why error
		fits := []int{}
		var dirs []int
		for at, child := range ch.meanings {
			switch {
			case !there && child < 0:
				fits = append(fits, at)
			case !there || child < 0:
			case e.Dir && s.c.nodes[child].dir:
				fits = append(fits, at)
				if !slices.Contains(dirs, child) {
					dirs = append(dirs, child)
				}
			case e.Dir || s.c.nodes[child].dir:
			default:
				if err := s.file(child, path); err != nil {
					why = err
				} else {
					fits = append(fits, at)
				}
			}
		}
		if len(fits) == 0 {
			switch {
			case why != nil:
				return fmt.Errorf("simfs: %s: %w", path, why)
			case there:
				return fmt.Errorf("simfs: %s: is there, in a form it never had", path)
			}
			return fmt.Errorf("simfs: %s: is lost, and was durable", path)
		}
		ch.fits = fits
		mine = append(mine, ch)
		if len(dirs) > 0 {
			forks = append(forks, fork{ch, path, dirs})
		}
	}
	var try func(i int, todo []visit) error
	try = func(i int, todo []visit) error {
		if i == len(forks) {
			return s.walk(todo)
		}
		f := forks[i]
		all := f.ch.fits
		defer func() { f.ch.fits = all }()
		var first error
		for _, d := range f.dirs {
			f.ch.fits = slices.DeleteFunc(slices.Clone(all), func(at int) bool { return f.ch.meanings[at] != d })
			err := try(i+1, append(slices.Clone(todo), visit{d, f.path}))
			if err == nil {
				return nil
			}
			if first == nil {
				first = err
			}
		}
		return first
	}
	return try(0, todo)
}

// settle finds the least place of every name that fits, and pushes on what is needed.
func (s *solver) settle() error {
	at := map[*chain]int{}
	// advance moves ch to the first place from least on that fits.
	advance := func(ch *chain, least int) error {
		if ch.fits == nil {
			at[ch] = max(at[ch], least)
			return nil
		}
		for _, p := range ch.fits {
			if p >= least {
				at[ch] = max(at[ch], p)
				return nil
			}
		}
		return fmt.Errorf("simfs: %s: is older than something that stands on it", ch.name)
	}
	for _, ch := range s.chains {
		if err := advance(ch, 0); err != nil {
			return err
		}
	}
	for again := true; again; {
		again = false
		for i, sp := range s.place {
			if at[sp.chain] < sp.at {
				continue
			}
			for _, o := range s.c.ops[i].needs {
				if need := s.place[o]; at[need.chain] < need.at {
					if err := advance(need.chain, need.at); err != nil {
						return err
					}
					again = true
				}
			}
		}
	}
	return nil
}

// file is fileLegal, remembered.
func (s *solver) file(node int, path string) error {
	k := fileKey{node, path}
	err, ok := s.files[k]
	if !ok {
		err = s.c.nodes[node].legal(s.seen[path].Data, s.c.opt.Damage)
		s.files[k] = err
	}
	return err
}

// legal says whether a crash may leave these bytes in the file.
func (n *node) legal(got []byte, d Damage) error {
	size := int64(len(got))
	if !n.legalSize(size) {
		return fmt.Errorf("length %d, durable are %d, and no unsynced write passes it", size, n.disk.size)
	}
	sectors := n.dirty
	next := 0
	for at := int64(0); at*SectorSize < size; at++ {
		e := extent{at * SectorSize, min((at+1)*SectorSize, size)}
		have := got[e.off:e.end]
		for next < len(sectors) && sectors[next].at < at {
			next++
		}
		var touched *sector
		if next < len(sectors) && sectors[next].at == at {
			touched = &sectors[next]
		}
		if !n.legalSector(have, e, touched, sectors, d) {
			return fmt.Errorf("bytes %d to %d are neither old nor new nor spoilt by the rules", e.off, e.end)
		}
	}
	return nil
}

func (n *node) legalSize(size int64) bool {
	if size == n.disk.size {
		return true
	}
	for w := range n.writes {
		from, to := n.grew(w)
		if size == to || size%SectorSize == 0 && from < size && size < to {
			return true
		}
	}
	return false
}

func (n *node) legalSector(have []byte, e extent, s *sector, all []sector, d Damage) bool {
	old := n.disk.span(e.off, e.end-e.off)
	if bytes.Equal(have, old) {
		return true
	}
	if s != nil {
		var now content
		now.writeAt(n.disk.span(s.extent().off, SectorSize), 0)
		for _, w := range s.writes {
			u := n.writes[w]
			u.off -= s.extent().off
			shifted := u
			shifted.apply(&now, extent{0, SectorSize})
			if bytes.Equal(have, now.span(0, e.end-e.off)) {
				return true
			}
		}
	}
	// Spoilt: outside of what may be, all is as one of the versions left it.
	zeros := make([]byte, len(have))
	allowed := func(how spoil) bool {
		var scope []extent
		if s != nil {
			scope = s.scope(n, d, how)
		}
		if how == garbled && d == DamagePage {
			for i := range all {
				scope = append(scope, all[i].scope(n, d, how)...)
			}
		}
		left := []extent{e}
		for _, sc := range scope {
			left = without(left, sc)
		}
		for _, l := range left {
			if !bytes.Equal(have[l.off-e.off:l.end-e.off], old[l.off-e.off:l.end-e.off]) {
				return false
			}
		}
		if how == garbled {
			return len(scope) > 0
		}
		for _, sc := range scope {
			if sc = sc.and(e); sc.off < sc.end && !bytes.Equal(have[sc.off-e.off:sc.end-e.off], zeros[:sc.end-sc.off]) {
				return false
			}
		}
		return len(scope) > 0
	}
	return allowed(zeroed) || allowed(garbled)
}
