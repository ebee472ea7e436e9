//go:build schedule

package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/yield"
)

// tape is what a run under the scheduler left: the newest points, and a hash of all
// that was done to simulated disks.
type tape struct {
	trace []string
	steps int
	// Of every call that changes a disk: kind, paths, offset, length, bytes, and
	// whether it failed. Pebble keeps three things out of the seed's reach, all of
	// them in package runtime or in the wall clock, and they are left out: in a
	// manifest, the second in which a table was made, and the order in which an edit
	// lists the tables it deletes, so the length stands for the bytes; and which of
	// several tables that became obsolete together is removed first, so the name
	// of a table that is removed does not count. Both orders are those of a Go map.
	calls [32]byte
	n     int64 // calls
	// Of the last disk that was made, by the same rule.
	image [32]byte

	waits *atomic.Int32 // the scheduler's
	mu    sync.Mutex
	sum   hash.Hash
	last  *simfs.FS
}

// gcBytes is how large the heap grows until the garbage is collected. It is collected
// where a disk is made only, so that a collection does not change who runs.
const gcBytes = 128 << 20

// under runs f under the scheduler of a seed. It takes the whole process: GOMAXPROCS
// is 1, and the garbage collector off but for gcBytes.
func under(seed uint64, f func() error) (*tape, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	s := newScheduler(seed)
	t := &tape{sum: sha256.New(), waits: &s.collecting}
	yield.Set(s)
	defer yield.Set(nil)
	simfs.Watch(&simfs.Watcher{Made: t.disk, Before: point, After: t.call})
	defer simfs.Watch(nil)
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = f()
	}()
	if stuck := s.run(done); stuck != nil {
		err = stuck // f goes on, without control
	} else {
		t.end()
	}
	t.trace, t.steps = s.trace, s.steps
	return t, err
}

// point makes every call that changes a disk a point.
func point(op simfs.Op, path string) { yield.Point("fs " + op.String() + " " + path) }

func (t *tape) disk(fs *simfs.FS) {
	t.mu.Lock()
	t.last = fs
	t.mu.Unlock()
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	if heap[0].Value.Uint64() > gcBytes {
		t.waits.Add(1) // who waits for it is not seen to run
		runtime.GC()
		t.waits.Add(-1)
	}
}

func (t *tape) call(e simfs.Event, data []byte) {
	if masked(e.Path) {
		data = nil
	}
	if e.Op == simfs.OpRemove && strings.HasSuffix(e.Path, ".sst") {
		e.Path = "*.sst"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
	failed := uint64(0)
	if e.Err != nil {
		failed = 1
	}
	for _, n := range []uint64{uint64(e.Op), uint64(e.Off), uint64(e.N), failed, uint64(len(e.Path)), uint64(len(e.Path2)), uint64(len(data))} {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		t.sum.Write(b[:])
	}
	t.sum.Write([]byte(e.Path))
	t.sum.Write([]byte(e.Path2))
	t.sum.Write(data)
}

func (t *tape) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = [32]byte(t.sum.Sum(nil))
	if t.last == nil {
		return
	}
	tree := t.last.Tree()
	for path, e := range tree {
		if masked(path) {
			tree[path] = simfs.Entry{Data: make([]byte, len(e.Data))}
		}
	}
	t.image = tree.Digest()
}

// masked is true of Pebble's manifests.
func masked(path string) bool { return strings.Contains(path, "MANIFEST-") }
