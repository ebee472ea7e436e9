package machine

import "testing"

// Goal: a copy that was made by plain reads while the store was written is refused, or
// is some prefix of its commits; never wrong, and the original does not notice.
func TestCopy_openStore(t *testing.T) { play(t, Copies(host(t)), 2, 5) }
