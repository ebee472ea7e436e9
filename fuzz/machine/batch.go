package machine

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

type kind uint8

const (
	put kind = iota
	del
	delRange
)

// write is one of a batch.
type write struct {
	kind
	key   string
	value string // or a range's upper bound
}

// keysPerLane is how many keys a lane writes beside its counter.
const keysPerLane = 40

func laneKey(i int) string { return fmt.Sprintf("k%02d", i) }

// batch is commit n of a lane (M1). Its first write is the lane's counter.
func (j *Job) batch(l *oracle.Lane, n int) []write {
	rnd := rand.New(rand.NewPCG(j.Seed^j.Life<<48, uint64(l.ID)<<32|uint64(n)))
	key := func() string { return l.Key(laneKey(rnd.IntN(keysPerLane))) }
	out := []write{{put, l.Counter(), strconv.Itoa(n)}}
	for range rnd.IntN(5) {
		switch k := key(); rnd.IntN(12) {
		case 0:
			out = append(out, write{del, k, ""})
		case 1:
			upper := key()
			if upper <= k {
				upper = k + "\x00"
			}
			out = append(out, write{delRange, k, upper})
		case 2:
			out = append(out, write{put, k, text(n, j.Large+rnd.IntN(j.Large))})
		case 3:
			out = append(out, write{put, k, noise(rnd, j.Large+rnd.IntN(3*j.Large))})
		default:
			out = append(out, write{put, k, text(n, rnd.IntN(800))})
		}
	}
	return out
}

// text compresses, noise does not.
func text(n, size int) string {
	unit := fmt.Sprintf("%d ", n)
	return strings.Repeat(unit, size/len(unit)+1)
}

func noise(rnd *rand.Rand, size int) string {
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, rnd.Uint64())
	}
	return string(b)
}

// fill puts the writes into a batch of the engine.
func fill(b *engine.Batch, writes []write) (err error) {
	for _, w := range writes {
		switch w.kind {
		case put:
			err = b.Put([]byte(w.key), []byte(w.value))
		case del:
			err = b.Delete([]byte(w.key))
		case delRange:
			err = b.DeleteRange([]byte(w.key), []byte(w.value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// change does the writes to a model.
func change(m oracle.Model, writes []write) {
	for _, w := range writes {
		switch w.kind {
		case put:
			m.Put(w.key, w.value)
		case del:
			m.Delete(w.key)
		case delRange:
			m.DeleteRange(oracle.Bounds{Lower: w.key, Upper: w.value})
		}
	}
}
