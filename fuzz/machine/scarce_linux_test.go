package machine

import "testing"

// Goal: on a full disk reads go on and nothing is lost, and when there is room writes
// come back.
func TestScarce_fullDisks(t *testing.T) { play(t, FullDisks(host(t)), 2, 8) }

// Goal: under limits of the process the store works or says what it lacks, and loses
// nothing.
func TestScarce_limits(t *testing.T) { play(t, Limits(host(t)), 3, 24) }

// Goal: when its disk turns read-only the store does, too, and reads go on.
func TestExt4_readOnlyDisks(t *testing.T) { play(t, ReadOnlyDisks(host(t)), 2, 8) }
