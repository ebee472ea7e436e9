package component

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/wal"
	"github.com/holdfastdb/holdfast/yield"
)

const storeDir = "/db"

var storeUUID = [16]byte{'c', 'o', 'm', 'p', 'o', 'n', 'e', 'n', 't'}

// record is one batch of the log: who made it, and its checksum.
type record struct {
	lsn    uint64
	writer uint32
	n      uint32 // the writer's own count, from 1
	sum    uint32
}

const recordHeader = 8

// payload is what a writer commits as its nth; the rest of it is noise that nobody
// else makes.
func payload(writer, n uint32, size int) []byte {
	b := fill(recordHeader+size, uint64(writer)<<32|uint64(n))
	binary.LittleEndian.PutUint32(b, writer)
	binary.LittleEndian.PutUint32(b[4:], n)
	return b
}

func parseRecord(lsn uint64, b []byte) record {
	if len(b) < recordHeader {
		return record{lsn: lsn}
	}
	return record{lsn, binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), wal.Checksum(b)}
}

// logFacts is what was known of the log at one moment.
type logFacts struct {
	created bool   // there is a STATE
	above   uint64 // what storage has for good
	least   uint64 // all at or below must come back
	acked   uint64 // the same after a kill, which the page cache survives
	top     uint64 // the highest number that anybody saw; none at or below is given again
	most    int    // so many records of the line may come back
}

// logLife is a log from Recover to Close.
type logLife struct {
	rnd    *rand.Rand
	opt    wal.Options
	pause  bool // let the log fall idle once
	slow   bool // syncs take their time, so that writes come in between
	born   logFacts
	id     uint32 // makes writers of different lives different
	camera camera[logFacts]
	// line is what every number holds, in order: first what was recovered, then
	// what this life committed. It is whole when the life is over.
	line []record

	mu      sync.Mutex // guards what is below and, while the life goes on, line
	log     atomic.Pointer[wal.Log]
	above   uint64
	acked   uint64
	begun   int
	next    uint64 // that Place should see
	moments []moment[logFacts]
	broken  error
}

func newLog(seed uint64) life {
	rnd := rand.New(rand.NewPCG(seed, 0x6c6f67))
	l := &logLife{rnd: rnd, pause: seed%16 == 7, slow: seed%4 == 1}
	l.opt = wal.Options{
		Dir: storeDir, Policy: wal.Policy(seed % 3), Interval: []time.Duration{300 * time.Microsecond, time.Hour}[rnd.IntN(2)],
		SegmentBytes:  []int64{16 << 10, 16 << 10, 32 << 10}[rnd.IntN(3)],
		MaxGroupBytes: []int{0, 2 << 10}[rnd.IntN(2)],
	}
	return l
}

func (l *logLife) cut(i int) *simfs.Cut { return l.moments[i].cut }

// before is called first, so that no promise is made between it and the cut.
func (l *logLife) before() logFacts {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.born
	f.above, f.acked = l.above, max(f.acked, l.acked)
	if log := l.log.Load(); log != nil {
		f.least = max(f.least, log.Durable())
	}
	if n := len(l.line); n > 0 {
		f.top = max(f.top, l.line[n-1].lsn)
	}
	return f
}

func (l *logLife) after(f *logFacts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.most += l.begun
}

// place is the log's hook: numbers are consecutive, and nothing is placed twice.
func (l *logLife) place(lsn uint64, b []byte, _ uint32, _ any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lsn != l.next && l.broken == nil {
		l.broken = oracle.Broken(oracle.Hole, "", lsn, "was given out, the next number was %d", l.next)
	}
	l.next = lsn + 1
	l.line = append(l.line, parseRecord(lsn, b))
}

