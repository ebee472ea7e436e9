package engine

import (
	"bytes"
	"fmt"

	"github.com/holdfastdb/holdfast/storage"
)

// settleManifest decides whether the manifest is that of the newest L3: a damaged one
// may read well and be old.
func (w *wreck) settleManifest() {
	m := &w.remains.Manifest
	lose := func(what string, args ...any) {
		file := m.File
		if file == "" {
			file = w.opts.FS.PathJoin(w.dir, l3Name)
		}
		w.lose(SalvageLoss{File: file, Offset: -1, Err: m.Err,
			What: fmt.Sprintf(what, args...) + "; tables are read by themselves, and which of them had been replaced is not known"})
	}
	others := w.findForeign()
	if m.File == "" {
		lose("no MANIFEST")
		return
	}
	if m.Edits == 0 {
		lose("the MANIFEST cannot be read")
		return
	}
	if others {
		lose("the MANIFEST is of another store")
		return
	}
	var mark, newest, beyond uint64
	marked, damaged, missing := false, false, false
	for _, t := range w.tables {
		if !t.Named {
			beyond = max(beyond, t.newest, t.mark.LSN)
			continue
		}
		if t.marked {
			mark, marked = max(mark, t.mark.LSN), true
		}
		newest = max(newest, t.newest)
		damaged = damaged || t.damaged
		missing = missing || t.Size < 0
	}
	reach := max(mark, newest)
	switch {
	case !w.stated && beyond > reach: // else it may be of an ingest that a crash broke off
		lose("the MANIFEST ends at commit %d, a table that it does not name at %d", reach, beyond)
	case w.stated && reach < w.state.Flushed && (marked || !damaged || beyond > reach):
		lose("the MANIFEST ends at commit %d, but %d were flushed", reach, w.state.Flushed)
	case m.Err != nil && (missing || !w.stated || !marked):
		lose("the MANIFEST breaks off after %d edits", m.Edits)
	default:
		w.exact = true
	}
}

// findForeign looks for tables of another store. Few have a watermark, and it alone
// says whose they are; but a manifest names those of one store.
func (w *wreck) findForeign() (manifest bool) {
	for _, t := range w.tables {
		t.foreign = w.stated && t.marked && t.mark.UUID != w.uuid
		manifest = manifest || t.foreign && t.Named
	}
	for _, t := range w.tables {
		t.foreign = t.foreign || manifest && t.Named
	}
	return manifest
}

// lose adds a loss to the report.
func (w *wreck) lose(l SalvageLoss) {
	w.report.LostCount++
	w.last = max(w.last, l.LastLSN)
	if len(w.report.Lost) < maxListed {
		w.report.Lost = append(w.report.Lost, l)
	}
	w.opts.Logger.Warn("salvage: lost", "what", l.String())
}

func (w *wreck) loseBlock(t *wreckTable, l storage.LostBlock) {
	out := SalvageLoss{File: l.File, Offset: l.Offset, Bytes: l.Bytes, What: l.What, Err: l.Err, Lower: l.Lower, Upper: l.Upper, Ranged: !l.Own}
	if l.Bytes == 0 && l.Offset == 0 {
		out.Offset = -1
	}
	switch {
	case l.Own:
		out.What += "; it held nothing of a user's"
	case t.Named && w.exact && t.Upper != nil && (l.Upper == nil || bytes.Compare(l.Upper, t.Upper) > 0):
		out.Upper = t.Upper
	}
	if !l.Own && t.Named && w.exact && bytes.Compare(out.Lower, t.Lower) < 0 {
		out.Lower = t.Lower
	}
	if l.Ranges {
		out.What += "; range deletes that it held are forgotten"
	}
	w.lose(out)
	if !l.Own {
		w.addHole(t, out.Lower, out.Upper, l.Ranges)
	}
}

func (w *wreck) doubt(key []byte, revision uint64, why string) {
	w.report.DoubtfulCount++
	if len(w.report.Doubtful) < maxListed {
		w.report.Doubtful = append(w.report.Doubtful, DoubtfulKey{Key: bytes.Clone(key), Revision: revision, Why: why})
	}
}
