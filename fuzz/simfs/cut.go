package simfs

import (
	"fmt"
	"iter"
	"slices"
	"time"
)

// Image names a way for a crash to treat what no sync has covered.
type Image uint8

const (
	// Random keeps what the seed says.
	Random Image = iota
	// Nothing unsynced survives.
	Nothing
	// Everything survives, as after the kill of a process.
	Everything
	// AllButFirst loses the oldest unsynced change and what stands on it.
	AllButFirst
	// OnlyLast keeps the newest unsynced change and what it stands on.
	OnlyLast
	// Names survive all, unsynced bytes and lengths do not: files of length zero.
	Names
	// Lengths and names survive all, unsynced bytes do not: files of zeros.
	Lengths
	// Bytes and names survive all, unsynced lengths do not: tails are cut.
	Bytes
	// Garbled keeps names and lengths, and spoils every unsynced byte as far as
	// Options.Damage allows.
	Garbled

	images
)

var imageNames = [...]string{"random", "nothing", "everything", "all-but-first", "only-last", "names", "lengths", "bytes", "garbled"}

func (i Image) String() string {
	if i < images {
		return imageNames[i]
	}
	return fmt.Sprintf("image %d", i)
}

// Corners are the images that need no seed, or nearly none.
func Corners() []Image {
	var all []Image
	for i := Nothing; i < images; i++ {
		all = append(all, i)
	}
	return all
}

// CrashConfig of one crash. Zero is the random image of seed 0, with the old file
// system still alive.
type CrashConfig struct {
	Seed  uint64
	Image Image
	// Kill the old file system in the same instant.
	Kill bool
}

// Cut is everything a disk knows at the instant the power goes: what is certain, and
// what may or may not be left. It does not change when its FS goes on.
type Cut struct {
	opt   Options
	nodes []node // 0 is the root
	ops   []cutOp
	units []unit // unsynced changes, oldest first
}

// node is an inode at the cut.
type node struct {
	in        *inode // while the cut is made
	dir       bool
	disk      content
	writes    []write
	dirty     []sector
	unwritten []extent // as a crash finds them
	alloc     int64
	kept      map[string]int
	mod       time.Time
}

// cutOp is a nameOp at the cut; needs are places in Cut.ops.
type cutOp struct {
	dir   int
	name  string
	child int // -1: none
	needs []int
}

// unit is one pending nameOp or one unsynced write.
type unit struct {
	seq  uint64
	op   int // or -1
	node int
	w    int
}

// Cut takes down the state of the disk in this instant, between two calls.
func (fs *FS) Cut() *Cut {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.cutLocked()
}

func (fs *FS) cutLocked() *Cut {
	c := &Cut{opt: fs.opt}
	at := map[*inode]int{}
	place := func(n *inode) int {
		if n == nil {
			return -1
		}
		i, ok := at[n]
		if !ok {
			i = len(c.nodes)
			at[n] = i
			c.nodes = append(c.nodes, node{in: n, dir: n.dir, mod: n.mod})
		}
		return i
	}
	place(fs.root)
	number := make(map[*nameOp]int, len(fs.ops))
	for i, op := range fs.ops {
		number[op] = i
		c.ops = append(c.ops, cutOp{dir: place(op.dir), name: op.name, child: place(op.child)})
		c.units = append(c.units, unit{seq: op.seq, op: i})
	}
	for i, op := range fs.ops {
		for _, o := range op.needs {
			if !o.kept {
				c.ops[i].needs = append(c.ops[i].needs, number[o])
			}
		}
	}
	for i := 0; i < len(c.nodes); i++ { // grows while it runs
		n := c.nodes[i].in
		if n.dir {
			kept := make(map[string]int, len(n.kept))
			for _, name := range sortedNames(n.kept) {
				kept[name] = place(n.kept[name])
			}
			c.nodes[i].kept = kept
			continue
		}
		c.nodes[i].disk = n.disk.clone()
		c.nodes[i].writes = slices.Clone(n.writes)
		c.nodes[i].dirty = c.nodes[i].touched()
		c.nodes[i].unwritten, c.nodes[i].alloc = slices.Clone(n.unwrittenKept), n.allocKept
		for w := range n.writes {
			c.units = append(c.units, unit{seq: n.writes[w].seq, op: -1, node: i, w: w})
		}
	}
	for i := range c.nodes {
		c.nodes[i].in = nil
	}
	slices.SortStableFunc(c.units, func(a, b unit) int { return int(int64(a.seq) - int64(b.seq)) })
	return c
}

// Crash cuts the power and returns the disk as the next boot finds it: a file system
// of its own, all of it synced, that no handle of the old one reaches. The same calls
// and the same config give the same disk, bit for bit.
func (fs *FS) Crash(cfg CrashConfig) *FS {
	fs.mu.Lock()
	c := fs.cutLocked()
	if cfg.Kill {
		fs.killLocked()
	}
	fs.mu.Unlock()
	return c.Image(cfg)
}

// CrashImages is Cut().Images(seed, random): the corners, then so many random ones.
func (fs *FS) CrashImages(seed uint64, random int) iter.Seq2[CrashConfig, *FS] {
	return fs.Cut().Images(seed, random)
}

// Images yields the corners, then so many random images with the seeds from seed on.
func (c *Cut) Images(seed uint64, random int) iter.Seq2[CrashConfig, *FS] {
	return func(yield func(CrashConfig, *FS) bool) {
		for _, i := range Corners() {
			cfg := CrashConfig{Seed: seed, Image: i}
			if !yield(cfg, c.Image(cfg)) {
				return
			}
		}
		for i := range random {
			cfg := CrashConfig{Seed: seed + uint64(i)}
			if !yield(cfg, c.Image(cfg)) {
				return
			}
		}
	}
}

// Unsynced is how many changes, writes and names, a crash is free to lose.
func (c *Cut) Unsynced() int { return len(c.units) }

// Subsets yields an image for every set of unsynced changes that a crash may keep
// whole, and false without a single image if there are more than 12 changes.
func (c *Cut) Subsets() (iter.Seq[*FS], bool) {
	const most = 12
	if len(c.units) > most {
		return nil, false
	}
	return func(yield func(*FS) bool) {
		for mask := range 1 << len(c.units) {
			ch, ok := c.chosen(func(i int) bool { return mask>>i&1 == 1 })
			if ok && !yield(c.build(ch)) {
				return
			}
		}
	}, true
}

// closeUp adds to ops what they need; closeDown takes away what stands on nothing.
func (c *Cut) closeUp(ops []bool) {
	var add func(int)
	add = func(i int) {
		for _, o := range c.ops[i].needs {
			if !ops[o] {
				ops[o] = true
				add(o)
			}
		}
	}
	for i := range ops {
		if ops[i] {
			add(i)
		}
	}
}

func (c *Cut) closeDown(ops []bool) {
	for again := true; again; {
		again = false
		for i := range ops {
			if ops[i] && slices.ContainsFunc(c.ops[i].needs, func(o int) bool { return !ops[o] }) {
				ops[i], again = false, true
			}
		}
	}
}
