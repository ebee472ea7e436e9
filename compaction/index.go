package compaction

import (
	"context"
	"math"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
)

// unindex takes out of the index of blobs what the generation supersedes. It comes
// before build: a batch that is applied again lets a key name a blob anew that died in
// the same generation.
func (s *Stats) unindex(ctx context.Context, g *cow.Generation, st *storage.Store, in *storage.Ingest, died []BlobAt) error {
	base := st.Current()
	defer base.Release()
	n := 0
	look := func(pack, offset, _ uint64, key []byte) error {
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if g.Covers(key, math.MaxUint64) == cow.Hidden {
			in.DropBlob(pack, offset)
			s.Turnover.hidden = append(s.Turnover.hidden, BlobAt{pack, offset})
		}
		return nil
	}
	var err error
	switch {
	case !st.Indexed():
		err = EachBlob(st, base, func(pack, offset, stored uint64, key []byte) error {
			in.SetBlob(pack, offset, stored, key)
			return look(pack, offset, stored, key)
		})
	case g.Fragments() > 0:
		err = base.EachBlob(look)
	}
	if err != nil {
		return err
	}
	in.SetIndexed()
	for _, at := range died {
		in.DropBlob(at.Pack, at.Offset)
	}
	return nil
}

// index enters the blob that a cell names.
func (s *Stats) index(in *storage.Ingest, key []byte, cell cow.Cell) error {
	if cell.Kind() != cow.Blob {
		return nil
	}
	r, err := mmap.DecodeRef(cell.Payload())
	if err != nil {
		return err
	}
	in.SetBlob(r.Pack, r.Offset, r.Stored, key)
	s.Turnover.set[BlobAt{r.Pack, r.Offset}] = true
	return nil
}

// EachBlob calls fn for every blob that a cell of L3 names: from the index, or from the
// cells themselves where there is none yet.
func EachBlob(st *storage.Store, base *storage.Snapshot, fn func(pack, offset, stored uint64, key []byte) error) error {
	if st.Indexed() {
		return base.EachBlob(fn)
	}
	it, err := base.NewIter(nil, nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		cell, err := cow.ParseCell(it.Value())
		if it.Err() != nil {
			break
		}
		if err != nil || cell.Kind() != cow.Blob {
			continue // what is no cell is found, and told, by who reads it
		}
		r, err := mmap.DecodeRef(cell.Payload())
		if err != nil {
			continue
		}
		if err := fn(r.Pack, r.Offset, r.Stored, it.Key()); err != nil {
			return err
		}
	}
	return it.Err()
}
