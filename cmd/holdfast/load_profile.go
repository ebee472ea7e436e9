package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
)

// profiles are written for each phase of a run, into folders; an empty one is for none.
type profiles struct{ pprofDir, traceDir string }

const (
	blockRate  = 10_000 // nanoseconds of blocking for a sample
	mutexShare = 100    // one of so many contentions
)

func (p profiles) prepare() error {
	for _, dir := range []string{p.pprofDir, p.traceDir} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// start begins to look; stop writes what was seen.
func (p profiles) start(phase string) (stop func() error, err error) {
	var ends []func() error
	stop = func() error {
		var errs []error
		for _, end := range ends {
			errs = append(errs, end())
		}
		return errors.Join(errs...)
	}
	if p.pprofDir != "" {
		name := func(what string) string { return filepath.Join(p.pprofDir, phase+"."+what+".pprof") }
		f, err := os.Create(name("cpu"))
		if err != nil {
			return nil, err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, errors.Join(fmt.Errorf("CPU profile: %w", err), f.Close())
		}
		runtime.SetBlockProfileRate(blockRate)
		runtime.SetMutexProfileFraction(mutexShare)
		ends = append(ends, func() error {
			pprof.StopCPUProfile()
			errs := []error{f.Close()}
			for _, what := range []string{"heap", "block", "mutex"} {
				errs = append(errs, writeProfile(name(what), what))
			}
			runtime.SetBlockProfileRate(0)
			runtime.SetMutexProfileFraction(0)
			return errors.Join(errs...)
		})
	}
	if p.traceDir != "" {
		f, err := os.Create(filepath.Join(p.traceDir, phase+".trace"))
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		if err := trace.Start(f); err != nil {
			return nil, errors.Join(fmt.Errorf("execution trace: %w", err), f.Close(), stop())
		}
		ends = append(ends, func() error {
			trace.Stop()
			return f.Close()
		})
	}
	return stop, nil
}

// writeProfile writes one of the runtime's profiles. Those of blocking and mutexes are
// since the process began.
func writeProfile(name, what string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if what == "heap" {
		runtime.GC() // what lives now, and not what lived at the last collection
	}
	return errors.Join(pprof.Lookup(what).WriteTo(f, 0), f.Close())
}
