package simfs

import (
	"math/rand/v2"
	"slices"
)

// fate of a sector that unsynced writes touch.
type fate struct {
	versions int // how many of the writes to it have arrived
	spoilt   spoil
}

type spoil uint8

const (
	intact spoil = iota
	zeroed
	garbled
)

// choice is one legal outcome of a cut.
type choice struct {
	ops   []bool
	sizes []int64  // per node
	fates [][]fate // per node, per dirty sector in order
	rnd   *rand.Rand
}

// sector is one that unsynced writes touch, oldest first.
type sector struct {
	at     int64
	writes []int
}

// touched lists the sectors of unsynced writes in order.
func (n *node) touched() []sector {
	at := map[int64]int{}
	var out []sector
	for w := range n.writes {
		e := n.writes[w].extent()
		for s := e.off / SectorSize; s*SectorSize < e.end; s++ {
			i, ok := at[s]
			if !ok {
				i = len(out)
				at[s] = i
				out = append(out, sector{at: s})
			}
			out[i].writes = append(out[i].writes, w)
		}
	}
	slices.SortFunc(out, func(a, b sector) int { return int(a.at - b.at) })
	return out
}

func (s *sector) extent() extent { return extent{s.at * SectorSize, (s.at + 1) * SectorSize} }

// written lists which bytes of the sector unsynced writes cover.
func (s *sector) written(n *node) []extent {
	var out []extent
	for _, w := range s.writes {
		e := n.writes[w].extent().and(s.extent())
		out = append(without(out, e), e)
	}
	slices.SortFunc(out, func(a, b extent) int { return int(a.off - b.off) })
	return out
}

// scope is which bytes a fate may spoil.
func (s *sector) scope(n *node, d Damage, how spoil) []extent {
	switch {
	case how == intact || how == garbled && (d == DamageNone || n.fresh(s)):
		return nil
	case how == garbled && d == DamagePage:
		return []extent{s.extent().grow(PageSize)}
	case d == DamageSector || d == DamagePage:
		return []extent{s.extent()}
	}
	return s.written(n)
}

// fresh reports that the sector was preallocated and never written: the device holds
// zeros there until the whole write has arrived.
func (n *node) fresh(s *sector) bool {
	return slices.ContainsFunc(n.unwritten, func(e extent) bool { return e.covers(s.extent()) })
}

// chosen is the outcome in which the units that keep names arrive whole, in as far as
// they stand on others that do. It reports whether the names could be kept as asked.
func (c *Cut) chosen(keep func(int) bool) (choice, bool) {
	ch := c.none()
	there := make([][]bool, len(c.nodes))
	for i := range c.nodes {
		there[i] = make([]bool, len(c.nodes[i].writes))
	}
	for i, u := range c.units {
		if !keep(i) {
			continue
		}
		if u.op >= 0 {
			ch.ops[u.op] = true
			continue
		}
		there[u.node][u.w] = true
		ch.sizes[u.node] = c.nodes[u.node].writes[u.w].size
	}
	asked := slices.Clone(ch.ops)
	c.closeDown(ch.ops)
	for i := range c.nodes {
		for j, s := range c.nodes[i].dirty {
			for _, w := range s.writes {
				if !there[i][w] {
					break
				}
				ch.fates[i][j].versions++
			}
		}
	}
	return ch, slices.Equal(asked, ch.ops)
}

// none is the outcome that keeps nothing unsynced.
func (c *Cut) none() choice {
	ch := choice{ops: make([]bool, len(c.ops)), sizes: make([]int64, len(c.nodes)), fates: make([][]fate, len(c.nodes))}
	for i := range c.nodes {
		ch.sizes[i] = c.nodes[i].disk.size
		ch.fates[i] = make([]fate, len(c.nodes[i].dirty))
	}
	return ch
}

// Image is the disk after a crash at this cut; Kill is without meaning here.
func (c *Cut) Image(cfg CrashConfig) *FS {
	all := func(int) bool { return true }
	var ch choice
	switch cfg.Image {
	case Nothing:
		ch = c.none()
	case Everything:
		ch, _ = c.chosen(all)
	case AllButFirst:
		ch, _ = c.chosen(func(i int) bool { return i > 0 })
	case OnlyLast:
		ch, _ = c.chosen(func(i int) bool { return i == len(c.units)-1 })
		if n := len(c.units) - 1; n >= 0 && c.units[n].op >= 0 {
			ch.ops[c.units[n].op] = true
			c.closeUp(ch.ops)
		}
	case Names:
		ch, _ = c.chosen(func(i int) bool { return c.units[i].op >= 0 })
	case Lengths, Garbled:
		ch, _ = c.chosen(all)
		for i := range ch.fates {
			for j := range ch.fates[i] {
				ch.fates[i][j] = fate{}
				if cfg.Image == Garbled {
					ch.fates[i][j].spoilt = garbled
				}
			}
		}
	case Bytes:
		ch, _ = c.chosen(all)
		for i := range ch.sizes {
			ch.sizes[i] = c.nodes[i].disk.size
		}
	default:
		ch = c.random(rand.New(rand.NewPCG(cfg.Seed, 0x72616e64)))
	}
	ch.rnd = rand.New(rand.NewPCG(cfg.Seed, 0x67617262))
	return c.build(ch)
}

