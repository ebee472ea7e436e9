package oracle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// commits makes n commits of lane 0: commit i sets "a" to its number and deletes "b"
// if it is even, else sets it.
func commits(h *History, n int) {
	l := h.Lanes()[0]
	for range n {
		i, m := l.Next()
		m.Put(l.Key("a"), string(rune('0'+i)))
		if i%2 == 0 {
			m.Delete(l.Key("b"))
		} else {
			m.Put(l.Key("b"), "there")
		}
		l.Begin(m)
		l.Acked(uint64(10 * i))
	}
}

func rule(t *testing.T, err error) Rule {
	t.Helper()
	var v *Verdict
	require.ErrorAs(t, err, &v)
	require.NotContains(t, err.Error(), "\n", "one line")
	return v.Rule
}

// Goal (O1 to O4): every prefix between the bounds is accepted, and each lie is named
// by its rule.
func TestHistory_Check(t *testing.T) {
	h := NewHistory(1)
	commits(h, 5)
	l := h.Lanes()[0]
	p := h.Promised(func(lsn uint64) bool { return lsn <= 20 })
	require.Equal(t, Promise{[]int{2}, []int{5}}, p)
	state := func(n int) Model { return l.models[n].Copy() }
	for n := 2; n <= 5; n++ {
		require.NoError(t, h.Check(mapStore{state(n)}, p, uint64(10*n)))
		require.NoError(t, h.Check(mapStore{state(n)}, p, 0), "a store that does not say where it is")
	}
	require.Equal(t, Lost, rule(t, h.Check(mapStore{state(1)}, p, 10)))
	require.Equal(t, Hole, rule(t, h.Check(mapStore{state(5)}, Promise{[]int{0}, []int{4}}, 50)))
	require.Equal(t, Hole, rule(t, h.Check(mapStore{state(3)}, p, 40)), "it says more than it has")

	back := state(4)
	back.Put(l.Key("b"), "there")
	require.Equal(t, Resurrected, rule(t, h.Check(mapStore{back}, p, 40)))
	torn := state(3)
	torn.Delete(l.Key("b"))
	require.Equal(t, Lost, rule(t, h.Check(mapStore{torn}, p, 30)))
	old := state(4)
	old.Put(l.Key("a"), "3")
	require.Equal(t, Hole, rule(t, h.Check(mapStore{old}, p, 40)))

	begun, survived, err := h.Rewind(mapStore{state(3)})
	require.NoError(t, err)
	require.Equal(t, []int{5, 3}, []int{begun, survived})
	require.NoError(t, h.Check(mapStore{state(3)}, h.Promised(nil), 30))
}

// Goal (O2): a snapshot shows exactly the commits at or below its number.
func TestHistory_At(t *testing.T) {
	h := NewHistory(1)
	commits(h, 4)
	s := mapStore{h.Lanes()[0].models[2].Copy()}
	require.NoError(t, h.At(s, 20))
	require.NoError(t, h.At(s, 29))
	require.Equal(t, Hole, rule(t, h.At(s, 30)))
	require.Equal(t, Hole, rule(t, h.At(s, 19)))
}

// Goal (O9): a read below what was acknowledged or read before is stale.
func TestVersions_End(t *testing.T) {
	o := NewVersions(1)
	o.Acked(0, 3)
	floor := o.Begin(0)
	require.NoError(t, o.End(0, "k", floor, 5))
	require.Equal(t, Stale, rule(t, o.End(0, "k", o.Begin(0), 4)))
}

// Goal (O5, O8): a digest sees keys, values and their absence.
func TestFrozen_Check(t *testing.T) {
	m := NewModel()
	m.Put("k", "v")
	f, err := Freeze(mapStore{m}, 7)
	require.NoError(t, err)
	require.NoError(t, f.Check())
	first, err := Digest(mapStore{m.Copy()}, Bounds{})
	require.NoError(t, err)
	second, err := Digest(mapStore{m}, Bounds{})
	require.NoError(t, err)
	require.NoError(t, Same(first, second))
	m.Put("k", "w")
	require.Equal(t, Moved, rule(t, f.Check()))
	second, err = Digest(mapStore{m}, Bounds{})
	require.NoError(t, err)
	require.Equal(t, Unstable, rule(t, Same(first, second)))
}

// failing gives an error for one key.
type failing struct {
	mapStore
	key string
	err error
}

