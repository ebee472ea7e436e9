package oracle

import (
	"errors"
	"fmt"
	"strings"
)

// Rule is one of the oracles O1 to O12.
type Rule uint8

const (
	Lost        Rule = iota + 1 // O1
	Hole                        // O2
	Torn                        // O3
	Resurrected                 // O4
	Unstable                    // O5
	Lied                        // O6
	NotLinear                   // O7
	Moved                       // O8
	Stale                       // O9
	Leaked                      // O10
	Stuck                       // O11
	Hushed                      // O12
)

var ruleNames = [...]string{
	Lost: "lost", Hole: "hole", Torn: "torn batch", Resurrected: "resurrected", Unstable: "recovery unstable",
	Lied: "wrong answer", NotLinear: "not linearizable", Moved: "snapshot moved", Stale: "stale read",
	Leaked: "leaked", Stuck: "stuck", Hushed: "error kept quiet",
}

// String is the rule's number and its name: "O1 lost".
func (r Rule) String() string {
	if int(r) < len(ruleNames) && r > 0 {
		return fmt.Sprintf("O%d %s", int(r), ruleNames[r])
	}
	return fmt.Sprintf("O%d", int(r))
}

// Verdict is a broken rule. What is empty is unknown.
type Verdict struct {
	Rule Rule
	Key  string
	LSN  uint64 // commit number
	Seed uint64
	What string // what came, and what should have come
	Err  error  // that the store gave
}

// Broken makes a verdict; format and args are those of fmt.Errorf, with %w for the
// store's error.
func Broken(rule Rule, key string, lsn uint64, format string, args ...any) *Verdict {
	err := fmt.Errorf(format, args...)
	return &Verdict{Rule: rule, Key: key, LSN: lsn, What: err.Error(), Err: errors.Unwrap(err)}
}

// Error is one line.
func (v *Verdict) Error() string {
	var b strings.Builder
	b.WriteString(v.Rule.String())
	if v.Key != "" {
		fmt.Fprintf(&b, ": key %.80q", v.Key)
	}
	if v.LSN != 0 {
		fmt.Fprintf(&b, ": commit %d", v.LSN)
	}
	if v.What != "" {
		b.WriteString(": " + strings.ReplaceAll(v.What, "\n", "; "))
	}
	if v.Seed != 0 {
		fmt.Fprintf(&b, " (seed %d)", v.Seed)
	}
	return b.String()
}

// Unwrap returns the store's error.
func (v *Verdict) Unwrap() error { return v.Err }

// WithSeed notes the seed in a verdict that err holds, and sees to it that the line
// names it; nil stays nil.
func WithSeed(err error, seed uint64) error {
	if err == nil {
		return nil
	}
	if v := (*Verdict)(nil); errors.As(err, &v) && v.Seed == 0 {
		v.Seed = seed
	}
	// What wraps the verdict may have made its text before the seed was known.
	if name := fmt.Sprintf("seed %d", seed); !named(err.Error(), name) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// named says whether text holds name, with no digit after it.
func named(text, name string) bool {
	for {
		_, rest, found := strings.Cut(text, name)
		if !found || rest == "" || rest[0] < '0' || rest[0] > '9' {
			return found
		}
		text = rest
	}
}
