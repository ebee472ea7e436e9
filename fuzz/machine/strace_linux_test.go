package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: a kill at any system call loses nothing.
func TestStrace_kills(t *testing.T) { play(t, SyscallKills(host(t)), 2, 15) }

// Goal: whatever call fails, the process lives, says so in errors of known types, and
// nothing that was acknowledged is lost.
func TestStrace_faults(t *testing.T) { play(t, SyscallFaults(host(t)), 3, 44) }

// Goal: a reader changes nothing.
func TestStrace_readOnly(t *testing.T) { play(t, ReadOnlyCalls(host(t)), 1, 4) }

// Goal: the watch over a reader knows a call that changes something when it sees one.
func TestStrace_changes(t *testing.T) {
	for line, want := range map[string]bool{
		`17 openat(AT_FDCWD</>, "/s/LOCK", O_RDONLY|O_CLOEXEC) = 3</s/LOCK>`:                 false,
		`17 openat(AT_FDCWD</>, "/s/LOCK", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = 3</s/LOCK>`:     true,
		`17 mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3</s/packs/1.pack>, 0) = 0x7f0000000000`: false,
		`17 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3</s/x>, 0) = 0x7f`:           true,
		`17 pwrite64(3</s/STATE>, "x", 1, 0) = 1`:                                            true,
		`17 unlinkat(AT_FDCWD</>, "/s/log/1", 0) = 0`:                                        true,
		`17 newfstatat(AT_FDCWD</>, "/s", {st_mode=S_IFDIR|0755, st_size=4096, ...}, 0) = 0`: false,
		`17 <... openat resumed>) = 3</s/LOCK>`:                                              false,
		`17 sync_file_range(8</s/STATE>, 0, 0, 0) = 0`:                                       false,
		`17 sync_file_range(8</s/STATE>, 0, 0, 0 <unfinished ...>`:                           false,
		`17 sync_file_range(8</s/STATE>, 0, 4096, SYNC_FILE_RANGE_WRITE) = 0`:                true,
		`17 fdatasync(3</s/STATE> <unfinished ...>`:                                          true,
	} {
		require.Equal(t, want, changes(line), line)
	}
}
