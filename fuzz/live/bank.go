package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/yield"
)

// Bank checks that batches are one moment (O3): tellers move money between accounts,
// each transfer in a batch with the teller's log of it, and every snapshot and scan
// must show all the money, each account with what the logs in the same snapshot say.
func Bank() runner.Runner {
	return runner.Runner{
		Name:  "bank",
		About: "money moves in batches; every snapshot and scan shows all of it",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			rnd := chance(seed, 0)
			b := newBank(ctx, seed, rnd)
			err := b.live(rnd)
			return b.counts, oracle.WithSeed(err, seed)
		},
	}
}

// bank is one life of a bank: the tellers and who looks at them.
type bank struct {
	*hands
	*ledger
	seed      uint64
	e         *engine.Engine
	transfers int           // of each teller
	counters  []yield.Mutex // one for each account: its reads and writes of a transfer
	excuse    func(error) error
}

func newBank(ctx context.Context, seed uint64, rnd *rand.Rand) *bank {
	b := &bank{hands: newHands(ctx), seed: seed, excuse: excuseNone}
	b.ledger = newLedger(4+rnd.IntN(30), 2+rnd.IntN(4))
	b.counters = make([]yield.Mutex, b.accounts)
	b.transfers = 40 + rnd.IntN(200)
	return b
}

func (b *bank) live(rnd *rand.Rand) (err error) {
	defer b.cancel()
	d, err := newDisk(rnd, b.seed, true)
	if err != nil {
		return err
	}
	defer d.remove()
	o := settings(rnd, b.seed)
	if b.e, err = d.open(o); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.e.Close()) }()
	if err := b.found(); err != nil {
		return err
	}
	b.staff(rnd, 0)
	if rnd.IntN(4) == 0 {
		b.background(func() error { return crowd(b.hands, b.e, chance(b.seed, 101), b.excuse) })
	}
	if err := b.join(); err != nil {
		return err
	}
	if rnd.IntN(3) == 0 {
		if err := b.e.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
		e, err := d.open(o)
		if err != nil {
			return err
		}
		b.e = e
		b.counts["reopens"]++
	}
	return b.came(fuzz.Store{R: b.e}, b.history.Promised(nil), b.e.Recovered().LSN)
}

// found opens the accounts, in one batch and for good.
func (b *bank) found() error {
	batch := b.e.NewBatch()
	defer batch.Close()
	for n := range b.accounts {
		if err := batch.Put([]byte(account(n)), []byte(money(n, opening))); err != nil {
			return err
		}
	}
	if _, err := b.e.Apply(batch); err != nil {
		return fmt.Errorf("opening accounts: %w", err)
	}
	return b.e.Sync(context.Background())
}

// staff sets tellers to work, auditors beside them, and flushes below. round makes
// their choices differ from those of the life before.
func (b *bank) staff(rnd *rand.Rand, round int) {
	at := 1000 * round
	for i := range b.history.Lanes() {
		b.share(func() error { return b.tell(i, chance(b.seed, at+1+i)) })
	}
	for i := range 1 + rnd.IntN(2) {
		b.background(func() error { return b.audit(chance(b.seed, at+50+i)) })
	}
	b.background(func() error { return churn(b.hands, b.e, chance(b.seed, at+100), b.excuse) })
}

// tell makes transfers one after the other.
func (b *bank) tell(teller int, rnd *rand.Rand) error {
	for range b.transfers {
		if !b.going() {
			return nil
		}
		if err := b.move(teller, rnd); err != nil {
			if b.excuse(err) == nil {
				return nil
			}
			return fmt.Errorf("teller %d: %w", teller, err)
		}
		breathe(rnd)
	}
	return nil
}

