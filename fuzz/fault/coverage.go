package fault

import (
	"cmp"
	"maps"
	"slices"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// site is a kind of call on a class of files.
type site struct {
	op    simfs.Op
	class string
}

// coverage adds up what was called and what went wrong, site by site.
type coverage map[site]*simfs.Coverage

func (c coverage) add(rows []simfs.Coverage) {
	for _, r := range rows {
		s := site{r.Op, r.Class}
		if c[s] == nil {
			c[s] = &simfs.Coverage{Op: r.Op, Class: r.Class}
		}
		c[s].Calls += r.Calls
		c[s].Injected += r.Injected
	}
}

func (c coverage) rows() (out []simfs.Coverage) {
	for _, r := range slices.SortedFunc(maps.Values(c), func(a, b *simfs.Coverage) int {
		return cmp.Or(cmp.Compare(a.Op, b.Op), cmp.Compare(a.Class, b.Class))
	}) {
		out = append(out, *r)
	}
	return out
}
