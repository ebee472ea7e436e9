package cache

import "unsafe"

// view is the bytes as a string, for a call that only looks at it and keeps
// nothing: bigcache wants a string to look up, and making one would be a
// fourth allocation for a hit in L2. The bytes must not change meanwhile.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
