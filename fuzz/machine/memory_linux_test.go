package machine

import "testing"

// Goal: nothing that was acknowledged is lost when the kernel kills a writer that has
// used up its memory, whatever it was doing.
func TestKill_outOfMemory(t *testing.T) { play(t, OutOfMemory(host(t)), 1, 3) }
