//go:build !cgo || !linux

package storage

// TrimMemory does nothing: Pebble's memory is the Go heap's here, or the allocator is
// not known.
func TrimMemory() {}
