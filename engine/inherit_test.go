package engine

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// openBelow lists the descriptors of a process that are files below dir.
func openBelow(t *testing.T, process, dir string) (names []string) {
	t.Helper()
	fds := filepath.Join("/proc", process, "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Skipf("nobody counts descriptors here: %v", err)
	}
	for _, fd := range entries {
		if name, err := os.Readlink(filepath.Join(fds, fd.Name())); err == nil && strings.HasPrefix(name, dir) {
			names = append(names, name)
		}
	}
	return names
}

// Goal (F-56): a process that the host starts while the store is open, in the middle of
// writes, flushes, reads of large values and a checkpoint, inherits none of its files.
// What it did inherit it would keep open: the lock above all, which belongs to the open
// file, and which nobody could take while that process lives.
func TestEngine_Close_childOutlives(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	dir = filepath.Join(dir, "store")
	e, err := Open(dir, small(Options{LargeValue: 4 << 10, Sync: SyncNever, SegmentBytes: 16 << 10}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("large"), make([]byte, 100_000)))
	require.NotEmpty(t, openBelow(t, "self", dir), "this process has some, or the test looks in a wrong place")

	stop := sync.OnceFunc(busy(t, e, 2))
	defer stop()
	v, err := e.OpenValue([]byte("large"))
	require.NoError(t, err)
	type child struct {
		cmd *exec.Cmd
		end func() error
	}
	var children []child
	for i := range 12 {
		if i%4 == 0 {
			require.NoError(t, e.Checkpoint(context.Background(), fmt.Sprintf("%s-copy%d", dir, i)))
		}
		// A shell says that it is there, so that the exec has happened, and waits.
		cmd := exec.Command("sh", "-c", "echo here; read line")
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		children = append(children, child{cmd, in.Close})
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "here\n", line)
		require.Empty(t, openBelow(t, fmt.Sprint(cmd.Process.Pid), dir), "child %d inherits files", i)
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", cmd.Process.Pid))
		require.NoError(t, err)
		require.NotContains(t, string(maps), dir, "child %d inherits mappings", i)
	}
	stop()
	require.NoError(t, v.Close())
	require.NoError(t, e.Close())
	// All of the children live, and the store is free.
	again, err := Open(dir, small(Options{}))
	require.NoError(t, err)
	require.Len(t, get(t, again, "large"), 100_000)
	require.NoError(t, again.Close())
	for _, c := range children {
		require.Nil(t, c.cmd.ProcessState, "it was to outlive the store")
		require.NoError(t, c.end())
		_ = c.cmd.Wait() // the shell's read met the end of its input
	}
}
