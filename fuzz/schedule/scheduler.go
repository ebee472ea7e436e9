//go:build schedule

package schedule

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// scheduler lets one goroutine run at a time. It implements yield.Hook.
type scheduler struct {
	collecting atomic.Int32 // goroutines that wait for the garbage collector, and will go on
	rnd        *rand.Rand
	bytes      *rand.ChaCha8 // what the rooms draw
	mode       int

	mu     sync.Mutex // guards the fields up to the next blank line
	parked []*parked
	timers []*timer
	now    time.Time
	ids    map[uint64]int // of goroutines, by the runtime's number
	rank   []float64      // by id: the priority; or the step until which it naps
	trace  []string       // the newest steps
	free   bool           // everybody runs

	steps  int
	same   int // how often the last one was chosen in a row
	lastID int
	sample []metrics.Sample
	away   uint64 // goroutines that were outside Go at the start, and stay there
}

// parked is a goroutine that is stopped at a point.
type parked struct {
	name      string
	id        int
	goroutine uint64
	next      chan struct{}
}

type timer struct {
	due time.Time
	seq int
	c   chan<- time.Time
}

// How the next one is chosen.
const (
	byChance   = iota
	byPriority // the highest runs; at few places it becomes the lowest
	byNaps     // by chance, but now and then one is left out for long
	modes
)

const (
	traceLen = 60
	maxSteps = 200_000
	// patience is how long goroutines may be busy outside of points, for instance
	// asleep in real time, before that counts as a hang.
	patience = 10 * time.Second
)

func newScheduler(seed uint64) *scheduler {
	s := &scheduler{
		rnd:   rand.New(rand.NewPCG(seed, 0x7363686564)),
		bytes: rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32), byte(seed >> 40), byte(seed >> 48), byte(seed >> 56)}),
		now:   time.Unix(1_700_000_000, 0),
		ids:   make(map[uint64]int),
		sample: []metrics.Sample{
			{Name: "/sched/goroutines/runnable:goroutines"},
			{Name: "/sched/goroutines/not-in-go:goroutines"},
		},
	}
	s.mode = s.rnd.IntN(modes)
	metrics.Read(s.sample)
	s.away = s.sample[1].Value.Uint64()
	return s
}

// Point implements yield.Hook.
func (s *scheduler) Point(name string) {
	me := goroutine()
	s.mu.Lock()
	if s.free {
		s.mu.Unlock()
		return
	}
	id, ok := s.ids[me]
	if !ok {
		id = -1 // numbered when all are quiet
	}
	p := &parked{name: name, id: id, goroutine: me, next: make(chan struct{})}
	s.parked = append(s.parked, p)
	s.mu.Unlock()
	<-p.next
}

// Start implements yield.Hook.
func (s *scheduler) Start(c chan<- time.Time, d time.Duration) func() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &timer{due: s.now.Add(d), c: c}
	s.timers = append(s.timers, t)
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		i := slices.Index(s.timers, t)
		if i >= 0 {
			s.timers = slices.Delete(s.timers, i, i+1)
		}
		return i >= 0
	}
}

// Now implements yield.Hook.
func (s *scheduler) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Random implements yield.Hook.
func (s *scheduler) Random(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes.Read(b) //nolint:errcheck // it never fails
}

