package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// hasContext refuses a nil context by name: the first look at it would panic, maybe on
// a goroutine where nobody can catch it (I12).
func hasContext(call string, ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("%w: %s: ctx is nil", ErrArgument, call)
	}
	return nil
}

// hasFunc refuses a View that nobody looks through.
func hasFunc(fn func(value []byte) error) error {
	if fn == nil {
		return fmt.Errorf("%w: View: fn is nil", ErrArgument)
	}
	return nil
}

// apart refuses a checkpoint to dst by way of tmp if it would write into the store:
// the next open would find a folder that no room knows, and a copy that grows while it
// is made. A tmp that is the store, or holds it, is worse: it is removed first.
func (e *Engine) apart(dst, tmp string) error {
	fs := e.opts.FS
	switch {
	case holds(fs, e.dir, dst):
		return fmt.Errorf("%w: Checkpoint: %s is the store, or lies in it", ErrArgument, dst)
	case holds(fs, tmp, e.dir):
		return fmt.Errorf("%w: Checkpoint: %s would be written as %s, which is the store, or holds it", ErrArgument, dst, tmp)
	}
	return nil
}

// holds says that path is dir, or lies below it. On the operating system's files it
// compares identities, so that links and other names of a folder hide nothing; a file
// system of somebody else's knows only names.
func holds(fs vfs.FS, dir, path string) bool {
	if vfs.Root(fs) != vfs.Default {
		rel, err := filepath.Rel("/"+dir, "/"+path)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
	}
	own, err := os.Stat(dir)
	if err != nil {
		return false // what is not there holds nothing
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // before resolved tidies up: behind a link, ".." is not its parent
	}
	for p := resolved(path); ; p = filepath.Dir(p) {
		if info, err := os.Stat(p); err == nil && os.SameFile(info, own) {
			return true
		}
		if p == filepath.Dir(p) {
			return false
		}
	}
}
