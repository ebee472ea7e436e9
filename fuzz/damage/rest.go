package damage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// patience is how long one case may take before it counts as stuck (O11).
const patience = 10 * time.Second

// damaged are the errors that a damaged store may give, system those that it may
// give where the names themselves are wrong.
var (
	damaged = []error{engine.ErrCorrupt, engine.ErrForeign, engine.ErrVersion}
	system  = append([]error{fs.ErrNotExist, syscall.EISDIR, syscall.ENOTDIR, syscall.ENOTEMPTY, syscall.EEXIST, engine.ErrLocked, engine.ErrReadOnly}, damaged...)
)

const afterKey, afterValue = "zz after", "written after the damage"

// trial is one case under way.
type trial struct {
	*Fixture
	c     Case
	im    Image
	known []error
}

// AtRest damages the store while nobody has it open, opens it and reads everything,
// by key, by scan and in a snapshot. A store that refuses must refuse the same again
// and have lost no evidence; one that opens goes on: one key more, closed, opened
// again, and still nothing is wrong.
func (f *Fixture) AtRest(c Case) (o Outcome, err error) {
	return f.try(c, func(t *trial) (Outcome, error) { return t.atRest() })
}

// try runs one case with its bound in time, and names it in its error.
func (f *Fixture) try(c Case, run func(t *trial) (Outcome, error)) (o Outcome, err error) {
	t := &trial{Fixture: f, c: c, im: c.Make(), known: damaged}
	if c.System {
		t.known = system
	}
	err, stacks := oracle.Within(patience, "the case", func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		o, err = run(t)
		return err
	})
	if err != nil {
		return o, fmt.Errorf("%s: %s: %w\n%s", f.Name, c.What, err, stacks)
	}
	return o, nil
}

func (t *trial) typed(err error) error { return (&oracle.Damage{Known: t.known}).Typed("", err) }

// disk is a file system with the image on it. Names of the wrong sort need one whose
// errors are the operating system's.
func (t *trial) disk(im Image) (vfs.FS, error) {
	var fs vfs.FS = vfs.NewMem()
	if t.c.System {
		fs = simfs.New(nil)
	}
	return fs, im.Write(fs, dir)
}

func (t *trial) atRest() (Outcome, error) {
	if t.c.Reading {
		return t.readOnly()
	}
	fs, err := t.disk(t.im)
	if err != nil {
		return 0, err
	}
	e, err := t.reopen(fs, nil)
	if err != nil {
		return t.refused(fs, err, nil)
	}
	o, model, err := t.read(e, t.Model)
	if err != nil {
		return o, errors.Join(err, e.Close())
	}
	if t.c.Brief {
		return o, t.typed(e.Close())
	}
	return o, t.goOn(fs, e, o, model)
}

// read reads everything there is and says how it fares against the model, or against
// the earlier one that this damage may leave; and which one it was.
func (t *trial) read(e *engine.Engine, m oracle.Model) (Outcome, oracle.Model, error) {
	reported, err := t.whole(e, m)
	switch {
	case err == nil && reported:
		return Reported, m, nil
	case err == nil:
		return Harmless, m, nil
	}
	now := e.Recovered().LSN
	for o, floor := range map[Outcome]*uint64{Cut: t.c.Cuts, Rewound: t.c.Rewinds} {
		if floor == nil || now < *floor {
			continue
		}
		then := t.at(now)
		if _, again := t.whole(e, then); again == nil {
			return o, then, nil
		}
	}
	return Harmless, m, err
}

func (t *trial) whole(e *engine.Engine, m oracle.Model) (reported bool, err error) {
	d := oracle.Damage{Known: t.known}
	if err := d.Read(fuzz.Store{R: e}, m); err != nil {
		return false, err
	}
	for _, k := range t.Gone {
		if _, there := m.Get(k); !there {
			if err := d.Absent(fuzz.Store{R: e}, k); err != nil {
				return false, err
			}
		}
	}
	sn, err := e.Snapshot()
	if err != nil {
		return d.Reported > 0, t.typed(err)
	}
	if err := d.Read(fuzz.Store{R: sn}, m); err != nil {
		return false, errors.Join(fmt.Errorf("snapshot: %w", err), sn.Close())
	}
	return d.Reported > 0, sn.Close()
}

// refused looks at a store that was refused: what would help to find out why is still
// there, and a second open says the same.
func (t *trial) refused(fs vfs.FS, said error, set func(o *engine.Options)) (Outcome, error) {
	if err := t.typed(said); err != nil {
		return Refused, err
	}
	now, err := Read(fs, dir)
	if err != nil {
		return Refused, err
	}
	if gone := t.evidence(t.im.Changed(now)); len(gone) > 0 {
		return Refused, oracle.Broken(oracle.Unstable, "", 0, "refused, but changed the store: %s (it said: %w)", strings.Join(gone, ", "), said)
	}
	if t.c.Brief {
		return Refused, nil
	}
	return Refused, t.again(fs, said, set)
}

// again opens a second time what was refused: the same is said again (O5).
func (t *trial) again(fs vfs.FS, first error, set func(o *engine.Options)) error {
	e, err := t.reopen(fs, set)
	switch {
	case err != nil && t.c.System:
		return t.typed(err)
	case err == nil && t.c.System: // what was in the way was L3's to remove
		_, err = t.whole(e, t.Model)
		return errors.Join(err, e.Close())
	case err == nil:
		return errors.Join(oracle.Broken(oracle.Unstable, "", 0, "refused once, then opened; first it said: %w", first), e.Close())
	case first.Error() != err.Error():
		return oracle.Broken(oracle.Unstable, "", 0, "refused as %q, then as %q: %w", first, err, err)
	}
	return nil
}

// evidence leaves out what an open may change though it ends in a refusal: the lock,
// and L3's own housekeeping, which writes its options anew and lets the old ones go, and
// tables that the store had no more. What it has of tables, manifests, markers, packs,
// log and STATE is evidence.
func (t *trial) evidence(changed []string) (out []string) {
	anew := slices.ContainsFunc(changed, func(s string) bool {
		return Class(strings.TrimSuffix(s, " came")) == "MANIFEST" && strings.HasSuffix(s, " came")
	})
	for _, s := range changed {
		name, what, _ := strings.Cut(s, " ")
		_, has := t.Image[name]
		switch c := Class(name); {
		case c == "LOCK", name == "l3-staging/", (c == "folder" || strings.HasPrefix(name, "l3/")) && what == "came":
		case c == "table" && !has:
		case anew && what == "is gone" && (c == "OPTIONS" || c == "L3's log"):
		default:
			out = append(out, s)
		}
	}
	return out
}

// goOn writes one key more to a store that opened beside its damage, closes it and
// opens it again.
func (t *trial) goOn(fs vfs.FS, e *engine.Engine, o Outcome, m oracle.Model) error {
	wrote := e.Put([]byte(afterKey), []byte(afterValue))
	if err := errors.Join(t.typed(wrote), t.typed(e.Close())); err != nil {
		return fmt.Errorf("one key more: %w", err)
	}
	m = m.Copy()
	if wrote == nil {
		m.Put(afterKey, afterValue)
	}
	e, err := t.reopen(fs, nil)
	if err != nil {
		return fmt.Errorf("%s at first, one key more, then refused: %w", o, err)
	}
	reported, err := t.whole(e, m)
	if err = errors.Join(err, t.typed(e.Close())); err != nil {
		return fmt.Errorf("%s at first, one key more, opened again: %w", o, err)
	}
	if reported && o != Reported && o != Rewound {
		return fmt.Errorf("%s at first, one key more, then some keys are unreadable", o)
	}
	return nil
}
