//go:build !linux

package machine

import (
	"context"
	"errors"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

var errLinux = errors.New("needs Linux")

func limit(j *Job) error {
	if j.Files > 0 || j.FileBytes > 0 {
		return errLinux
	}
	return nil
}

// never is a runner that cannot run here.
func never(name, about string) runner.Runner {
	return runner.Runner{
		Name: name, About: about,
		Ready: func() error { return errLinux },
		Case:  func(context.Context, uint64) (runner.Counts, error) { return nil, errLinux },
	}
}

func PowerCuts(Host) runner.Runner {
	return never("power cuts on ext4", "EXT4_IOC_SHUTDOWN under a writing process, journal replay, reopen")
}

func ReadOnlyDisks(Host) runner.Runner {
	return never("read-only disks", "an ext4 that turns read-only under the store; reads go on")
}

func SyscallKills(Host) runner.Runner {
	return never("kills at system calls", "SIGKILL at the nth system call that changes the store")
}

func SyscallFaults(Host) runner.Runner {
	return never("failing system calls", "EIO, ENOSPC, EMFILE, ENOMEM from the nth call on; typed errors, nothing lost")
}

func ReadOnlyCalls(Host) runner.Runner {
	return never("read-only under strace", "a reader makes no system call that changes the store")
}

func FullDisks(Host) runner.Runner {
	return never("full disks", "a real ENOSPC, of bytes and of inodes; reads go on, writes come back")
}

func Limits(Host) runner.Runner {
	return never("process limits", "few descriptors, short files: typed errors or it works, nothing lost")
}

func OutOfMemory(Host) runner.Runner {
	return never("out of memory", "the kernel kills a writer whose cgroup is full; nothing acknowledged is lost")
}

func (h Host) memory() (dir string, remove func(), err error) { return h.scratch() }
