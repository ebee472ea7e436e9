package engine

import (
	"runtime/metrics"
	"time"
)

// RuntimeMetrics is what the Go runtime says of the whole process, of which the engine
// is a part. Reading it stops nobody. What this runtime does not measure is zero.
type RuntimeMetrics struct {
	// GCShare is the share, 0 to 1, that the garbage collector had in the CPU time that
	// the process used since it began. It changes when a collection ends.
	GCShare    float64
	Goroutines uint64

	// LockWait adds up, over all goroutines, the time that they waited for a
	// sync.Mutex, a sync.RWMutex or a lock of the runtime's.
	LockWait time.Duration

	HeapLive     int64 // bytes that the last collection found in use
	HeapTotal    int64 // bytes of the heap: in use, dead, free, and given back
	HeapReleased int64 // of it, bytes given back to the operating system
}

// The names are documented in package runtime/metrics.
const (
	gcCPU        = "/cpu/classes/gc/total:cpu-seconds"
	allCPU       = "/cpu/classes/total:cpu-seconds"
	idleCPU      = "/cpu/classes/idle:cpu-seconds"
	goroutines   = "/sched/goroutines:goroutines"
	mutexWait    = "/sync/mutex/wait/total:seconds"
	heapLive     = "/gc/heap/live:bytes"
	heapObjects  = "/memory/classes/heap/objects:bytes"
	heapUnused   = "/memory/classes/heap/unused:bytes"
	heapFree     = "/memory/classes/heap/free:bytes"
	heapReleased = "/memory/classes/heap/released:bytes"
)

// collectorTime is the CPU seconds that the collector used, and the process with it, up to
// the end of its last turn.
func collectorTime() (collector, process float64) {
	s := []metrics.Sample{{Name: gcCPU}, {Name: allCPU}, {Name: idleCPU}}
	metrics.Read(s)
	return gauge(s[0]), gauge(s[1]) - gauge(s[2])
}

func readRuntime() RuntimeMetrics {
	samples := []metrics.Sample{
		{Name: gcCPU}, {Name: allCPU}, {Name: idleCPU}, {Name: goroutines}, {Name: mutexWait},
		{Name: heapLive}, {Name: heapObjects}, {Name: heapUnused}, {Name: heapFree}, {Name: heapReleased},
	}
	metrics.Read(samples)
	return runtimeMetrics(samples)
}

func runtimeMetrics(samples []metrics.Sample) (m RuntimeMetrics) {
	v := make(map[string]float64, len(samples))
	for _, s := range samples {
		switch s.Value.Kind() { // a name that this runtime does not know has KindBad
		case metrics.KindUint64:
			v[s.Name] = float64(s.Value.Uint64()) // exact below 8 PiB
		case metrics.KindFloat64:
			v[s.Name] = s.Value.Float64()
		}
	}
	if used := v[allCPU] - v[idleCPU]; used > 0 {
		m.GCShare = min(v[gcCPU]/used, 1)
	}
	m.Goroutines = uint64(v[goroutines])
	m.LockWait = time.Duration(v[mutexWait] * float64(time.Second))
	m.HeapLive = int64(v[heapLive])
	m.HeapReleased = int64(v[heapReleased])
	m.HeapTotal = int64(v[heapObjects]+v[heapUnused]+v[heapFree]) + m.HeapReleased
	return m
}
