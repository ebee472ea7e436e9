package fault

import (
	"context"
	"strings"
	"syscall"

	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Sites fails each kind of call on each class of files once, in one of the workloads
// that make it, and returns the table of what was called and what went wrong, and
// those of its sites that occur in peace and were left out.
func Sites(ctx context.Context, seed uint64) (table, left []simfs.Coverage, counts runner.Counts, err error) {
	counts = runner.Counts{}
	all := prepared()
	if all.err != nil {
		return nil, nil, counts, all.err
	}
	called, needed := coverage{}, coverage{}
	for i := range all.loads {
		if err := all.sites(ctx, i, seed, called, needed, counts); err != nil {
			return called.rows(), nil, counts, err
		}
	}
	for _, r := range needed.rows() {
		if called[site{r.Op, r.Class}].Injected == 0 {
			left = append(left, r)
		}
	}
	return called.rows(), left, counts, nil
}

func (s *set) sites(ctx context.Context, load int, seed uint64, table, needed coverage, counts runner.Counts) error {
	s.mu[load].Lock()
	defer s.mu[load].Unlock()
	run := func(rule simfs.Rule) ([]simfs.Coverage, error) {
		t := try{
			wl: &s.loads[load], start: s.starts[load], rule: rule, counts: counts,
			kind:  Kind{Name: rule.Name, Rule: rule},
			image: simfs.CrashConfig{Seed: seed, Image: simfs.Nothing},
		}
		_, rows, err := t.run()
		table.add(rows)
		return rows, err
	}
	peace, err := run(simfs.Rule{Name: "peace", Nth: 1 << 30})
	if err != nil {
		return err
	}
	needed.add(peace)
	for _, r := range peace {
		// The glob may fit other classes, too, and other names of a rename: their
		// turn may come first.
		for nth := 1; table[site{r.Op, r.Class}].Injected == 0 && nth <= r.Calls+8 && ctx.Err() == nil; nth++ {
			for _, rule := range siteRules(r, nth) {
				if _, err := run(rule); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// siteRules are the failures of a site's nth call.
func siteRules(r simfs.Coverage, nth int) []simfs.Rule {
	rule := simfs.FailOnce(r.Op, glob(r.Class), nth, syscall.EIO)
	rule.Name = "EIO on " + r.Class
	if r.Op == simfs.OpClose {
		rule.Effect = simfs.EffectDone
	}
	rules := []simfs.Rule{rule}
	if r.Op&simfs.OpWrites != 0 {
		rules = append(rules, simfs.Rule{Name: "short write on " + r.Class, Ops: r.Op, Path: rule.Path, Nth: nth, Short: true})
	}
	return rules
}

// glob matches the names of a class.
func glob(class string) string { return strings.ReplaceAll(class, "#", "[0-9]*") }
