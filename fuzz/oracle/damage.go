package oracle

import "errors"

// Damage checks O6, answer by answer: right, or an error of a known type.
type Damage struct {
	// Known are the errors, by errors.Is, that a damaged store may give.
	Known []error
	// Reported counts the answers that were such errors.
	Reported int
}

// Typed is nil for an error of a known type, and a verdict for any other. A nil err
// is nil.
func (d *Damage) Typed(key string, err error) error {
	if err == nil {
		return nil
	}
	for _, k := range d.Known {
		if errors.Is(err, k) {
			d.Reported++
			return nil
		}
	}
	return Broken(Lied, key, 0, "an error of no type that damage has: %w", err)
}

// Read reads everything that m has, by Get and by Scan, and returns a verdict if an
// answer is wrong, missing or of no known type.
func (d *Damage) Read(s Store, m Model) (err error) {
	m.Scan(func(k, _ string) bool {
		err = d.excuse(k, m.CheckGet(s, k))
		return err == nil
	})
	if err != nil {
		return err
	}
	return d.excuse("", m.Check(s, Bounds{}, false))
}

// Absent checks that a key that was deleted is gone, or unreadable.
func (d *Damage) Absent(s Store, key string) error {
	return d.excuse(key, NewModel().CheckGet(s, key))
}

func (d *Damage) excuse(key string, err error) error {
	if errors.Is(err, ErrUnreadable) {
		return d.Typed(key, err)
	}
	return err
}
