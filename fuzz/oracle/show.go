package oracle

import "fmt"

// show is a value for people: its beginning and its length.
func show(v string) string {
	if len(v) <= 40 {
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprintf("%.40q (%d bytes)", v, len(v))
}
