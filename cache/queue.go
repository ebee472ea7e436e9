package cache

import (
	"sync"
	"sync/atomic"
)

// maxQueued bounds the queue in entries; Options bound it in bytes.
const maxQueued = 4 << 10

// job is work for the drain goroutine: a victim on its way down to L2, or a
// cell that was hit there on its way up to L1.
type job struct {
	victim *item

	// A promotion travels in parts, so that the reader allocates nothing for it.
	key   *[]byte // of Cache.keys
	cell  []byte
	hash  uint64
	stamp uint64
}

func (j *job) cost() int64 {
	if j.victim != nil {
		return j.victim.cost()
	}
	return int64(cap(*j.key) + cap(j.cell))
}

// queue carries jobs to the one goroutine that this package owns. Pushing
// never blocks: ristretto calls from its only worker, bigcache would under a
// lock (C7). The channel is never closed, so a late callback cannot panic.
type queue struct {
	jobs     chan job
	stop     chan struct{}
	done     sync.WaitGroup
	bytes    atomic.Int64
	maxBytes atomic.Int64
}

func (q *queue) start(run func(job)) {
	q.jobs = make(chan job, maxQueued)
	q.stop = make(chan struct{})
	q.done.Add(1)
	go func() {
		defer q.done.Done()
		for {
			select {
			case <-q.stop:
				return
			case j := <-q.jobs:
				cost := j.cost() // run gives the key back
				run(j)
				q.bytes.Add(-cost)
			}
		}
	}()
}

// limit bounds the queue in bytes, from now on.
func (q *queue) limit(n int64) { q.maxBytes.Store(n) }

func (q *queue) push(j job) bool {
	if q.jobs == nil {
		return false
	}
	cost := j.cost()
	if q.bytes.Add(cost) <= q.maxBytes.Load() {
		select {
		case q.jobs <- j:
			return true
		default:
		}
	}
	q.bytes.Add(-cost)
	return false
}

// full says that a push would be close to being refused.
func (q *queue) full() bool {
	return q.bytes.Load() > q.maxBytes.Load()/2 || len(q.jobs) > maxQueued/2
}

func (q *queue) close() {
	if q.jobs != nil {
		close(q.stop)
		q.done.Wait()
	}
}
