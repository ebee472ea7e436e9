package component

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// cutError says where a promise broke.
type cutError struct {
	moment, of, depth int
	cfg               simfs.CrashConfig
	err               error
}

func (e *cutError) Error() string {
	return fmt.Sprintf("life %d cut at call %d of %d, image %v: %v", e.depth, e.moment+1, e.of, e.cfg.Image, e.err)
}

func (e *cutError) Unwrap() error { return e.err }

// camera notes the disk before every call that changes something.
type camera[F any] struct {
	disk   *simfs.FS
	before func() F   // what is promised
	after  func(f *F) // what had begun by then

	mu      sync.Mutex
	over    bool
	moments []moment[F]
}

// moment is the disk at one call, and what was known then.
type moment[F any] struct {
	cut   *simfs.Cut
	facts F
}

func (c *camera[F]) fs() vfs.FS { return errorfs.Wrap(c.disk, c) }

func (c *camera[F]) String() string { return "camera" }

// MaybeError implements errorfs.Injector.
func (c *camera[F]) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
		c.shoot()
	}
	return nil
}

func (c *camera[F]) shoot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	f := c.before()
	cut := c.disk.Cut()
	c.after(&f)
	c.moments = append(c.moments, moment[F]{cut, f})
}

// end takes the last picture: the disk after the last call.
func (c *camera[F]) end() []moment[F] {
	c.shoot()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	return c.moments
}

// fill makes n bytes that name their maker: no two makers' bytes are alike in any
// eight of them.
func fill(n int, maker uint64) []byte {
	b := make([]byte, (n+7)&^7)
	for i := 0; i < len(b); i += 8 {
		maker = maker*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(b[i:], maker)
	}
	return b[:n]
}
