package damage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

const dir = "/store"

// Fixture is a small store with what it holds, and its life: enough to damage it in
// every way, and to tell what it may answer then. Two flushes, two opens; every class
// of file is in it.
type Fixture struct {
	Name    string
	Options engine.Options // without FS
	Image   Image
	Model   oracle.Model
	Gone    []string // keys that were deleted
	Commits []Commit // from the beginning; the first is the empty store
	Moments []Moment // earlier in its life
	Foreign Image    // of another store with the same history
	// Loose is true for a store that was killed: the newest frame of its log may be
	// covered by no promise, so a disk that destroys it takes back the last commit.
	Loose bool

	ever   map[string]map[string]bool // every value that a key ever had
	inMap  map[string]bool            // keys that the log has, and L3 has not
	inPack map[string][]string        // keys by the pack of their value
}

// Commit is the state after one commit.
type Commit struct {
	LSN   uint64
	Model oracle.Model
}

// Moment is the store's files at one time of its life, as a kill would leave them.
type Moment struct {
	Name  string
	Image Image
	LSN   uint64
}

// Ending is how a fixture's life ends.
type Ending uint8

const (
	Closed Ending = iota // by Close
	Young                // by Close, of its first open: L3's manifest ends with a flush
	Killed               // right after the last acknowledgement
	Idle                 // killed a little later, when the log has marked the last promise
)

var endings = [...]string{"closed", "closed young", "killed", "killed idle"}

func (e Ending) String() string { return endings[e] }

// Settings keep the files of a fixture as small as the engine allows: a segment of
// 16 KiB, values in packs from 4 KiB on.
var Settings = engine.Options{MemoryBudget: 16 << 20, DiskReserve: -1, LargeValue: 4 << 10, SegmentBytes: 16 << 10}

// NewFixture lives through a store's life on a file system in memory.
func NewFixture(o engine.Options, end Ending) (*Fixture, error) {
	f, err := live(o, end)
	if err != nil {
		return nil, fmt.Errorf("fixture %s: %w", end, err)
	}
	// L3 compacts by a clock of its own, so the names of two lives may differ.
	for range 50 {
		other, err := live(o, end)
		if err != nil {
			return nil, fmt.Errorf("fixture %s, foreign: %w", end, err)
		}
		if f.Foreign = other.Image; slices.Equal(f.Foreign.names(), f.Image.names()) {
			break
		}
	}
	return f, f.look()
}

// life is a fixture being made.
type life struct {
	*Fixture
	fs  vfs.FS
	e   *engine.Engine
	rnd *rand.Rand
}

func live(o engine.Options, end Ending) (_ *Fixture, err error) {
	l := &life{
		Fixture: &Fixture{
			Name: end.String(), Options: o, Model: oracle.NewModel(), Loose: end == Killed || end == Idle,
			ever: map[string]map[string]bool{}, inMap: map[string]bool{}, inPack: map[string][]string{},
		},
		fs: vfs.NewMem(), rnd: rand.New(rand.NewPCG(7, 7)),
	}
	l.Commits = []Commit{{0, l.Model.Copy()}}
	if err := errors.Join(l.open(), l.first()); err != nil {
		return nil, err
	}
	if err := errors.Join(l.e.Close(), l.moment("closed once")); err != nil {
		return nil, err
	}
	if end == Young {
		l.Image, l.Moments = l.Moments[len(l.Moments)-1].Image, l.Moments[:len(l.Moments)-1]
		return l.Fixture, nil
	}
	if err := errors.Join(l.open(), l.second()); err != nil {
		return nil, err
	}
	// The image of a killed store is taken first: Close seals the log.
	if end != Closed {
		l.Image, err = l.killed(end)
	}
	if err := errors.Join(err, l.e.Close()); err != nil {
		return nil, err
	}
	if end == Closed {
		l.Image, err = Read(l.fs, dir)
	}
	return l.Fixture, err
}

func (l *life) open() (err error) {
	o := l.Options
	o.FS = l.fs
	l.e, err = engine.Open(dir, &o)
	return err
}

// first is what the store does in its first open: two flushes, and a rest in the log.
func (l *life) first() error {
	raw := make([]byte, 4<<10)
	for i := range raw {
		raw[i] = byte(l.rnd.Uint32())
	}
	return errors.Join(
		l.puts(0, 10, "one"),
		l.put("blob-raw", string(raw)),
		l.moment("before a flush"),
		l.flush("flushed once"),
		l.puts(0, 5, "two"),
		l.put("blob-zip", strings.Repeat("compressible ", 330)),
		l.delete("k05"),
		l.deleteRange("k06", "k08"),
		l.flush("flushed twice"),
		l.puts(0, 2, "three"),
		l.delete("k02"),
	)
}

// second is what it does in its second open: all of it stays in the log.
func (l *life) second() error {
	return errors.Join(
		l.moment("opened again"),
		l.put("blob-new", strings.Repeat("later ", 700)),
		l.deleteRange("k03", "k04"),
		l.moment("near the end"),
		l.puts(0, 1, "four"),
		l.put("last", "the last commit"),
	)
}

func (l *life) puts(from, to int, v string) error {
	for i := from; i < to; i++ {
		if err := l.put(fmt.Sprintf("k%02d", i), fmt.Sprintf("%s of %d", v, i)); err != nil {
			return err
		}
	}
	return nil
}

