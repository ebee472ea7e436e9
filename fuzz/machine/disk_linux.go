package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a file system of its own. Only its maker may use it.
type disk struct {
	image string // empty: in memory
	dir   string // where it is mounted
}

// mountReady says why there can be no mounts; it tries once.
var mountReady = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root to mount")
	}
	for _, tool := range []string{"mkfs.ext4", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s", tool)
		}
	}
	h := Host{}
	dir, remove, err := h.memory()
	if err != nil {
		return err
	}
	defer remove()
	d, err := newExt4(context.Background(), dir, 16)
	if err != nil {
		return err
	}
	if err := d.cut(goingNoLogFlush); err != nil {
		return errors.Join(fmt.Errorf("no way to cut the power of an ext4: %w", err), d.close())
	}
	return d.close()
})

// memory is a directory of its own for the image of a disk: in memory where it can be,
// so that a sync costs what it costs that file system, and nobody waits for the disk
// below.
func (h Host) memory() (dir string, remove func(), err error) {
	const shm = "/dev/shm"
	if h.Scratch == "" && unix.Access(shm, unix.W_OK) == nil {
		h.Scratch = shm
	}
	return h.scratch()
}

// newExt4 makes an ext4 of so many MiB in a file of dir, and mounts it. A failed
// journal turns it read-only, as it does on most systems.
func newExt4(ctx context.Context, dir string, mib int64) (*disk, error) {
	d := &disk{image: filepath.Join(dir, "image"), dir: filepath.Join(dir, "disk")}
	if err := errors.Join(os.Mkdir(d.dir, 0o755), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, mib<<20)); err != nil {
		return nil, err
	}
	if err := tool(ctx, "mkfs.ext4", "-q", "-e", "remount-ro", "-J", "size=4", d.image); err != nil {
		return nil, err
	}
	if err := d.mount(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

func (d *disk) mount(ctx context.Context) error {
	return tool(ctx, "mount", "-t", "ext4", "-o", "loop", d.image, d.dir)
}

// newTmpfs mounts a file system in memory: of so many bytes, and for so many files
// and directories, zero: many.
func newTmpfs(dir string, bytes, inodes int64) (*disk, error) {
	d := &disk{dir: filepath.Join(dir, "disk")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return nil, err
	}
	options := fmt.Sprintf("size=%d", bytes)
	if inodes > 0 {
		options += fmt.Sprintf(",nr_inodes=%d", inodes)
	}
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", 0, options); err != nil {
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	return d, nil
}

// How the power goes, as EXT4_IOC_SHUTDOWN counts it.
const (
	goingDefault    = 0 // after everything was written
	goingLogFlush   = 1 // after the journal was
	goingNoLogFlush = 2 // now
)

const ext4Shutdown = 0x8004587d

// cut ends all writing. What the file system had not sent to its device is gone once
// it is mounted again; until then calls fail.
func (d *disk) cut(how int) error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, how)
}

// unmount waits for the last descriptor of a dead process to be gone.
func (d *disk) unmount() error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		err := unix.Unmount(d.dir, 0)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			if err != nil {
				err = fmt.Errorf("unmount: %w", err)
			}
			return err
		}
	}
}

// close unmounts, later if it must (M3). An unmounted disk is no error.
func (d *disk) close() error {
	if err := d.unmount(); err != nil && !errors.Is(err, unix.EINVAL) {
		return unix.Unmount(d.dir, unix.MNT_DETACH)
	}
	return nil
}
