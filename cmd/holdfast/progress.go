package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far a long command is, on a terminal only: a log wants the
// summary and not the way there.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress expects total bytes; below zero the total is unknown.
func (a *app) newProgress(what string, total int64) *progress {
	if a.json || !isTerminal(a.err) {
		return &progress{}
	}
	return &progress{bar: newBar(a.err, what, total)}
}

func newBar(w io.Writer, what string, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(30),
		progressbar.OptionSpinnerType(14),
		progressbar.OptionClearOnFinish(),
	)
}

// sizeOfFile is how much a reader has to give if it is a file, else unknown.
func sizeOfFile(r io.Reader) int64 {
	if f, ok := r.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
			return fi.Size()
		}
	}
	return -1
}

// add counts bytes. A screen that cannot be written to is no reason to stop.
func (p *progress) add(bytes int64) {
	if p.bar != nil {
		_ = p.bar.Add64(bytes)
	}
}

// done takes the bar off the screen.
func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
