package main

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfastdb/holdfast/engine"
)

// treePlan is a directory tree as a fuzzer's bytes tell it: pairs of a path and of what
// stands there, all ended by zeros. The first byte of the second part is the kind: d a
// folder, o the folder of the store itself, l a link to the rest, p a pipe, and anything
// else a file that holds the rest.
type treePlan struct {
	dirs    map[string]bool
	files   map[string]string
	special map[string]bool
	own     string // the store's folder, or empty
}

// mayStand says that nothing is at name yet, and nothing but folders above it: no link
// is ever followed, so nothing is made outside of the tree.
func (p *treePlan) mayStand(name string) bool {
	if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." || len(name) > 2000 {
		return false
	}
	for above := name; above != "."; above = path.Dir(above) {
		_, file := p.files[above]
		if file || p.special[above] || above == name && p.dirs[name] || len(path.Base(above)) > 255 {
			return false
		}
	}
	return true
}

// grow makes the tree below root.
func (p *treePlan) grow(t *testing.T, root string, input []byte) {
	t.Helper()
	parts := bytes.Split(input, []byte{0})
	for n := 0; n+1 < len(parts) && n < 64; n += 2 {
		name, what := string(parts[n]), string(parts[n+1])
		if !p.mayStand(name) {
			continue
		}
		at, rest := root+"/"+name, what[min(1, len(what)):]
		if err := os.MkdirAll(path.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		for above := path.Dir(name); above != "."; above = path.Dir(above) {
			p.dirs[above] = true
		}
		var err error
		switch {
		case strings.HasPrefix(what, "d"), strings.HasPrefix(what, "o"):
			err = os.Mkdir(at, 0o755)
			if p.dirs[name] = true; what[0] == 'o' && p.own == "" {
				p.own = name
			}
		case strings.HasPrefix(what, "l") && rest != "" && len(rest) < 4000:
			err = os.Symlink(rest, at)
			p.special[name] = true
		case strings.HasPrefix(what, "p"):
			err = syscall.Mkfifo(at, 0o644)
			p.special[name] = true
		default:
			err = os.WriteFile(at, []byte(rest), 0o644)
			p.files[name] = rest
		}
		if err != nil {
			t.Fatalf("make %q: %v", name, err)
		}
	}
}

func (p *treePlan) ofStore(name string) bool {
	return p.own != "" && strings.HasPrefix(name, p.own+"/")
}

// Goal: whatever a tree looks like, each file in it becomes the key that its path says,
// byte for byte, with its content, or is a bad entry that is named; links and pipes are
// counted and never followed, the store does not import itself, and a tree that is
// reached by a link is the same tree.
func FuzzImportTree(f *testing.F) {
	e := importStore(f)
	f.Add([]byte("a\x00fcontent\x00b/c\x00f\x00"), uint8(0), false)
	f.Fuzz(func(t *testing.T, input []byte, room uint8, linked bool) {
		base := t.TempDir()
		root, own := base+"/tree", base+"/store"
		for _, d := range []string{root, own} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		p := &treePlan{dirs: map[string]bool{}, files: map[string]string{}, special: map[string]bool{}}
		p.grow(t, root, input)
		if p.own != "" {
			own = root + "/" + p.own
		}
		if linked {
			if err := os.Symlink("tree", base+"/link"); err != nil {
				t.Fatal(err)
			}
			root = base + "/link"
		}
		prefix := "p/"
		if room > 0 { // for so many bytes of a path, and no more
			prefix = strings.Repeat("p", engine.MaxKey-int(room))
		}
		want, entries, skipped := map[string]string{}, 0, 0
		for name, content := range p.files {
			if p.ofStore(name) {
				continue
			}
			entries++
			if len(prefix)+len(name) <= engine.MaxKey {
				want[prefix+name] = content
			}
		}
		for name := range p.special {
			if !p.ofStore(name) {
				skipped++
			}
		}
		keys, sum := judged(t, e, root, func(i *importer) error {
			i.prefix = prefix
			return i.tree(root, own)
		}, entries)
		for k, v := range want {
			if got, ok := keys[k]; !ok || got != v {
				t.Fatalf("key %.80q is %.80q (%v), its file holds %.80q", k, got, ok, v)
			}
		}
		if len(keys) != len(want) || int(sum.Skipped) != skipped || int(sum.Bad) != entries-len(want) {
			t.Fatalf("%d keys and %d files; skipped %d of %d; %d bad", len(keys), len(want), sum.Skipped, skipped, sum.Bad)
		}
	})
}
