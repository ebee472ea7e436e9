package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// client is one sequential user of the store of a history.
type client struct {
	*linear
	id    int
	rnd   *rand.Rand
	group int
	buf   []byte

	snap     *engine.Snapshot // held over some calls; nil: none
	snapCall *call
	snapOf   int // its group
}

func (l *linear) client(id int, rnd *rand.Rand) error {
	c := &client{linear: l, id: id, rnd: rnd}
	for i := 0; i < l.each && l.going(); i++ {
		c.group = rnd.IntN(l.groups)
		if err := c.one(); err != nil {
			return err
		}
		if rnd.IntN(4) == 0 {
			breathe(rnd)
		}
	}
	return c.closeSnapshot()
}

func (c *client) one() error {
	k := c.rnd.IntN(c.size)
	lo, hi := k, c.rnd.IntN(c.size)
	if lo > hi {
		lo, hi = hi, lo
	}
	n := c.rnd.IntN(100)
	if c.size > 2 && c.rnd.IntN(2) == 0 {
		n = 100 + c.rnd.IntN(3) // what tells a whole batch from half a one
	}
	switch {
	case n == 100:
		return c.batch()
	case n == 101:
		return c.scan(0, c.size-1)
	case n < 26:
		return c.put(k)
	case n < 34:
		return c.delete(k)
	case n < 46:
		return c.batch()
	case n < 49:
		return c.deleteRange(lo, hi)
	case n < 84:
		return c.read(k)
	case n < 92:
		return c.scan(lo, hi)
	}
	return c.useSnapshot(k)
}

// start begins a call now; done ends it now.
func (c *client) start(what string) *call {
	return &call{client: c.id, what: what, begin: c.clock.Add(1)}
}

func (c *client) done(o *call) {
	if o.end == 0 {
		o.end = c.clock.Add(1)
	}
	c.add(c.group, o)
}

// wrote ends a write. What was refused is not in the history: a reader that sees its
// value finds no order.
func (c *client) wrote(o *call, lsn uint64, err error) error {
	o.write, o.lsn = true, lsn
	switch {
	case err == nil:
	case errors.Is(err, engine.ErrInDoubt) && (c.failing || c.impatient):
		o.end, o.lsn = never, 0
	case c.impatient && errors.Is(err, context.DeadlineExceeded), c.forgive(err) == nil:
		c.count("refused", 1)
		return nil
	default:
		return fmt.Errorf("%s: %w", o.what, err)
	}
	c.done(o)
	return nil
}

func (c *client) put(k int) error {
	id := c.ids.Add(1)
	v := value(id)
	if c.impatient && c.rnd.IntN(3) == 0 {
		b := c.e.NewBatch()
		defer b.Close()
		o := c.start("put in a hurry")
		o.keys, o.ids[k] = 1<<k, id
		if err := b.Put(c.key(c.group, k), v); err != nil {
			return c.wrote(o, 0, err)
		}
		return c.apply(o, b)
	}
	o := c.start("put")
	o.keys, o.ids[k] = 1<<k, id
	return c.wrote(o, 0, c.e.Put(c.key(c.group, k), v))
}

func (c *client) delete(k int) error {
	o := c.start("delete")
	o.keys = 1 << k
	return c.wrote(o, 0, c.e.Delete(c.key(c.group, k)))
}

func (c *client) deleteRange(lo, hi int) error {
	o := c.start("delete range")
	for k := lo; k <= hi; k++ {
		o.keys |= 1 << k
	}
	r := c.span(c.group, lo, hi)
	return c.wrote(o, 0, c.e.DeleteRange(r.Lower, r.Upper))
}

// batch writes several keys of the group at one moment.
func (c *client) batch() error {
	b := c.e.NewBatch()
	defer b.Close()
	o := &call{client: c.id, what: "batch"}
	for range 1 + c.rnd.IntN(2*c.size) {
		k := c.rnd.IntN(c.size)
		o.keys |= 1 << k
		var err error
		switch c.rnd.IntN(6) {
		case 0:
			o.ids[k], err = 0, b.Delete(c.key(c.group, k))
		case 1:
			r := c.span(c.group, k, k)
			o.ids[k], err = 0, b.DeleteRange(r.Lower, r.Upper)
		default:
			o.ids[k] = c.ids.Add(1)
			err = b.Put(c.key(c.group, k), value(o.ids[k]))
		}
		if err != nil {
			return c.wrote(o, 0, err)
		}
	}
	o.begin = c.clock.Add(1)
	return c.apply(o, b)
}

func (c *client) apply(o *call, b *engine.Batch) error {
	ctx := context.Background()
	if c.impatient && c.rnd.IntN(2) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, waitAtMost(c.rnd))
		defer cancel()
	}
	lsn, err := c.e.ApplyContext(ctx, b)
	return c.wrote(o, lsn, err)
}

