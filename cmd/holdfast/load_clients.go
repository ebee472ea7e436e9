package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/engine"
)

const (
	leastState = 64      // the shortest value that names its key
	mostState  = 1 << 20 // of those that are made in memory
)

// client is one goroutine that uses the store.
type client struct {
	l    *load
	id   int
	rnd  *rand.Rand
	zipf *rand.Zipf
	key  []byte
}

// buffers for values on their way in: thousands of clients need few at a time.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func (l *load) newClient(id int) *client {
	c := &client{l: l, id: id, rnd: rand.New(rand.NewPCG(l.seed, uint64(id)))}
	if l.keys > 1 {
		c.zipf = rand.NewZipf(c.rnd, zipfS, 1, uint64(l.keys-1))
	}
	return c
}

// together runs n clients until they end. The first error ends it for all.
func (l *load) together(ctx context.Context, n int, fn func(ctx context.Context, id int) error) error {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	failed := make(chan error, 1) // also what fails when the time is over
	for id := range n {
		all.Go(func() {
			if err := fn(inner, id); err != nil && !ended(inner, err) {
				select {
				case failed <- err:
				default:
				}
				stop()
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// ended says that an error is only the end of ctx.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil && !errors.Is(err, errBroken) &&
		(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
}

// keyOf is valid until the client's next key.
func (c *client) keyOf(n int) []byte {
	c.key = fmt.Appendf(c.key[:0], "client/%08d", n)
	return c.key
}

// state makes a value of a key: JSON that begins with it.
func (c *client) state(into, key []byte) []byte {
	into = fmt.Appendf(into[:0], `{"id":"%s","seen":%d,"note":"`, key, c.rnd.Uint32())
	for len(into) < int(c.l.size)-2 {
		x := c.rnd.Uint64()
		for i := 0; i < 8 && len(into) < int(c.l.size)-2; i++ {
			into = append(into, "abcdefghijklmnop"[x>>(8*i)&15])
		}
	}
	return append(into, '"', '}')
}

// isOf says whether a value belongs to the key.
func isOf(value, key []byte) bool {
	const head = `{"id":"`
	return len(value) >= len(head)+len(key)+1 && bytes.Equal(value[len(head):len(head)+len(key)], key) && value[len(head)+len(key)] == '"'
}

func (l *load) fillStates(ctx context.Context) error {
	const writers = 2
	perBatch := int(max(1, min(100, leastMemory/16/l.size)))
	return l.together(ctx, writers, func(ctx context.Context, id int) error {
		c := l.newClient(-1 - id)
		var value []byte
		for n := id * perBatch; n < l.keys && ctx.Err() == nil; n += writers * perBatch {
			due, last := time.Now(), min(n+perBatch, l.keys)
			b := l.e.NewBatch()
			var err error
			for i := n; i < last && err == nil; i++ {
				key := c.keyOf(i)
				value = c.state(value, key)
				err = b.Put(key, value)
			}
			if err == nil {
				_, err = l.e.ApplyContext(ctx, b)
			}
			b.Close()
			if err != nil {
				return err
			}
			l.tape.add(id, opPut, time.Since(due), (last-n)*int(l.size))
		}
		return ctx.Err()
	})
}

// paced calls do at the moments that are the client's share of the rate, with the moment
// that each was due. Whoever is late goes on at once, and that is in the figures; what
// the clock wakes a sleeper late is not.
func (c *client) paced(ctx context.Context, do func(due time.Time) error) error {
	var every time.Duration
	if c.l.rate > 0 {
		every = time.Duration(float64(time.Second) * float64(c.l.clients) / float64(c.l.rate))
	}
	sleep := time.NewTimer(0)
	defer sleep.Stop()
	next := time.Now().Add(time.Duration(float64(every) * float64(c.id) / float64(c.l.clients)))
	for ; ctx.Err() == nil; next = next.Add(every) {
		due := next
		if wait := time.Until(next); wait > 0 {
			sleep.Reset(wait)
			select {
			case <-sleep.C:
			case <-ctx.Done():
				return nil
			}
			due = time.Now()
		} else if every == 0 {
			due = time.Now()
		}
		if err := do(due); err != nil {
			return err
		}
	}
	return nil
}

// mixed is the client of sustained and burst.
func (l *load) mixed(ctx context.Context, id int) error {
	c := l.newClient(id)
	return c.paced(ctx, func(due time.Time) error {
		n := 0
		if c.zipf != nil {
			n = int(mixBits(c.zipf.Uint64()) % uint64(l.keys))
		}
		switch p := c.rnd.IntN(100); {
		case p < 70:
			return c.get(n, due, true)
		case p < 95:
			return c.put(n, due)
		case p < 98:
			return l.record(id, opDelete, due, 0, l.e.Delete(c.keyOf(n)))
		}
		return c.scan(n, due)
	})
}

// own is a client that has one state.
func (l *load) own(ctx context.Context, id int) error {
	c := l.newClient(id)
	read := true
	return c.paced(ctx, func(due time.Time) error {
		if read = !read; read {
			return c.get(id, due, false)
		}
		return c.put(id, due)
	})
}

func (c *client) put(n int, due time.Time) error {
	key, b := c.keyOf(n), buffers.Get().(*[]byte)
	defer buffers.Put(b)
	*b = c.state(*b, key)
	return c.l.record(c.id, opPut, due, len(*b), c.l.e.Put(key, *b))
}

// get reads a state, which other clients may have deleted.
func (c *client) get(n int, due time.Time, deleted bool) error {
	key, size := c.keyOf(n), 0
	err := c.l.e.View(key, func(value []byte) error {
		size = len(value)
		return c.check(key, value)
	})
	if errors.Is(err, engine.ErrNotFound) {
		if err = nil; !deleted {
			err = fmt.Errorf("%w: %s is lost", errBroken, key)
		}
	}
	return c.l.record(c.id, opGet, due, size, err)
}

func (c *client) scan(n int, due time.Time) error {
	size, found := 0, 0
	for item, err := range c.l.e.Scan(engine.Range{Lower: c.keyOf(n)}) {
		if err != nil {
			return c.l.record(c.id, opScan, due, 0, err)
		}
		value, err := item.Value()
		if err == nil {
			err = c.check(item.Key(), value)
		}
		if err != nil {
			return c.l.record(c.id, opScan, due, 0, err)
		}
		size += len(value)
		if found++; found == 10 {
			break
		}
	}
	return c.l.record(c.id, opScan, due, size, nil)
}

func (c *client) check(key, value []byte) error {
	if !isOf(value, key) {
		return fmt.Errorf("%w: %s has the value %.60q", errBroken, key, value)
	}
	return nil
}

// mixBits scatters hot keys; the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
func mixBits(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
