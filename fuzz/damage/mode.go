package damage

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// Mode is a way to open a store, with a contract of its own beside damage.
type Mode struct {
	Name string
	set  func(o *engine.Options)
	try  func(t *trial, set func(o *engine.Options)) (Outcome, error)
}

// Modes are all ways to open but the plain one, which is [Fixture.AtRest].
//
//   - read-only opens what the plain way opens, and changes no byte.
//   - absolute opens nothing that the plain way refuses, and nothing that has a tail
//     to cut.
//   - point in time shows the state after one commit, the last one unless it reports
//     what is lost, and goes on from there.
//   - salvage changes no byte and shows only values that were once written, all of
//     the newest unless it reports what is lost.
func Modes() []Mode {
	readOnly := func(o *engine.Options) { o.ReadOnly = true }
	return []Mode{
		{"read-only", readOnly, func(t *trial, _ func(o *engine.Options)) (Outcome, error) { return t.readOnly() }},
		{"absolute", func(o *engine.Options) { o.Recovery = engine.RecoverAbsolute }, (*trial).absolute},
		{"point in time", func(o *engine.Options) { o.Recovery = engine.RecoverPointInTime }, (*trial).pointInTime},
		{"salvage", func(o *engine.Options) { o.ReadOnly, o.Recovery = true, engine.RecoverSalvage }, (*trial).salvage},
	}
}

// In damages the store as [Fixture.AtRest] does, and opens it in mode m.
func (f *Fixture) In(m Mode) func(c Case) (Outcome, error) {
	return func(c Case) (Outcome, error) {
		return f.try(c, func(t *trial) (Outcome, error) { return m.try(t, m.set) })
	}
}

// unchanged checks that an open for reading changed nothing. The lock of a file system
// that is not the operating system's is a file that may come.
func (t *trial) unchanged(fs vfs.FS) error {
	now, err := Read(fs, dir)
	if err != nil {
		return err
	}
	for _, s := range t.im.Changed(now) {
		if !strings.HasPrefix(s, "LOCK ") {
			return oracle.Broken(oracle.Unstable, "", 0, "%s in a read-only open", s)
		}
	}
	return nil
}

// plain says whether the plain way opens the store.
func (t *trial) plain() (bool, error) {
	fs, err := t.disk(t.im)
	if err != nil {
		return false, err
	}
	e, err := t.reopen(fs, nil)
	if err != nil {
		return false, nil
	}
	return true, t.typed(e.Close())
}

func (t *trial) readOnly() (Outcome, error) {
	fs, err := t.disk(t.im)
	if err != nil {
		return 0, err
	}
	e, err := t.reopen(fs, func(o *engine.Options) { o.ReadOnly = true })
	if err != nil {
		return Refused, errors.Join(t.typed(err), t.unchanged(fs))
	}
	o, _, err := t.read(e, t.Model)
	return o, errors.Join(err, t.typed(e.Close()), t.unchanged(fs))
}

func (t *trial) absolute(set func(o *engine.Options)) (Outcome, error) {
	fs, err := t.disk(t.im)
	if err != nil {
		return 0, err
	}
	e, err := t.reopen(fs, set)
	if err != nil {
		return t.refused(fs, err, set)
	}
	opens, err := t.plain()
	if err == nil && !opens {
		err = errors.New("opened in absolute mode, refused in the plain one")
	}
	if n := e.Recovered().CutBytes; err == nil && n > 0 {
		err = fmt.Errorf("opened in absolute mode, and cut %d bytes", n)
	}
	o, _, rerr := t.read(e, t.Model)
	return o, errors.Join(err, rerr, t.typed(e.Close()))
}

func (t *trial) pointInTime(set func(o *engine.Options)) (Outcome, error) {
	fs, err := t.disk(t.im)
	if err != nil {
		return 0, err
	}
	e, err := t.reopen(fs, set)
	if err != nil {
		return t.refused(fs, err, set)
	}
	rec := e.Recovered()
	if len(rec.Lost) == 0 {
		o, m, err := t.read(e, t.Model)
		if err != nil {
			return o, errors.Join(fmt.Errorf("nothing is lost, it says, but: %w", err), e.Close())
		}
		return o, t.goOn(fs, e, o, m)
	}
	opens, err := t.plain()
	if err == nil && opens {
		err = fmt.Errorf("lost %s, where the plain way opens", strings.Join(rec.Lost, "; "))
	}
	m := t.at(rec.LSN)
	reported, rerr := t.whole(e, m)
	if err := errors.Join(err, rerr); err != nil {
		return 0, errors.Join(fmt.Errorf("at commit %d: %w", rec.LSN, err), e.Close())
	}
	o := Cut
	if reported {
		o = Reported
	}
	return o, t.goOn(fs, e, o, m)
}

func (t *trial) salvage(set func(o *engine.Options)) (Outcome, error) {
	fs, err := t.disk(t.im)
	if err != nil {
		return 0, err
	}
	e, err := t.reopen(fs, set)
	if err != nil {
		return Refused, errors.Join(t.typed(err), t.unchanged(fs))
	}
	o := Cut
	if len(e.Recovered().Lost) == 0 {
		if o, _, err = t.read(e, t.Model); err != nil {
			err = fmt.Errorf("nothing is lost, it says, but: %w", err)
		}
	} else {
		err = t.onceWritten(e)
	}
	return o, errors.Join(err, t.typed(e.Close()), t.unchanged(fs))
}

// onceWritten checks that every value was once written to its key.
func (t *trial) onceWritten(e *engine.Engine) error {
	check := func(k string, v []byte) error {
		if !t.ever[k][string(v)] {
			return oracle.Broken(oracle.Resurrected, k, 0, "is %.40q, which was never written", v)
		}
		return nil
	}
	for k := range t.ever {
		v, found, err := fuzz.Store{R: e}.Get(k)
		if err := t.typed(err); err != nil {
			return err
		}
		if found {
			if err := check(k, v); err != nil {
				return err
			}
		}
	}
	for c, err := range (fuzz.Store{R: e}).Scan(oracle.Bounds{}, false) {
		if err != nil {
			return t.typed(err)
		}
		if err := check(string(c.Key), c.Value); err != nil {
			return err
		}
	}
	return nil
}
