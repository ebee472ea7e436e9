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

func readResidency() residency {
	n := procNumbers("/proc/self/status")
	return residency{RSS: n["VmRSS"] << 10, Anon: n["RssAnon"] << 10, Peak: n["VmHWM"] << 10}
}

// diskTraffic is what the process read and wrote, as the kernel counts it: calls with
// what the page cache answered, and what reached a device. Zeros where it does not say.
type diskTraffic struct {
	Read         int64 `json:"read"`
	Written      int64 `json:"written"`
	FromDevice   int64 `json:"from_device"`
	TowardDevice int64 `json:"toward_device"`
}

func readTraffic() diskTraffic {
	n := procNumbers("/proc/self/io")
	return diskTraffic{n["rchar"], n["wchar"], n["read_bytes"], n["write_bytes"]}
}

func (d diskTraffic) since(o diskTraffic) diskTraffic {
	return diskTraffic{d.Read - o.Read, d.Written - o.Written, d.FromDevice - o.FromDevice, d.TowardDevice - o.TowardDevice}
}

// procNumbers are the lines "name: number" of one of the kernel's tables; none where
// there is no such table.
func procNumbers(name string) map[string]int64 {
	numbers := make(map[string]int64)
	b, err := os.ReadFile(name)
	if err != nil {
		return numbers
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) > 1 {
			if n, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
				numbers[string(bytes.TrimSuffix(f[0], []byte(":")))] = n
			}
		}
	}
	return numbers
}