// random draws an outcome. Each draw first picks how kind the disk is, so that
// images near both ends are common.
func (c *Cut) random(rnd *rand.Rand) choice {
	ch := c.none()
	luck := func() float64 { return []float64{0, 0.1, 0.5, 0.9, 1}[rnd.IntN(5)] }
	p := luck()
	for i := range ch.ops {
		ch.ops[i] = rnd.Float64() < p
	}
	if rnd.IntN(2) == 0 {
		c.closeUp(ch.ops)
	} else {
		c.closeDown(ch.ops)
	}
	kind := luck()
	spoilt := []float64{0, 0, 0.1, 0.5}[rnd.IntN(4)]
	inOrder := rnd.IntN(3) == 0 // the writes arrive up to a point
	for i := range c.nodes {
		n := &c.nodes[i]
		if len(n.writes) == 0 {
			continue
		}
		upTo := rnd.IntN(len(n.writes) + 1)
		for j, s := range n.dirty {
			f := &ch.fates[i][j]
			switch {
			case inOrder:
				for _, w := range s.writes {
					if w < upTo {
						f.versions++
					}
				}
			case rnd.Float64() < kind:
				f.versions = len(s.writes)
			default:
				f.versions = rnd.IntN(len(s.writes))
			}
			if rnd.Float64() < spoilt {
				f.spoilt = zeroed
				if rnd.IntN(2) == 0 {
					f.spoilt = garbled
				}
			}
		}
		switch rnd.IntN(4) {
		case 0:
			ch.sizes[i] = n.writes[len(n.writes)-1].size
		case 1: // as on the disk
		case 2:
			ch.sizes[i] = n.writes[rnd.IntN(len(n.writes))].size
		case 3: // between two lengths, where a sector ends
			w := rnd.IntN(len(n.writes))
			from, to := n.grew(w)
			if first, last := from/SectorSize+1, (to-1)/SectorSize; first <= last {
				ch.sizes[i] = (first + rnd.Int64N(last-first+1)) * SectorSize
			}
		}
	}
	return ch
}

// grew is the length before and after write w.
func (n *node) grew(w int) (from, to int64) {
	from = n.disk.size
	if w > 0 {
		from = n.writes[w-1].size
	}
	return from, n.writes[w].size
}

// resolve makes the bytes of one file.
func (n *node) resolve(size int64, fates []fate, d Damage, rnd *rand.Rand) content {
	out := n.disk.copied()
	sectors := n.dirty
	for j := range sectors {
		s := &sectors[j]
		for _, w := range s.writes[:fates[j].versions] {
			n.writes[w].apply(&out, s.extent())
		}
	}
	for j := range sectors {
		for _, e := range sectors[j].scope(n, d, fates[j].spoilt) {
			if fates[j].spoilt == zeroed {
				out.zero(e.off, e.end-e.off)
				continue
			}
			p := make([]byte, e.end-e.off)
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			out.writeAt(p, e.off)
		}
	}
	out.size = max(out.size, n.disk.size)
	for _, w := range n.writes {
		out.size = max(out.size, w.size, w.off+w.n)
	}
	out.resize(size)
	return out
}

// build makes the file system of an outcome.
func (c *Cut) build(ch choice) *FS {
	fs := New(&c.opt)
	made := make([]*inode, len(c.nodes))
	entries := make([]map[string]int, len(c.nodes))
	for i := range c.nodes {
		if c.nodes[i].dir {
			entries[i] = make(map[string]int, len(c.nodes[i].kept))
			for name, child := range c.nodes[i].kept {
				entries[i][name] = child
			}
		}
	}
	for i, op := range c.ops {
		if !ch.ops[i] {
			continue
		}
		if op.child < 0 {
			delete(entries[op.dir], op.name)
		} else {
			entries[op.dir][op.name] = op.child
		}
	}
	var fill func(n *inode, i int)
	fill = func(n *inode, i int) {
		made[i] = n
		n.mod = c.nodes[i].mod
		if !c.nodes[i].dir {
			n.disk = c.nodes[i].resolve(ch.sizes[i], ch.fates[i], c.opt.Damage, ch.rnd)
			n.data = n.disk.clone()
			n.unwritten, n.alloc = slices.Clone(c.nodes[i].unwritten), c.nodes[i].alloc
			n.unwrittenKept, n.allocKept = slices.Clone(n.unwritten), n.alloc
			fs.used += n.charge()
			return
		}
		names := make([]string, 0, len(entries[i]))
		for name := range entries[i] {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			j := entries[i][name]
			child := made[j]
			if child == nil {
				child = fs.newInode(c.nodes[j].dir)
				child.parent = n
				fill(child, j)
			}
			child.links++
			n.entries[name], n.kept[name] = child, child
		}
	}
	fill(fs.root, 0)
	return fs
}