// read asks for one key in one of the ways there are.
func (c *client) read(k int) (err error) {
	key := c.key(c.group, k)
	var o *call
	var v []byte
	switch c.rnd.IntN(5) {
	case 0:
		o = c.start("get into")
		if v, err = c.e.GetInto(append(c.buf[:0], "before"...), key); err == nil {
			c.buf, v = v, v[len("before"):]
		}
	case 1:
		o = c.start("view")
		err = c.e.View(key, func(b []byte) error {
			v = append(c.buf[:0], b...)
			return nil
		})
	case 2:
		return c.exists(k)
	case 3:
		return c.stat(k)
	default:
		o = c.start("get")
		v, err = c.e.Get(key)
	}
	o.end = c.clock.Add(1)
	o.keys = 1 << k
	if o.ids[k], err = answer(key, v, err); err != nil {
		return err
	}
	c.done(o)
	return nil
}

// exists asks whether a key has a value; that it has none is an answer for a history
// of values, that it has one is not.
func (c *client) exists(k int) error {
	o := c.start("has")
	found, err := c.e.Has(c.key(c.group, k))
	if err != nil {
		return oracle.Broken(oracle.Lied, string(c.key(c.group, k)), 0, "has: %w", err)
	}
	o.keys = 1 << k
	if found {
		o.ids[k] = someValue
	}
	c.done(o)
	return nil
}

// stat names the value by its revision.
func (c *client) stat(k int) error {
	key := c.key(c.group, k)
	o := c.start("stat")
	info, err := c.e.Stat(key)
	o.end = c.clock.Add(1)
	o.keys = 1 << k
	switch {
	case errors.Is(err, engine.ErrNotFound):
	case err != nil:
		return oracle.Broken(oracle.Lied, string(key), 0, "stat: %w", err)
	default:
		o.ids[k], o.what = someValue, fmt.Sprintf("stat (revision %d)", info.Revision)
		o.revision = info.Revision
	}
	c.done(o)
	return nil
}

// answer is the id of what a read returned.
func answer(key, v []byte, err error) (int32, error) {
	if errors.Is(err, engine.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, oracle.Broken(oracle.Lied, string(key), 0, "read: %w", err)
	}
	return parse(key, v)
}

// scan reads keys lo to hi as of the moment the loop began; what the body does takes
// its time.
func (c *client) scan(lo, hi int) error {
	r := c.span(c.group, lo, hi)
	r.Reverse = c.rnd.IntN(2) == 0
	o := c.start("scan")
	for k := lo; k <= hi; k++ {
		o.keys |= 1 << k
	}
	for item, err := range c.e.Scan(r) {
		if o.end == 0 {
			o.end = c.clock.Add(1)
		}
		if errors.Is(err, engine.ErrSnapshotTooOld) {
			return nil
		}
		if err != nil {
			return oracle.Broken(oracle.Lied, c.name(c.group), 0, "scan: %w", err)
		}
		if err := c.scanned(o, item, lo, hi); err != nil {
			return err
		}
		breathe(c.rnd)
	}
	c.done(o)
	return nil
}

func (c *client) scanned(o *call, item engine.Item, lo, hi int) error {
	for k := lo; k <= hi; k++ {
		if string(c.key(c.group, k)) != string(item.Key()) {
			continue
		}
		v, err := item.Value()
		if err != nil {
			return oracle.Broken(oracle.Lied, string(item.Key()), item.Revision(), "value of a scan: %w", err)
		}
		if o.ids[k] != 0 {
			return oracle.Broken(oracle.Lied, string(item.Key()), item.Revision(), "a scan shows it twice")
		}
		if o.ids[k], err = parse(item.Key(), v); err != nil {
			return err
		}
		return c.revision(o.ids[k], item.Revision(), item.Key())
	}
	return oracle.Broken(oracle.Lied, string(item.Key()), item.Revision(), "a scan from key %d to %d shows it", lo, hi)
}

// useSnapshot opens a snapshot and reads two keys, or reads one key of the open one,
// or closes it. All reads of a snapshot are one call of the history: at the moment it
// was taken.
func (c *client) useSnapshot(k int) (err error) {
	if c.snap != nil {
		if c.rnd.IntN(3) == 0 {
			return c.closeSnapshot()
		}
		return c.readSnapshot(k)
	}
	c.snapCall, c.snapOf = c.start("snapshot"), c.group
	if c.snap, err = c.e.Snapshot(); err != nil {
		return oracle.Broken(oracle.Lied, "", 0, "snapshot: %w", err)
	}
	c.snapCall.end, c.snapCall.lsn = c.clock.Add(1), c.snap.LSN()
	if err := c.readSnapshot(k); err != nil || c.snap == nil {
		return err
	}
	return c.readSnapshot(c.size - 1 - k)
}

func (c *client) readSnapshot(k int) error {
	key := c.key(c.snapOf, k)
	v, err := c.snap.Get(key)
	if errors.Is(err, engine.ErrSnapshotTooOld) {
		return c.closeSnapshot()
	}
	id, err := answer(key, v, err)
	if err != nil {
		return err
	}
	o := c.snapCall
	if o.keys&(1<<k) != 0 && o.ids[k] != id {
		return oracle.Broken(oracle.Moved, string(key), o.lsn, "the snapshot shows value %d, showed %d", id, o.ids[k])
	}
	o.keys |= 1 << k
	o.ids[k] = id
	return nil
}

func (c *client) closeSnapshot() error {
	if c.snap == nil {
		return nil
	}
	err := c.snap.Close()
	if c.snapCall.keys != 0 {
		c.add(c.snapOf, c.snapCall)
	}
	c.snap, c.snapCall = nil, nil
	return err
}