// move makes one transfer. Both accounts are locked, the lower number first, while
// they are read and written.
func (b *bank) move(teller int, rnd *rand.Rand) (err error) {
	t := transfer{from: rnd.IntN(b.accounts), to: rnd.IntN(b.accounts - 1)}
	if t.to >= t.from {
		t.to++
	}
	lower, upper := &b.counters[min(t.from, t.to)], &b.counters[max(t.from, t.to)]
	lower.Lock()
	defer lower.Unlock()
	upper.Lock()
	defer upper.Unlock()
	from, to, err := b.both(t, rnd)
	if err != nil || from == 0 {
		return err
	}
	if t.amount = 1 + rnd.IntN(from); rnd.IntN(5) == 0 {
		t.amount = from // the account is emptied
	}
	batch := b.e.NewBatch()
	defer batch.Close()
	next, err := b.write(batch, teller, t, from, to, rnd)
	if err != nil {
		return err
	}
	b.begin(teller, t, next)
	lsn, err := b.e.Apply(batch)
	if err != nil {
		return err
	}
	b.history.Lanes()[teller].Acked(lsn)
	b.count("transfers", 1)
	if rnd.IntN(8) == 0 { // a teller sees his own transfer
		if again, _, err := b.both(t, rnd); err != nil || again != from-t.amount {
			if err == nil {
				err = oracle.Broken(oracle.Stale, account(t.from), lsn, "holds %d after a transfer that left %d", again, from-t.amount)
			}
			return err
		}
	}
	return nil
}

// both reads both balances: from the store as it is, or from a snapshot.
func (b *bank) both(t transfer, rnd *rand.Rand) (from, to int, err error) {
	get := b.e.Get
	if rnd.IntN(2) == 0 {
		snap, err := b.e.Snapshot()
		if err != nil {
			return 0, 0, err
		}
		defer snap.Close()
		get = func(key []byte) ([]byte, error) {
			v, err := snap.Get(key)
			if errors.Is(err, engine.ErrSnapshotTooOld) {
				return b.e.Get(key) // both are locked, so it is the same
			}
			return v, err
		}
	}
	if from, err = b.balance(get, t.from); err == nil {
		to, err = b.balance(get, t.to)
	}
	return from, to, err
}

func (b *bank) balance(get func(key []byte) ([]byte, error), n int) (int, error) {
	v, err := get([]byte(account(n)))
	if errors.Is(err, engine.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return parseMoney(n, v)
}

// write makes the batch of a transfer: two accounts, the teller's counter, and his
// log, of which the end is cut off.
func (b *bank) write(batch *engine.Batch, teller int, t transfer, from, to int, rnd *rand.Rand) (oracle.Model, error) {
	lane := b.history.Lanes()[teller]
	n, next := lane.Next()
	entry := func(n int) string { return lane.Key(fmt.Sprintf("%06d", n)) }
	text := fmt.Sprintf("%d from %d to %d", t.amount, t.from, t.to)
	errs := []error{batch.Put([]byte(lane.Counter()), fmt.Append(nil, n)), batch.Put([]byte(entry(n)), []byte(text))}
	next.Put(entry(n), text)
	if n > inLog {
		old := oracle.Bounds{Lower: entry(0), Upper: entry(n - inLog + 1)}
		next.DeleteRange(old)
		if rnd.IntN(4) == 0 {
			errs = append(errs, batch.DeleteRange([]byte(old.Lower), []byte(old.Upper)))
		} else {
			errs = append(errs, batch.Delete([]byte(entry(n-inLog))))
		}
	}
	key := []byte(account(t.from))
	switch left := from - t.amount; {
	case left > 0:
		errs = append(errs, batch.Put(key, []byte(money(t.from, left))))
	case rnd.IntN(3) == 0:
		errs = append(errs, batch.DeleteRange(key, append(key[:len(key):len(key)], 0)))
	default:
		errs = append(errs, batch.Delete(key))
	}
	errs = append(errs, batch.Put([]byte(account(t.to)), []byte(money(t.to, to+t.amount))))
	return next, errors.Join(errs...)
}

// audit looks at the whole bank, over and over, through snapshots and scans.
func (b *bank) audit(rnd *rand.Rand) error {
	for b.going() {
		err := b.auditOnce(rnd)
		switch {
		case err == nil, errors.Is(err, engine.ErrSnapshotTooOld):
		case b.excuse(err) == nil:
			return nil
		default:
			return err
		}
		breathe(rnd)
	}
	return nil
}

func (b *bank) auditOnce(rnd *rand.Rand) error {
	if rnd.IntN(3) == 0 { // one scan is one moment
		b.count("scans", 1)
		return b.checkAccounts(fuzz.Store{R: b.e}, nil)
	}
	snap, err := b.e.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	for range 1 + rnd.IntN(3) {
		if err := b.check(fuzz.Store{R: snap}); err != nil {
			return fmt.Errorf("snapshot %d: %w", snap.LSN(), err)
		}
		b.count("snapshots", 1)
		breathe(rnd)
	}
	return nil
}
