//go:build !linux

package mmap

import (
	"errors"
	"os"
)

var pageSize = os.Getpagesize()

// Elsewhere reads go through pread: slower, and the same results.
func mapFile(uintptr, int64, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmap([]byte) error { return nil }

func populate([]byte) error { return nil }

func giveBack([]byte) error { return nil }

func isQuota(error) bool { return false }