func (l *logLife) run(disk *simfs.FS) (int, error) {
	l.camera = camera[logFacts]{disk: disk, before: l.before, after: l.after}
	if l.slow {
		defer disk.Inject(simfs.Delay(simfs.OpSyncData, "", 30*time.Microsecond)).Remove()
	}
	o := l.opt
	o.FS = l.camera.fs()
	o.Hooks = wal.Hooks{Place: l.place}
	l.above = l.born.above
	err := l.work(o)
	l.moments = l.camera.end()
	return len(l.moments), errors.Join(l.broken, err)
}

func (l *logLife) work(o wal.Options) error {
	if !l.born.created {
		if err := disk0(o); err != nil {
			return err
		}
		l.mu.Lock()
		l.born.created = true
		l.mu.Unlock()
	}
	st, err := wal.ReadState(o.FS, o.Dir)
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	rec, err := wal.Recover(o, st, l.born.above, wal.ReplayFuncs{})
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	l.next = rec.NextLSN
	log, err := rec.Start()
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	l.log.Store(log)
	writers := 1 + l.rnd.IntN(3)
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		rnd := rand.New(rand.NewPCG(l.rnd.Uint64(), uint64(w)))
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[w] = l.write(log, l.id<<8|uint32(w), 4+24/writers, rnd)
		}()
	}
	wg.Wait()
	if l.pause {
		yield.Sleep(40 * time.Millisecond)
	}
	return errors.Join(errors.Join(errs...), log.Close())
}

// disk0 makes the store.
func disk0(o wal.Options) error {
	_, err := wal.CreateState(o.FS, o.Dir, storeUUID)
	return err
}

func (l *logLife) write(log *wal.Log, writer uint32, commits int, rnd *rand.Rand) error {
	ctx := context.Background()
	for n := uint32(1); n <= uint32(commits); n++ {
		size := rnd.IntN(900)
		switch rnd.IntN(12) {
		case 0:
			size = 5_000 + rnd.IntN(20_000) // spans frames, and segments
		case 1:
			size = 0
		}
		b := payload(writer, n, size)
		l.mu.Lock()
		l.begun++
		l.mu.Unlock()
		lsn, err := log.Commit(ctx, b, 1, wal.Checksum(b), nil)
		if err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if err := l.acknowledged(log, lsn, writer, n); err != nil {
			return err
		}
		switch rnd.IntN(12) {
		case 0:
			err = log.Sync(ctx)
		case 1, 2:
			err = l.flush(log, lsn, rnd)
		case 3:
			release := log.Pin()
			err = l.flush(log, lsn, rnd)
			release()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// acknowledged checks what an acknowledgement means.
func (l *logLife) acknowledged(log *wal.Log, lsn uint64, writer, n uint32) error {
	if l.opt.Policy == wal.Always && log.Durable() < lsn {
		return oracle.Broken(oracle.Lost, "", lsn, "acknowledged, and durable is %d", log.Durable())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opt.Policy != wal.Never {
		l.acked = max(l.acked, lsn)
	}
	at := len(l.line) - int(l.next-lsn)
	if at < 0 || at >= len(l.line) || l.line[at].writer != writer || l.line[at].n != n {
		return oracle.Broken(oracle.Hole, "", lsn, "is commit %d of writer %d, another one was placed", n, writer)
	}
	return nil
}

// flush is what the engine does after storage has taken everything through a number.
func (l *logLife) flush(log *wal.Log, lsn uint64, rnd *rand.Rand) error {
	if rnd.IntN(2) == 0 {
		lsn = log.Durable()
	} else if err := log.WaitDurable(context.Background(), lsn); err != nil {
		return fmt.Errorf("wait for %d: %w", lsn, err)
	}
	through := lsn - min(lsn, uint64(rnd.IntN(3)))
	// Storage is durable before STATE says so.
	l.mu.Lock()
	l.above = max(l.above, through)
	through = l.above
	l.mu.Unlock()
	if err := log.SetFlushed(through, 1, 1); err != nil {
		return fmt.Errorf("set flushed: %w", err)
	}
	return nil
}
