// Command damage hurts Holdfast and its peers in the same two ways, and says what each
// answered.
//
// Flips: a store is filled, closed or killed, and copied; in each copy one bit of one
// file is flipped, a child process opens it and reads everything, and what it answered
// is compared with what was written. Bits are drawn evenly from the pages of 4 KiB that
// hold anything but zeros, so many for each class of file, the same way for every
// store.
//
// Kills: a child writes with acknowledged, durable puts and is killed at a random
// time; the next child looks for what was acknowledged. The store lives through all of
// its kills.
//
// Every case runs in a process of its own with a bound on its time, since a peer may
// answer by ending the process. Outcomes are counted by the worst that happened in a
// case: a wrong value, then a key that is missing without an error, a process that
// ended, one that hung, a store that refused to open, an error of a read, all right.
//
// All stores have their own defaults, and durable writes. Start reading at main.go; a
// store is a [store].
package main
