package machine

import "testing"

// Goal: nothing that was acknowledged as durable is lost to a power cut of a real
// file system, at any moment, a recovery included; and what the process sees of its
// dying disk are errors of known types.
func TestExt4_powerCuts(t *testing.T) { play(t, PowerCuts(host(t)), 2, 2) }
