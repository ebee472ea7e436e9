// Package torture is the list of all runners. It is what "holdfast torture" runs.
//
// # Where you are
//
// The top of the fuzzing kit: it imports every runner and adds none.
package torture
