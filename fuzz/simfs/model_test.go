package simfs

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// promises is a second, simpler bookkeeper that knows only the calls.
type promises struct {
	files map[string][]byte // name and bytes were synced and nothing touched them since
}

// Goal: what was synced, bytes and name, is in every image, and every image is legal
// by the checker, which works the other way round than the draw of an image.
func TestModel_images(t *testing.T) {
	runs := 150
	if testing.Short() {
		runs = 40
	}
	kept := 0
	for seed := range uint64(runs) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		o := Options{
			Ext4Like:          rnd.IntN(2) == 0,
			PessimisticRename: rnd.IntN(2) == 0,
			Damage:            Damage(rnd.IntN(4)),
		}
		fs := New(&o)
		p := player{fs: fs}
		pr := promises{files: map[string][]byte{}}
		steps := trace(rnd, 5+rnd.IntN(70))
		for _, s := range steps {
			err := p.do(s)
			pr.note(fs, s, &p, err)
		}
		c := fs.Cut()
		for cfg, img := range c.Images(seed, 15) {
			tree := img.Tree()
			require.NoError(t, c.Legal(tree), "seed %d, %+v, %v: trace %v", seed, o, cfg, steps)
			for path, data := range pr.files {
				kept++
				require.True(t, bytes.Equal(data, tree[path].Data), "seed %d, %v: %s was synced: trace %v", seed, cfg, path, steps)
			}
			require.Equal(t, 0, img.Cut().Unsynced())
			again := img.Crash(CrashConfig{Seed: seed})
			require.True(t, again.Tree().Equal(tree), "an image is synced")
		}
		p.close()
	}
	require.Greater(t, kept, runs)
}

// note keeps to what POSIX says: a file that was synced, under a name whose directory,
// and the directories above it, were synced, with no call to either since.
func (pr *promises) note(fs *FS, s step, p *player, err error) {
	switch s.op {
	case "syncdir":
		if err != nil || s.a != "/" {
			return
		}
		// Sync everything above and beside, the careful way, and take stock.
		for _, d := range slices.Sorted(slices.Values(traceDirs)) {
			if f, err := fs.OpenDir(d); err == nil {
				f.Sync()
				f.Close()
			}
		}
		for _, path := range traceFiles {
			f, err := fs.OpenReadWrite(path, cat)
			if err != nil {
				continue
			}
			f.Sync()
			f.Close()
		}
		for _, d := range append([]string{"/"}, traceDirs...) {
			if f, err := fs.OpenDir(d); err == nil {
				f.Sync()
				f.Close()
			}
		}
		for path, e := range fs.Tree() {
			if !e.Dir {
				pr.files[path] = e.Data
			}
		}
	case "sync", "syncdata", "syncto", "close", "prealloc":
	case "write", "writeat", "truncate":
		// It may have any of the names; whatever changed is out.
		tree := fs.Tree()
		for path, data := range pr.files {
			if !bytes.Equal(tree[path].Data, data) {
				delete(pr.files, path)
			}
		}
	default:
		for path := range pr.files {
			for _, name := range []string{s.a, s.b} {
				if name != "" && (path == name || strings.HasPrefix(path, name+"/") || strings.HasPrefix(name, path+"/")) {
					delete(pr.files, path)
				}
			}
		}
	}
}

// Goal: the checker refuses what no crash can leave.
func TestCut_Legal_refuses(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 6))
		fs := New(&Options{Damage: DamageNone})
		p := player{fs: fs}
		for _, s := range trace(rnd, 40) {
			p.do(s)
		}
		c := fs.Cut()
		tree := c.Image(CrashConfig{Seed: seed}).Tree()
		require.NoError(t, c.Legal(tree))
		tree["/nobody"] = Entry{Data: []byte("x")}
		require.Error(t, c.Legal(tree))
		delete(tree, "/nobody")
		for path, e := range tree {
			if e.Dir {
				continue
			}
			tree[path] = Entry{Data: append(bytes.Clone(e.Data), 1)} // longer than ever, but for an empty sector
			require.Error(t, c.Legal(tree), "%s", path)
			if len(e.Data) > 0 {
				broken := bytes.Clone(e.Data)
				broken[rnd.IntN(len(broken))] ^= 0x80
				tree[path] = Entry{Data: broken}
				require.Error(t, c.Legal(tree), "seed %d %s", seed, path)
			}
			tree[path] = e
		}
		p.close()
	}

	fs := New(nil)
	for _, p := range []string{"", "/", "x", "/x/", "/x/../y"} {
		require.ErrorContains(t, fs.Cut().Legal(Tree{p: {}}), "no path")
	}
	require.ErrorContains(t, fs.Cut().Legal(Tree{"/x/y": {}}), "in no directory")
	require.NoError(t, keep(t, fs, "a", []byte("a")).Close())
	syncDir(t, fs, "/")
	require.NoError(t, fs.Rename("a", "b"))
	for _, c := range []struct {
		fits  string
		files []string
	}{{"ok", []string{"/a"}}, {"ok", []string{"/b"}}, {"ok", []string{"/a", "/b"}}, {"older than something that stands on it", nil}} {
		tree := Tree{}
		for _, f := range c.files {
			tree[f] = Entry{Data: []byte("a")}
		}
		err := fs.Cut().Legal(tree)
		if c.fits == "ok" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.fits)
		}
	}
	syncDir(t, fs, "/")
	require.ErrorContains(t, fs.Cut().Legal(Tree{}), "is lost, and was durable")
}
