// Command sim replays workloads on the real cache in several designs, and on
// otter as a yardstick, all with the same memory, and prints hit ratios and what
// a read would cost.
//
//	go run ./sim -suite quick
//
// A design is options of [cache.New]; a workload is a trace of keys. The values
// are JSON of 100 B to 4 KB that compress as records of one schema do. The first
// half of a trace warms the tiers up, the second half is counted. The cost of a
// read is a model (see cost): what a miss costs is a matter of the machine, and
// the ratios are not.
//
// Start reading at main.go; what is compared is in designs.go and traces.go.
package main
