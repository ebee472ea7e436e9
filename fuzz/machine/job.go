package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/holdfastdb/holdfast/engine"
)

// Job is what a child does. It travels as JSON.
type Job struct {
	Dir   string
	Seed  uint64
	Life  uint64 // of the store: what is written differs from that of other lives
	Lanes int
	// Batches of each lane, then the child closes the store and ends. Zero goes on
	// until something stops it.
	Batches    int
	FlushEvery int // batches of the first lane between flushes; zero: none

	// Options of the store.

	Sync        engine.SyncPolicy
	Segment     int64
	Large       int
	Compression engine.Compression
	ReadOnly    bool // read everything, and write nothing
	NoMap       bool

	// Limits of the process; zero: none.

	Files     uint64 // open descriptors
	FileBytes uint64 // of one file

	// Hoard is how many bytes the process keeps for each commit, beside the store: a
	// host that eats up its memory.
	Hoard int
}

// newJob chooses, by seed, everything that changes no result, and a policy.
func newJob(dir string, seed uint64) Job {
	return Job{
		Dir: dir, Seed: seed, Lanes: 1 + int(seed%4),
		FlushEvery:  []int{0, 7, 40}[seed/2%3],
		Sync:        []engine.SyncPolicy{engine.SyncAlways, engine.SyncAlways, engine.SyncInterval, engine.SyncNever}[seed/4%4],
		Segment:     []int64{16 << 10, 0, 64 << 10}[seed%3],
		Large:       4 << 10,
		Compression: engine.Compression(seed / 3 % 4),
		NoMap:       seed%5 == 0,
	}
}

// options of the engine, for child and parent alike.
func (j *Job) options() *engine.Options {
	return &engine.Options{
		Sync: j.Sync, SyncEvery: 5 * time.Millisecond, ReadOnly: j.ReadOnly,
		MemoryBudget: 16 << 20, DiskReserve: -1, StallLimit: 5 * time.Second,
		LargeValue: j.Large, Compression: j.Compression, NoMap: j.NoMap, SegmentBytes: j.Segment,
	}
}

func (j *Job) encode() string {
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // numbers and strings
	}
	return string(b)
}

// ParseJob reads what a runner wrote into the last argument of its child.
func ParseJob(arg string) (Job, error) {
	var j Job
	if err := json.Unmarshal([]byte(arg), &j); err != nil {
		return j, fmt.Errorf("machine: job: %w", err)
	}
	if j.Dir == "" || j.Lanes < 1 {
		return j, errors.New("machine: job: no store or no lanes")
	}
	return j, nil
}

// typed are the door's errors that a machine in trouble may cause, and their names in
// reports.
var typed = []struct {
	name string
	err  error
}{
	{"in-doubt", engine.ErrInDoubt},
	{"disk-full", engine.ErrDiskFull},
	{"read-only", engine.ErrReadOnly},
	{"busy", engine.ErrBusy},
	{"locked", engine.ErrLocked},
	{"closed", engine.ErrClosed},
	{"corrupt", engine.ErrCorrupt},
	{"absent", os.ErrNotExist},
}

const (
	classErrno   = "errno"   // the system's own, passed on
	classUntyped = "untyped" // a broken promise
	classCorrupt = "corrupt" // one, too: nobody damaged anything
)

// classOf names an error by what a caller can test it for.
func classOf(err error) string {
	var no syscall.Errno
	for _, t := range typed {
		if !errors.Is(err, t.err) {
			continue
		}
		if t.name == classCorrupt && errors.As(err, &no) {
			return classErrno // what could not be read cannot be judged
		}
		return t.name
	}
	if errors.As(err, &no) {
		return classErrno
	}
	return classUntyped
}

// unmade says of a failed commit that it certainly was not made.
func unmade(class string) bool {
	return slices.Contains([]string{"disk-full", "read-only", "busy", "closed"}, class)
}