// run plays until done is closed. It needs GOMAXPROCS 1.
func (s *scheduler) run(done <-chan struct{}) error {
	defer s.letGo()
	idle := time.Time{}
	for ; ; s.steps++ {
		s.quiesce()
		select {
		case <-done:
			return nil
		default:
		}
		if s.steps > maxSteps {
			return oracle.Broken(oracle.Stuck, "", 0, "no end after %d steps; the last: %v", maxSteps, s.trace)
		}
		if s.step() {
			idle = time.Time{}
			continue
		}
		// Nobody is at a point and no timer is left. Somebody may sleep in real time.
		if idle.IsZero() {
			idle = time.Now()
		}
		if time.Since(idle) > patience {
			return oracle.Broken(oracle.Stuck, "", 0, "nobody can go on; the last steps: %v\n%s", s.trace, stacks())
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// quiesce returns when no other goroutine can run.
func (s *scheduler) quiesce() {
	for quiet := 0; quiet < 2; {
		if s.collecting.Load() > 0 {
			time.Sleep(20 * time.Microsecond) // the collector has one processor, too
			quiet = 0
			continue
		}
		runtime.Gosched()
		metrics.Read(s.sample)
		if s.sample[0].Value.Uint64() == 0 && s.sample[1].Value.Uint64() <= s.away {
			quiet++
		} else {
			quiet = 0
		}
	}
}

// step lets one goroutine go on, or one timer fire. It is false if there is neither.
func (s *scheduler) step() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	const early = 100 // one step in so many fires a timer before its time has come
	if len(s.timers) > 0 && (len(s.parked) == 0 || s.rnd.IntN(early) == 0) {
		t := slices.MinFunc(s.timers, func(a, b *timer) int { return a.due.Compare(b.due) })
		s.timers = slices.DeleteFunc(s.timers, func(o *timer) bool { return o == t })
		if t.due.After(s.now) {
			s.now = t.due
		}
		t.c <- s.now // it has room for one
		s.note("timer")
		return true
	}
	if len(s.parked) == 0 {
		return false
	}
	s.number()
	// Who arrived first while several ran is chance: the order is made by name.
	slices.SortStableFunc(s.parked, func(a, b *parked) int { return a.id - b.id })
	i := s.choose()
	p := s.parked[i]
	s.parked = slices.Delete(s.parked, i, i+1)
	s.note(fmt.Sprintf("%d:%s", p.id, p.name))
	close(p.next)
	return true
}

// number gives newcomers their ids, by the names of the points they came to.
func (s *scheduler) number() {
	var late []*parked
	for _, p := range s.parked {
		if p.id < 0 {
			late = append(late, p)
		}
	}
	slices.SortStableFunc(late, func(a, b *parked) int { return strings.Compare(a.name, b.name) })
	for _, p := range late {
		p.id = len(s.ids)
		s.ids[p.goroutine] = p.id
		s.rank = append(s.rank, 0)
	}
}

// choose picks one of the parked.
func (s *scheduler) choose() int {
	switch s.mode {
	case byPriority:
		return s.highest()
	case byNaps:
		return s.awake()
	}
	return s.rnd.IntN(len(s.parked))
}

func (s *scheduler) highest() int {
	best := 0
	for i, p := range s.parked {
		if s.rank[p.id] == 0 {
			s.rank[p.id] = 1 + s.rnd.Float64()
		}
		if s.rank[p.id] > s.rank[s.parked[best].id] {
			best = i
		}
	}
	id := s.parked[best].id
	if s.same++; id != s.lastID {
		s.same, s.lastID = 0, id
	}
	// It loses its rank at few places, and when it seems to spin.
	if s.rnd.IntN(40) == 0 || s.same > 200 {
		s.rank[id] = s.rnd.Float64()
	}
	return best
}

func (s *scheduler) awake() int {
	now := float64(s.steps)
	var up []int
	for i, p := range s.parked {
		if s.rank[p.id] <= now {
			if s.rnd.IntN(30) == 0 {
				s.rank[p.id] = now + float64(s.rnd.IntN(300))
			}
			up = append(up, i)
		}
	}
	if len(up) == 0 {
		return s.rnd.IntN(len(s.parked))
	}
	return up[s.rnd.IntN(len(up))]
}

func (s *scheduler) note(step string) {
	if len(s.trace) == traceLen {
		s.trace = append(s.trace[:0], s.trace[1:]...)
	}
	s.trace = append(s.trace, step)
}

// letGo ends the control: everybody runs as they like.
func (s *scheduler) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = true
	for _, p := range s.parked {
		close(p.next)
	}
	s.parked = nil
	for _, t := range s.timers {
		t.c <- s.now
	}
	s.timers = nil
}

// goroutine is the runtime's number of the calling goroutine.
func goroutine() uint64 {
	var b [64]byte
	line := b[:runtime.Stack(b[:], false)]
	line = bytes.TrimPrefix(line, []byte("goroutine "))
	n, _ := strconv.ParseUint(string(line[:bytes.IndexByte(line, ' ')]), 10, 64)
	return n
}

func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}
