package cache

import (
	"bytes"
	"slices"
	"sync/atomic"

	"github.com/klauspost/compress/dict"
	"github.com/klauspost/compress/s2"
)

const (
	sampleBytes = 128 << 10 // more trains no better: 0.354 at 128 KiB, 0.352 at 512 KiB
	sampleCell  = 4 << 10   // of one cell
	sampleEvery = 4
	// A class may fill half the sample, unless the others do not come.
	sampleClass = sampleBytes / 2
	sampleWait  = sampleBytes

	// A dictionary is cells as they are, and at its end, which costs the shortest
	// references, what they share. Of states of 1 KB 0.326 is stored with the first
	// alone, 0.361 with the second alone.
	dictBytes  = 32 << 10
	dictShared = 8 << 10
	dictMatch  = 8 // bytes

	settleCells = 512 // after a training, until the ratio is known
	worse       = 1.2 // times that ratio: train again
	// A dictionary must last: with maxDicts alive, whatever the ring holds was
	// made with one of them.
	minTrainBytes = 4 << 20
)

// sampler keeps cells for the next dictionary. It belongs to the drain
// goroutine, which lends the sample to the training and gets it back.
type sampler struct {
	cells    [][]byte
	perClass [classes]int
	held     atomic.Int64
	turn     uint32
	waited   int // bytes that were not taken

	resting  bool   // since the last training, until the next is due
	since    uint64 // value of codec.stored at the last training
	want     uint64 // value of codec.trainings if it made a dictionary
	failures uint   // one after another; each doubles the rest
	measured int
	settled  float64 // ratio of the first cells under the dictionary
	ratio    float64 // now
}

// sample keeps a cell for the next training, and starts it when there are enough.
func (c *codec) sample(cell []byte) {
	s := &c.sampler
	if c.training.Load() {
		return
	}
	if s.resting && !c.due() {
		return
	}
	s.resting = false
	if s.turn++; s.turn%sampleEvery != 0 {
		return
	}
	part := cell[:min(len(cell), sampleCell)]
	k := classOf(len(cell))
	if s.perClass[k]+len(part) > sampleClass && s.waited < sampleWait {
		s.waited += len(part)
		return
	}
	s.perClass[k] += len(part)
	s.cells = append(s.cells, slices.Clone(part))
	if s.held.Add(int64(len(part))) < sampleBytes {
		return
	}
	cells := s.cells
	s.cells, s.perClass, s.waited = nil, [classes]int{}, 0
	s.resting, s.measured, s.settled, s.ratio = true, 0, 0, 0
	s.since, s.want = c.stored.Load(), c.trainings.Load()+1
	s.failures++ // until it is seen to have worked
	c.training.Store(true)
	c.wait.Add(1)
	go func() {
		defer c.wait.Done()
		defer c.training.Store(false)
		defer s.held.Store(0)
		c.train(cells)
	}()
}

// due says whether to gather cells for another dictionary.
func (c *codec) due() bool {
	s := &c.sampler
	made := c.trainings.Load() >= s.want
	if made {
		s.failures = 0
		if c.book.Load() == nil {
			return true // forgotten since
		}
	}
	rest := max(uint64(minTrainBytes), uint64(c.size.Load())/2) << min(s.failures, 8)
	if c.stored.Load()-s.since < rest {
		return false
	}
	return !made || s.settled != 0 && s.ratio > worse*s.settled
}

// measure follows the ratio of cells under the present dictionary.
func (s *sampler) measure(packed, cell int) {
	average(&s.ratio, packed, cell)
	if s.measured++; s.measured == settleCells {
		s.settled = s.ratio
	}
}

// train makes a dictionary and publishes the next book. It runs on its own
// goroutine, one at a time; Close waits for it (C8). Cells that share nothing
// make no dictionary, and that is all that happens.
func (c *codec) train(cells [][]byte) {
	defer func() {
		_ = recover() // the builder met cells it was not made for (C9)
	}()
	d, in := newDict(cells)
	if d == nil || !proves(d, cells[in:]) || c.size.Load() == 0 {
		return
	}
	c.book.Store(c.book.Load().next(dictionary{1 + c.trainings.Load(), d}))
	c.trainings.Add(1)
}

// newDict makes a dictionary of cells, of which so many are in it as they are. It is nil
// where they share nothing.
func newDict(cells [][]byte) (d *s2.Dict, in int) {
	shared, err := dict.BuildRawDict(cells, dict.Options{MaxDictSize: dictShared, HashBytes: dictMatch})
	if err != nil || len(shared) > dictShared {
		return nil, 0
	}
	all := make([]byte, 0, dictBytes)
	for in < len(cells) && len(all)+len(cells[in]) <= dictBytes-dictShared {
		all = append(all, cells[in]...)
		in++
	}
	return s2.MakeDict(append(all, shared...), cells[0][:min(len(cells[0]), dictMatch)]), in
}

// proves encodes and decodes the rest of the sample: a dictionary that the two sides
// read differently must not get in, nor one that does not pay for cells that are not in it.
func proves(d *s2.Dict, cells [][]byte) bool {
	raw, stored := 0, 0
	for _, cell := range cells {
		packed := d.Encode(nil, cell)
		got, err := d.Decode(nil, packed)
		if err != nil || !bytes.Equal(got, cell) {
			return false
		}
		raw += len(cell)
		stored += len(packed)
	}
	return float64(stored) < payRatio*float64(raw) // neither where there were none
}

// close waits for a training that is under way.
func (c *codec) close() { c.wait.Wait() }

// forget lets the dictionaries go, with a tier that is turned off.
func (c *codec) forget() { c.book.Store(nil) }
