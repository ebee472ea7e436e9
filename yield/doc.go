// Package yield names the places where the order of goroutines matters, so that a
// test can choose it, and is where the rooms get time and chance from, so that a test
// can choose those, too.
//
// # Where you are
//
// Below every room, importing none. In an ordinary build [Point] is nothing, [Now] and
// [NewTimer] are those of package time, [Random] is crypto/rand, and the compiler leaves
// no trace of them. With -tags schedule each asks the [Hook] that was set, if any; package
// fuzz/schedule sets one that lets a single goroutine run at a time, in an order made
// from a seed.
//
// # Always true
//
//   - Y1: a point changes nothing but who runs next. A goroutine may pass one with
//     locks held.
//   - Y2: what reaches a file, and is not the caller's, comes from the caller's
//     calls, from Now or from Random: the same hook makes the same bytes.
package yield
