package simfs

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var ext4Traces = flag.Int("ext4.traces", 40, "random traces cut on a real ext4")
var ext4Options = flag.String("ext4.options", "loop", "mount options, with loop")
var ext4Seed = flag.Uint64("ext4.seed", 1, "seed of the first")

const ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN

// disk is a loop mount of its own. It skips the test where there can be none.
func disk(t *testing.T) (image, mount string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	dir := t.TempDir()
	image, mount = filepath.Join(dir, "img"), filepath.Join(dir, "mnt")
	require.NoError(t, os.Mkdir(mount, 0o755))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 64<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-J", "size=4", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4 does not work here: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", *ext4Options, image, mount).CombinedOutput(); err != nil {
		t.Skipf("no loop mount here: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", mount).Run() })
	return image, mount
}

// remount gives a mount its power back.
func remount(t *testing.T, image, mount string) {
	t.Helper()
	require.NoError(t, unix.Unmount(mount, 0))
	out, err := exec.Command("mount", "-o", *ext4Options, image, mount).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func cutPower(t *testing.T, mount string, how int) {
	t.Helper()
	d, err := os.Open(mount)
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, unix.IoctlSetPointerInt(int(d.Fd()), ext4Shutdown, how))
}

// Goal: whatever a real ext4 leaves after a power cut, the model allows. And a model
// that promises one sync more than there was is caught by it.
func TestExt4_legal(t *testing.T) {
	image, mount := disk(t)
	found := map[string]int{}
	for i := range *ext4Traces {
		seed := *ext4Seed + uint64(i)
		rnd := rand.New(rand.NewPCG(seed, 4))
		root := fmt.Sprintf("/t%d", seed)
		require.NoError(t, os.Mkdir(mount+root, 0o755))
		syncMount(t, mount)
		fs := New(&Options{Ext4Like: true, Damage: DamageNone})
		a, b := player{fs: fs}, player{fs: vfs.Default, root: mount + root}
		steps := trace(rnd, 8+rnd.IntN(50))
		for _, s := range steps {
			x, y := a.do(s), b.do(s)
			require.Equal(t, class(y), class(x), "seed %d: %v: ours %v, theirs %v", seed, s, x, y)
		}
		how := []int{2, 2, 1, 0}[rnd.IntN(4)]
		cut := fs.Cut()
		cutPower(t, mount, how)
		b.close()
		a.close()
		remount(t, image, mount)
		seen, err := ReadTree(vfs.Default, mount+root, nil)
		require.NoError(t, err)
		if err := cut.Legal(seen); err != nil {
			t.Errorf("seed %d, cut %d: %v\nleft:\n%s\nsimulated, nothing:\n%s\neverything:\n%s\ntrace:\n%s", seed, how, err, seen,
				cut.Image(CrashConfig{Image: Nothing}).Tree(), cut.Image(CrashConfig{Image: Everything}).Tree(), show(steps))
		}
		kind := "between"
		switch {
		case seen.Equal(fs.Tree()):
			kind = "everything"
		case seen.Equal(cut.Image(CrashConfig{Image: Nothing}).Tree()):
			kind = "nothing"
		}
		found[fmt.Sprintf("cut %d left %s", how, kind)]++
		require.NoError(t, os.RemoveAll(mount+root))
	}
	t.Logf("%d traces: %v", *ext4Traces, found)
}

func show(steps []step) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "%3d %s\n", i, s)
	}
	return b.String()
}

func syncMount(t *testing.T, mount string) {
	t.Helper()
	d, err := os.Open(mount)
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, unix.Syncfs(int(d.Fd())))
}
