package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// What only the operating system knows.

// allocated is what a file takes on disk. A log segment is as large as it was made
// and a sparse file smaller than it looks, so the size would mislead.
func allocated(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}

// ignoreGone is for walks of a store that somebody works on.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// killed says whether a finished process died of SIGKILL.
func killed(cmd *exec.Cmd) bool {
	s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGKILL
}

// residency is the memory of this process as the kernel counts it, in bytes; zeros
// where it does not say.
type residency struct {
	RSS  int64 `json:"rss"`
	Anon int64 `json:"anonymous"` // of it, not backed by a file
	Peak int64 `json:"peak"`
}

func readResidency() (r residency) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return r
	}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(string(f[1]), 10, 64)
		switch string(f[0]) {
		case "VmRSS:":
			r.RSS = kib << 10
		case "RssAnon:":
			r.Anon = kib << 10
		case "VmHWM:":
			r.Peak = kib << 10
		}
	}
	return r
}
