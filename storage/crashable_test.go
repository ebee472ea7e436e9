package storage

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// crashable is Pebble's file system in memory with one of its traps taken out: Link
// takes the lock that CrashClone wants twice, so a clone beside a link can hang both.
type crashable struct {
	*vfs.MemFS
	mu sync.Mutex
}

func newCrashable() *crashable { return &crashable{MemFS: vfs.NewCrashableMem()} }

func (c *crashable) Link(oldname, newname string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.MemFS.Link(oldname, newname)
}

func (c *crashable) CrashClone(cfg vfs.CrashCloneCfg) *vfs.MemFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.MemFS.CrashClone(cfg)
}
