//go:build cgo && linux

package storage

/*
#include <stddef.h>
// Weak: other C libraries than glibc do not have it.
extern int malloc_trim(size_t) __attribute__((weak));
static void trim(void) { if (malloc_trim) malloc_trim(0); }
*/
import "C"

// TrimMemory gives the kernel back what the C allocator keeps and nobody uses: Pebble's
// block cache and buffers come from it, by way of one arena for each of many threads,
// and it returns little by itself.
func TrimMemory() { C.trim() }
