package oracle

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Never is the end of a call that is in doubt: it may have happened at any moment since
// it began, or not at all. A model must let such a call happen after everything else.
const Never = math.MaxInt64

// Linear checks O7: there is one order of all calls, each between its begin and its end,
// in which model gives every answer that came back. name is of the keys that the calls
// touch; inputs with a String method are named in the verdict, and one with
// LSN() uint64 gives it the commit number. The search is exponential where many calls
// overlap: after patience it is given up, and decided is false.
func Linear(model porcupine.Model, ops []porcupine.Operation, name string, patience time.Duration) (decided bool, err error) {
	switch porcupine.CheckOperationsTimeout(model, ops, patience) {
	case porcupine.Ok:
		return true, nil
	case porcupine.Unknown:
		return false, nil
	}
	return true, explain(model, ops, name, patience)
}

// explain names the first call that no order found a place for.
func explain(model porcupine.Model, ops []porcupine.Operation, name string, patience time.Duration) error {
	_, info := porcupine.CheckOperationsVerbose(model, ops, patience)
	var longest []porcupine.Operation
	for _, part := range info.PartialLinearizationsOperations() {
		for _, order := range part {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	placed := map[any]bool{}
	for _, op := range longest {
		placed[id(op)] = true
	}
	var left []porcupine.Operation
	for _, op := range ops {
		if !placed[id(op)] && op.Return != Never {
			left = append(left, op)
		}
	}
	sort.Slice(left, func(i, j int) bool { return left[i].Return < left[j].Return })
	if len(left) == 0 {
		return Broken(NotLinear, name, 0, "no order explains %d calls", len(ops))
	}
	var tail []string
	for _, op := range longest[max(0, len(longest)-4):] {
		tail = append(tail, fmt.Sprint(op.Input))
	}
	var lsn uint64
	if c, ok := left[0].Input.(interface{ LSN() uint64 }); ok {
		lsn = c.LSN()
	}
	return Broken(NotLinear, name, lsn, "the longest order has %d of %d calls and no place for: %v; it ends: %s",
		len(longest), len(ops), left[0].Input, strings.Join(tail, ", "))
}

// id tells calls apart: one client makes one at a time.
func id(op porcupine.Operation) any {
	return [3]int64{int64(op.ClientId), op.Call, op.Return}
}