func (f failing) Get(key string) ([]byte, bool, error) {
	if key == f.key {
		return nil, false, f.err
	}
	return f.mapStore.Get(key)
}

// Goal (O6): an error of a known type is counted, any other and any wrong answer is a
// verdict.
func TestDamage_Read(t *testing.T) {
	m := NewModel()
	m.Put("a", "1")
	m.Put("b", "2")
	rotten := errors.New("rotten")
	d := Damage{Known: []error{rotten}}
	require.NoError(t, d.Read(mapStore{m}, m))
	require.Zero(t, d.Reported)
	require.NoError(t, d.Read(failing{mapStore{m}, "b", rotten}, m))
	require.Equal(t, 1, d.Reported)
	require.Equal(t, Lied, rule(t, d.Read(failing{mapStore{m}, "b", errors.New("odd")}, m)))
	less := m.Copy()
	less.Delete("b")
	require.Equal(t, Lost, rule(t, d.Read(mapStore{less}, m)))
	require.Equal(t, Resurrected, rule(t, d.Absent(mapStore{m}, "a")))
}

// Goal (O10, O11, O12): what stays, what hangs and what is kept quiet is told.
func TestResources(t *testing.T) {
	before := Held()
	stop := make(chan struct{})
	for range 32 { // more than an earlier test or the runtime may end meanwhile
		go func() { <-stop }()
	}
	require.Equal(t, Leaked, rule(t, before.Check(20*time.Millisecond)))
	close(stop)
	require.NoError(t, before.Check(5*time.Second))

	err, stacks := Within(time.Minute, "a call", func() error { return nil })
	require.NoError(t, err)
	require.Empty(t, stacks)
	again := make(chan struct{})
	err, stacks = Within(10*time.Millisecond, "a call", func() error { <-again; return nil })
	close(again)
	require.Equal(t, Stuck, rule(t, err))
	require.Contains(t, stacks, "goroutine")

	require.NoError(t, Honest(0, nil, "syncs"))
	require.NoError(t, Honest(2, errors.New("in doubt"), "syncs"))
	require.Equal(t, Hushed, rule(t, Honest(2, nil, "syncs")))
}

// Goal: the line of a verdict names the seed, once, whatever wraps it.
func TestWithSeed(t *testing.T) {
	for _, err := range []error{
		Broken(Lost, "k", 7, "gone"),
		fmt.Errorf("round 2: %w", Broken(Lost, "k", 7, "gone")),
		fmt.Errorf("seed 425: %w", Broken(Lost, "k", 7, "gone")),
		errors.New("close: no space left"),
	} {
		line := WithSeed(WithSeed(err, 42), 42).Error()
		require.Equal(t, 1, strings.Count(line, "seed 42:")+strings.Count(line, "seed 42)"), "%s", line)
	}
	require.NoError(t, WithSeed(nil, 42))
}

// register is one of a client's calls on one value.
type register struct {
	put bool
	n   int
}

func (c register) String() string {
	return fmt.Sprintf("%+v", struct {
		Put bool
		N   int
	}{c.put, c.n})
}
func (c register) LSN() uint64 { return uint64(c.n) }

// Goal (O7): a read of what was overwritten before it began has no place in any order; the
// same read beside the overwrite has one, and so has a write that may never have happened.
func TestLinear(t *testing.T) {
	model := porcupine.Model{
		Init: func() any { return 0 },
		Step: func(state, input, _ any) (bool, any) {
			c := input.(register)
			return c.put || state == c.n, c.n
		},
	}
	puts := []porcupine.Operation{
		{ClientId: 1, Input: register{true, 1}, Call: 1, Return: 2},
		{ClientId: 1, Input: register{true, 2}, Call: 3, Return: 6},
		{ClientId: 3, Input: register{true, 3}, Call: 0, Return: Never},
	}
	read := func(begin, end int64) []porcupine.Operation {
		return append(slices.Clone(puts), porcupine.Operation{ClientId: 2, Input: register{false, 1}, Call: begin, Return: end})
	}
	decided, err := Linear(model, read(4, 5), "k", time.Second)
	require.NoError(t, err)
	require.True(t, decided)
	_, err = Linear(model, read(7, 8), "k", time.Second)
	require.Equal(t, NotLinear, rule(t, err))
	require.ErrorContains(t, err, `key "k": commit 1`)
	require.ErrorContains(t, err, "no place for: {Put:false N:1}")
}
