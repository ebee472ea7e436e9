package component

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"sort"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/wal"
)

func (l *logLife) recover(i int, image simfs.Image, disk *simfs.FS, goOn bool) (life, error) {
	f := l.moments[i].facts
	if image == simfs.Everything {
		f.least = max(f.least, f.acked)
	}
	o := l.opt
	o.FS = disk
	var got []record
	st, err := wal.ReadState(disk, o.Dir)
	if errors.Is(err, fs.ErrNotExist) && !f.created {
		if !goOn {
			return nil, nil
		}
		return l.child(logFacts{}, nil), nil
	}
	if err != nil {
		return nil, oracle.Broken(oracle.Lost, "", 0, "read state: %w", err)
	}
	if st.Flushed > f.above || st.UUID != storeUUID {
		return nil, oracle.Broken(oracle.Lied, "", st.Flushed, "is flushed, says STATE; storage has %d", f.above)
	}
	rec, err := wal.Recover(o, st, f.above, wal.ReplayFuncs{Replay: func(lsn uint64, b []byte, _ uint32) error {
		got = append(got, parseRecord(lsn, b))
		return nil
	}})
	if err != nil {
		return nil, oracle.Broken(oracle.Lost, "", 0, "recover: %w", err)
	}
	if err := l.check(f, rec, got); err != nil || !goOn {
		return nil, err
	}
	// What this image shows is what its successors show, whenever they are cut.
	f.created = true
	f.least, f.most = rec.LastLSN, len(got)
	f.acked = 0
	return l.child(f, got), nil
}

func (l *logLife) child(born logFacts, line []record) life {
	c := &logLife{rnd: rand.New(rand.NewPCG(l.rnd.Uint64(), 1)), opt: l.opt, born: born, line: line, id: l.id + 1, slow: l.slow}
	return c
}

// check compares what came back with what every number held: an exact prefix of it
// above the watermark, not shorter than was promised, not longer than was begun.
func (l *logLife) check(f logFacts, rec *wal.Recovery, got []record) error {
	from := sort.Search(len(l.line), func(i int) bool { return l.line[i].lsn > f.above })
	want := l.line[from:]
	last := f.above
	for i, g := range got {
		switch {
		case i >= len(want):
			return oracle.Broken(oracle.Hole, "", g.lsn, "came back and was never made: writer %d, its %dth", g.writer, g.n)
		case g != want[i]:
			return oracle.Broken(oracle.Hole, "", g.lsn, "is writer %d's %dth, sum %08x; number %d was writer %d's %dth, sum %08x, and comes next",
				g.writer, g.n, g.sum, want[i].lsn, want[i].writer, want[i].n, want[i].sum)
		}
		last = g.lsn
	}
	switch {
	case last < f.least:
		return oracle.Broken(oracle.Lost, "", f.least, "was promised, the log ends at %d", last)
	case from+len(got) > f.most:
		return oracle.Broken(oracle.Hole, "", last, "%d records came back, %d were begun", from+len(got), f.most)
	case rec.LastLSN != last:
		return oracle.Broken(oracle.Hole, "", last, "is the last that came back, the log says %d", rec.LastLSN)
	case rec.NextLSN <= f.top || rec.NextLSN <= last:
		return oracle.Broken(oracle.Hole, "", rec.NextLSN, "would be given a second time; %d was seen", max(f.top, last))
	}
	return nil
}