func (l *life) put(k, v string) error {
	if l.ever[k] == nil {
		l.ever[k] = map[string]bool{}
	}
	l.ever[k][v] = true
	l.Model.Put(k, v)
	write := func(b *engine.Batch) error { return b.Put([]byte(k), []byte(v)) }
	if len(v) < l.Options.LargeValue {
		return l.apply(write)
	}
	before, err := l.settled(func(Image) bool { return true })
	if err = errors.Join(err, l.apply(write)); err != nil {
		return err
	}
	after, err := l.settled(func(Image) bool { return true })
	for name, b := range after {
		if strings.HasSuffix(name, ".pack") && len(b) != len(before[name]) {
			l.inPack[name] = append(l.inPack[name], k)
		}
	}
	return err
}

func (l *life) delete(k string) error {
	l.Gone = append(l.Gone, k)
	l.Model.Delete(k)
	return l.apply(func(b *engine.Batch) error { return b.Delete([]byte(k)) })
}

func (l *life) deleteRange(lower, upper string) error {
	r := oracle.Bounds{Lower: lower, Upper: upper}
	for _, kv := range l.Model.List(r, false) {
		l.Gone = append(l.Gone, kv[0])
	}
	l.Model.DeleteRange(r)
	return l.apply(func(b *engine.Batch) error { return b.DeleteRange([]byte(lower), []byte(upper)) })
}

func (l *life) apply(change func(b *engine.Batch) error) error {
	b := l.e.NewBatch()
	defer b.Close()
	if err := change(b); err != nil {
		return err
	}
	lsn, err := l.e.Apply(b)
	l.Commits = append(l.Commits, Commit{lsn, l.Model.Copy()})
	return err
}

func (l *life) flush(name string) error {
	return errors.Join(l.e.Flush(context.Background()), l.moment(name))
}

// moment keeps the files of now, once the background has come to rest.
func (l *life) moment(name string) error {
	im, err := l.settled(func(Image) bool { return true })
	l.Moments = append(l.Moments, Moment{name, im, l.Commits[len(l.Commits)-1].LSN})
	return err
}

// settled reads the files until two readings in a row are the same, and fit.
func (l *life) settled(fits func(Image) bool) (Image, error) {
	var last Image
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		im, err := Read(l.fs, dir)
		if err != nil {
			continue // a file went while it was read
		}
		if last != nil && len(last.Changed(im)) == 0 && fits(im) {
			return im, nil
		}
		last = im
	}
	return nil, errors.New("the files do not come to rest")
}

// killed is the store as it is now, with or without the mark of an idle log.
func (l *life) killed(end Ending) (Image, error) {
	if end == Idle {
		return l.settled(func(im Image) bool { return marked(im) && spare(im) })
	}
	for i := range 100 {
		if i > 0 { // the mark was faster than we
			if err := l.put("last", fmt.Sprintf("the last commit, try %d", i)); err != nil {
				return nil, err
			}
		}
		im, err := Read(l.fs, dir)
		if err == nil && !marked(im) && spare(im) {
			return im, nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, errors.New("no image without a mark")
}

// newest is the log's newest segment with a frame in it.
func newest(im Image) (name string) {
	for _, n := range im.Files() {
		if strings.HasSuffix(n, ".wal") && len(frames(im[n])) > 0 {
			name = n
		}
	}
	return name
}

func marked(im Image) bool {
	fr := frames(im[newest(im)])
	return len(fr) > 0 && fr[len(fr)-1].kind == kindMarker
}

// spare says that there is a segment without a frame.
func spare(im Image) bool {
	for _, n := range im.Files() {
		if strings.HasSuffix(n, ".wal") && len(frames(im[n])) == 0 {
			return true
		}
	}
	return false
}

// look opens the fixture as it is, checks it, and asks where each key lives.
func (f *Fixture) look() (err error) {
	e, _, err := f.open(f.Image, func(o *engine.Options) { o.ReadOnly = true })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	f.Model.Scan(func(k, _ string) bool {
		info, serr := e.Stat([]byte(k))
		f.inMap[k] = info.Tier == engine.TierMap
		err = errors.Join(err, serr)
		return true
	})
	return errors.Join(err, f.Model.Check(fuzz.Store{R: e}, oracle.Bounds{}, false), e.Check(context.Background()))
}

// open lays an image down on a file system of its own and opens it.
func (f *Fixture) open(im Image, set func(o *engine.Options)) (*engine.Engine, vfs.FS, error) {
	fs := vfs.NewMem()
	if err := im.Write(fs, dir); err != nil {
		return nil, nil, err
	}
	e, err := f.reopen(fs, set)
	return e, fs, err
}

func (f *Fixture) reopen(fs vfs.FS, set func(o *engine.Options)) (*engine.Engine, error) {
	o := f.Options
	o.FS = fs
	if set != nil {
		set(&o)
	}
	return engine.Open(dir, &o)
}

// at is the state at a commit number.
func (f *Fixture) at(lsn uint64) oracle.Model {
	i, found := slices.BinarySearchFunc(f.Commits, lsn, func(c Commit, lsn uint64) int { return int(int64(c.LSN) - int64(lsn)) })
	if !found {
		i--
	}
	return f.Commits[i].Model
}

// Size is how many bytes there are to damage.
func (f *Fixture) Size() (n int) {
	for _, b := range f.Image {
		n += len(b)
	}
	return n
}

// packs are the names of the packs that hold values.
func (f *Fixture) packs() []string { return slices.Sorted(maps.Keys(f.inPack)) }
