//go:build linux

package mmap

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var pageSize = os.Getpagesize()

var touched atomic.Uint32

// mapFile maps part of a file, read-only. off is a multiple of the page size.
func mapFile(fd uintptr, off int64, n int) ([]byte, error) {
	return unix.Mmap(int(fd), off, n, unix.PROT_READ, unix.MAP_SHARED)
}

func unmap(b []byte) error { return unix.Munmap(b) }

// populate makes a mapping resident before user code touches it. A page that
// cannot be had is an error here, not a signal there.
func populate(b []byte) error {
	err := unix.Madvise(b, unix.MADV_POPULATE_READ)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return guard(b, func() error { // kernels before 5.14
			var sum byte
			for i := 0; i < len(b); i += pageSize {
				sum += b[i]
			}
			touched.Store(uint32(sum)) // or the loop is nothing
			return nil
		})
	}
	if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EHWPOISON) {
		return err
	}
	return nil // want of memory or a signal: the pages come when they are read
}

// giveBack lets the kernel have the pages of a mapping. What is read of it again
// comes from the page cache or the file.
func giveBack(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }

func isQuota(err error) bool { return errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) }
