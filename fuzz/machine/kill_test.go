package machine

import "testing"

// Goal: nothing that was acknowledged is lost to SIGKILL, at any moment of a life, a
// recovery too.
func TestKill_anyMoment(t *testing.T) { play(t, Kills(host(t)), 2, 3) }
