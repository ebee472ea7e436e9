package fuzz

import (
	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// batch is a batch of the store beside what it does to the model.
type batch struct {
	b       *engine.Batch
	changes []func(oracle.Model)
}

// maxBatches are kept open after they were committed, to be committed again.
const maxBatches = 3

// batch fills a batch and commits it. The oldest one kept is closed for it.
func (r *run) batch() error {
	if len(r.batches) == maxBatches {
		r.batches[0].b.Close()
		r.batches = r.batches[1:]
	}
	b := &batch{b: r.e.NewBatch()}
	r.batches = append(r.batches, b)
	for range 1 + r.src.IntN(10) {
		var err error
		switch k := r.key(); r.src.IntN(6) {
		case 0:
			b.changes = append(b.changes, func(m oracle.Model) { m.Delete(k) })
			err = b.b.Delete([]byte(k))
		case 1:
			d := r.bounds()
			b.changes = append(b.changes, func(m oracle.Model) { m.DeleteRange(d) })
			err = b.b.DeleteRange([]byte(d.Lower), upper(d))
		default:
			v := r.value()
			b.changes = append(b.changes, func(m oracle.Model) { m.Put(k, v) })
			err = b.b.Put([]byte(k), []byte(v))
		}
		if err != nil {
			return err
		}
	}
	return r.apply(b)
}

// batchAgain commits one more time a batch that was committed before: its large
// values are those of the first time, wherever the collector has put them since.
func (r *run) batchAgain() error {
	if len(r.batches) == 0 {
		return nil
	}
	return r.apply(r.batches[r.src.IntN(len(r.batches))])
}

func (r *run) apply(b *batch) (err error) {
	for _, change := range b.changes {
		change(r.model)
	}
	r.lsn, err = r.e.Apply(b.b)
	return err
}

func (r *run) closeBatches() {
	for _, b := range r.batches {
		b.b.Close()
	}
	r.batches = nil
}
