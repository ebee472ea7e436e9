// Command bench measures Holdfast beside its peers: bare Pebble in every row, Badger,
// bbolt, goleveldb, SQLite, maps of Go and plain files where they take part.
//
// A row is measured in rounds of A-B-B-A, each arm in a fresh process and a fresh
// directory, so that drift of the machine meets both; what is reported is the
// median of the rounds' ratios. Every store gets the same data, the same memory
// and the same durability; in rows that say so the peer's memory is tuned until the
// kernel counts the same peak. Rows that lose stay in the table.
//
// It is a module of its own, so that the peers never reach a user's module graph.
// Start reading at row.go; the rows are in rows_*.go, a peer is a [store], and
// compare.go runs them.
package main
