// Package yield names the places where the order of goroutines matters, so that a
// test can choose it.
//
// # Where you are
//
// Below every room, importing none. In an ordinary build [Point] is nothing, [Now] and
// [NewTimer] are those of package time, and the compiler leaves no trace of them. With
// -tags schedule each of them asks the [Hook] that was set, if any; package
// fuzz/schedule sets one that lets a single goroutine run at a time, in an order made
// from a seed.
//
// # Always true
//
//   - Y1: a point changes nothing but who runs next. A goroutine may pass one with
//     locks held.
package yield
