package simfs

import (
	"maps"
	"slices"
)

// nameOp gives one name of one directory another meaning. It is pending until a
// sync of that directory (or, Ext4Like, of the file) makes it durable; until then a
// crash may keep it or not, as long as everything it needs is kept too.
type nameOp struct {
	seq   uint64
	dir   *inode
	name  string
	child *inode // nil: the name is gone
	was   *inode
	needs []*nameOp
	home  []*nameOp // pending when it was made: the names of the directories above it
	fresh bool      // it made child
	stuck bool      // a failed sync marked it clean: later syncs pass it by
	kept  bool
}

// bind gives name in dir the meaning child, at once for readers, pending for crashes.
func (fs *FS) bind(dir *inode, name string, child *inode) *nameOp {
	was := dir.entries[name]
	op := &nameOp{seq: fs.nextSeq(), dir: dir, name: name, child: child, was: was}
	for d := dir; d != nil; d = d.parent {
		if d.bound != nil && !d.bound.kept {
			op.home = append(op.home, d.bound)
		}
	}
	if prev := dir.last[name]; prev != nil {
		op.needs = append(op.needs, prev) // a name goes through its meanings in order
	}
	dir.last[name] = op
	if fs.stuck {
		for _, o := range fs.ops {
			if o.dir == dir {
				o.stuck = false // the directory's block is dirty again, as a whole
			}
		}
	}
	fs.ops = append(fs.ops, op)
	if child == nil {
		delete(dir.entries, name)
	} else {
		dir.entries[name] = child
		child.links++
		if child.dir {
			child.parent, child.bound = dir, op
		}
	}
	if was != nil {
		was.links--
		if was.dir && was.links == 0 {
			// It was empty for readers; no crash may find it gone but not yet emptied,
			// or what was moved out of it would be nowhere.
			for _, o := range fs.ops {
				if o.dir == was {
					op.needs = append(op.needs, o)
				}
			}
		}
		fs.release(was)
	}
	dir.mod = fs.now()
	return op
}

// move is a rename: the new name, then the loss of the old one. The loss needs the
// new name, and the directories above it, or the file would be nowhere.
func (fs *FS) move(from *inode, old string, to *inode, name string) {
	child := from.entries[old]
	child.links++ // not released between the halves
	add := fs.bind(to, name, child)
	del := fs.bind(from, old, nil)
	child.links--
	if from == to || !fs.opt.PessimisticRename {
		del.needs = append(append(del.needs, add), add.home...)
	}
	if child.dir {
		add.needs = append(add.needs, del) // a directory is never in two places
	}
}

// covered lists what a sync of n promises to keep.
func (fs *FS) covered(n *inode, upto uint64, full bool) []*nameOp {
	if !n.dir && !fs.opt.Ext4Like {
		return nil
	}
	var ops []*nameOp
	for _, op := range fs.ops {
		if op.seq > upto {
			break
		}
		mine := op.dir == n
		if fs.opt.Ext4Like && (op.child == n || op.was == n) {
			mine = mine || full || op.fresh && op.child == n
		}
		if mine {
			ops = append(ops, op)
		}
	}
	return ops
}

// keepNames makes ops durable, with all they need.
func (fs *FS) keepNames(ops []*nameOp) {
	done := map[*nameOp]bool{}
	for _, op := range ops {
		if !fs.stuck {
			fs.closure(op, done)
			continue
		}
		set := map[*nameOp]bool{} // all or nothing
		if fs.closure(op, set) {
			maps.Copy(done, set)
		}
	}
	if len(done) == 0 {
		return
	}
	rest := fs.ops[:0:0]
	for _, op := range fs.ops { // in order, so that the last meaning of a name wins
		if !done[op] {
			rest = append(rest, op)
			continue
		}
		if op.child == nil {
			delete(op.dir.kept, op.name)
		} else {
			op.dir.kept[op.name] = op.child
		}
		if op.dir.last[op.name] == op {
			delete(op.dir.last, op.name)
		}
		op.kept, op.needs, op.home = true, nil, nil
	}
	fs.ops = rest
}

// closure adds op and what it needs to set, and reports whether nothing of it is
// stuck.
func (fs *FS) closure(op *nameOp, set map[*nameOp]bool) bool {
	if op.kept || set[op] {
		return true
	}
	if op.stuck {
		return false
	}
	set[op] = true
	for _, o := range op.needs {
		if !fs.closure(o, set) {
			return false
		}
	}
	if fs.opt.Ext4Like {
		for _, o := range op.home {
			if !fs.closure(o, set) {
				return false
			}
		}
	}
	return true
}

// syncNames is the directory's half of a sync.
func (fs *FS) syncNames(n *inode, upto uint64, full bool) {
	fs.keepNames(fs.covered(n, upto, full))
}

// loseNames marks what a sync would have kept as clean; a crash decides, and later
// syncs do not help unless the directory changes again.
func (fs *FS) loseNames(n *inode, upto uint64, full bool) {
	for _, op := range fs.covered(n, upto, full) {
		if op.dir == n {
			op.stuck, fs.stuck = true, true
		}
	}
}

func sortedNames(m map[string]*inode) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
