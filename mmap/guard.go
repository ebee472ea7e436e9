package mmap

import (
	"runtime/debug"
	"unsafe"
)

// faulter is what the runtime panics with for a bad address under
// SetPanicOnFault.
type faulter interface {
	error
	Addr() uintptr
}

// fault is an access to a page of a mapping that is not there any more: the
// file was cut, or the disk could not read.
type fault struct{ err error }

func (f *fault) Error() string { return "page is gone: " + f.err.Error() }

func (f *fault) Unwrap() error { return f.err }

// guard runs f, which reads the region, and turns a fault inside the region
// into a *fault (M6). It works on this goroutine only. Everything else that f
// panics with goes on unchanged: a fault elsewhere is somebody else's.
func guard(region []byte, f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		switch r := recover().(type) {
		case nil:
		case faulter:
			if !contains(region, r.Addr()) {
				panic(r)
			}
			err = &fault{r}
		default:
			panic(r)
		}
	}()
	return f()
}

func contains(region []byte, addr uintptr) bool {
	if len(region) == 0 {
		return false
	}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(region)))
	// The mapping ends with its last page, not with the last byte asked for.
	end := (start + uintptr(len(region)) + uintptr(pageSize) - 1) &^ (uintptr(pageSize) - 1)
	return start <= addr && addr < end
}
