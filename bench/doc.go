// Command bench measures Holdfast beside its peers: bare Pebble in every row,
// Badger and bbolt where they take part.
//
// A row is measured in rounds of A-B-B-A, each arm in a fresh process and a fresh
// directory, so that drift of the machine meets both; what is reported is the
// median of the rounds' ratios. Every store gets the same data, the same memory
// and the same durability. Rows that lose stay in the table.
//
// It is a module of its own, so that the peers never reach a user's module graph.
// Start reading at rows.go; a peer is a [store].
package main
