package holdfast

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/holdfastdb/holdfast"

// arrows is the house: which rooms a room may import. An arrow that is not here is
// a change of the plan; it is made here and in docs/ARCHITECTURE.md, together.
var arrows = map[string][]string{
	"cow":          {},
	"wal":          {},
	"cache":        {},
	"storage":      {},
	"mmap":         {},
	"compaction":   {"cow", "storage", "mmap"},
	"engine":       {"wal", "cow", "cache", "storage", "mmap", "compaction"},
	"fuzz":         {"engine", "wal", "mmap", "cache"},
	"cmd/holdfast": {"engine", "fuzz"},
	everywhere:     {},
}

// everywhere may be imported by every room.
const everywhere = "yield"

// kit is the part of the fuzzing kit that knows no room, and what of ours each of it
// imports; the tests of any room may use it, and so may anybody else's.
var kit = map[string][]string{"fuzz/simfs": nil, "fuzz/oracle": nil, "fuzz/runner": {"fuzz/oracle"}}

// roomOf is the room that a package, named from the module's root, belongs to.
func roomOf(pkg string) string {
	if top, _, _ := strings.Cut(pkg, "/"); top != "cmd" {
		return top
	}
	return pkg
}

// pebbleProper may be imported by storage alone; the file system seam below it by
// every room.
const (
	pebbleProper = "github.com/cockroachdb/pebble"
	pebbleVFS    = "github.com/cockroachdb/pebble/v2/vfs"
)

// A room's own libraries: nobody else's code depends on them.
var owners = map[string]string{
	"github.com/dgraph-io/ristretto": "cache",
	"github.com/allegro/bigcache":    "cache",
	"unsafe":                         "mmap",
}

// borrowed are single files outside the owner's room that may use its library.
var borrowed = map[string]string{
	"cache/view.go": "unsafe", // a look-up in bigcache without a copy of the key
}

// Goal: arrows only point down, and each library has one room.
func TestDependencies(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != "." {
				return filepath.SkipDir // bench is a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		room := filepath.ToSlash(filepath.Dir(path))
		if room == "." {
			return nil
		}
		top := roomOf(room)
		allowed, known := arrows[top]
		if !known {
			t.Errorf("%s: room %q is not in the plan", path, room)
		}
		seen[top] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(path, "_test.go")
		for _, i := range f.Imports {
			name := strings.Trim(i.Path.Value, `"`)
			to, ours := strings.CutPrefix(name, module+"/")
			if below, alone := kit[room]; alone && ours && to != room && !slices.Contains(below, to) {
				t.Errorf("%s imports %s: who uses it on another store would have that, too", path, to)
			}
			if ours && to != top && !strings.HasPrefix(to, top+"/") {
				if _, free := kit[to]; to != everywhere && !slices.Contains(allowed, roomOf(to)) && !(test && free) {
					t.Errorf("%s imports %s: no such arrow", path, to)
				}
			}
			if test {
				continue // tests may look at a library from outside, benchmarks compare with it
			}
			if strings.HasPrefix(name, pebbleProper) && !strings.HasPrefix(name, pebbleVFS) && top != "storage" {
				t.Errorf("%s imports %s: only storage may", path, name)
			}
			for prefix, owner := range owners {
				if strings.HasPrefix(name, prefix) && top != owner && borrowed[filepath.ToSlash(path)] != prefix {
					t.Errorf("%s imports %s: only %s may", path, name, owner)
				}
			}
		}
		return nil
	})
	require.NoError(t, err)
	for room := range arrows {
		require.True(t, seen[room], "room %s has no code", room)
	}
}
