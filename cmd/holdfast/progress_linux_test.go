package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal is a screen of 80 columns, and what was written to it once it is closed.
func terminal(t *testing.T) (screen *os.File, written func() string) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal to be had here: %v", err)
	}
	defer func() {
		if screen == nil {
			ours.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no terminal to be had here: unlock: %v", err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no terminal to be had here: number: %v", err)
	}
	theirs, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal to be had here: %v", err)
	}
	screen = theirs
	require.NoError(t, unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
	var all bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(&all, ours) // its end is EIO, when nobody has the screen open
	}()
	return screen, func() string {
		require.NoError(t, screen.Close())
		<-done
		require.NoError(t, ours.Close())
		return all.String()
	}
}

// left is what stands on the screen in the end.
func left(written string) string {
	var lines [][]rune
	var line []rune
	at := 0
	for _, c := range written {
		switch c {
		case '\r':
			at = 0
		case '\n':
			lines, line, at = append(lines, line), nil, 0
		default:
			for len(line) <= at {
				line = append(line, ' ')
			}
			line[at] = c
			at++
		}
	}
	var out strings.Builder
	for _, l := range append(lines, line) {
		out.WriteString(strings.TrimRight(string(l), " ") + "\n")
	}
	return strings.TrimRight(out.String(), "\n")
}

// drawn are the percentages that a bar showed, and each time that it was drawn.
func drawn(what, written string) (percent []int, times int) {
	for _, m := range regexp.MustCompile(`\r`+what+` +(\d+)% \|`).FindAllStringSubmatch(written, -1) {
		n, _ := strconv.Atoi(m[1]) // digits
		percent = append(percent, n)
	}
	return percent, len(regexp.MustCompile(`\r[^\r]*\b`+what+` `).FindAllString(written, -1))
}

// slowly takes everything, for longer than a bar waits until it is drawn again.
type slowly struct{ bytes.Buffer }

func (s *slowly) Write(p []byte) (int, error) {
	time.Sleep(6 * time.Millisecond)
	return s.Buffer.Write(p)
}

// Goal: on a terminal put and get show how far they are, of how much where that is known,
// and leave nothing of it behind; nothing is shown where the output is for a script, or is
// the terminal itself.
func TestProgress_onTerminal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	value := noise(4 << 20)
	on := func(in io.Reader, out io.Writer, args ...string) (written string) {
		t.Helper()
		screen, all := terminal(t)
		a := &app{in: in, out: out, err: screen}
		if out == nil {
			a.out = screen
		}
		code := a.execute(t.Context(), append(args, "-d", dir))
		written = all()
		require.Equal(t, exitOK, code, written)
		return written
	}
	file := func() *os.File {
		name := filepath.Join(t.TempDir(), "value")
		require.NoError(t, os.WriteFile(name, value, 0o600))
		in, err := os.Open(name)
		require.NoError(t, err)
		t.Cleanup(func() { in.Close() })
		return in
	}

	// A file: of so much.
	written := on(file(), io.Discard, "put", "file")
	percent, _ := drawn("put", written)
	require.NotEmpty(t, percent, "%q", written)
	require.Contains(t, written, "/4.2 MB")
	require.Empty(t, left(written))

	// A pipe: nobody knows of how much.
	in, feed, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	fed := make(chan error, 1)
	go func() {
		defer feed.Close()
		for part := range slices.Chunk(value, 2<<20) {
			if _, err := feed.Write(part); err != nil {
				fed <- err
				return
			}
			time.Sleep(150 * time.Millisecond)
		}
		fed <- nil
	}()
	written = on(in, io.Discard, "put", "pipe")
	require.NoError(t, <-fed)
	percent, times := drawn("put", written)
	require.Empty(t, percent, "%q", written)
	require.Greater(t, times, 1, "%q", written)
	require.Empty(t, left(written))

	// Into something slow: it goes up.
	var out slowly
	written = on(strings.NewReader(""), &out, "get", "file")
	require.True(t, bytes.Equal(value, out.Bytes()))
	percent, _ = drawn("get", written)
	require.Greater(t, len(percent), 1, "%q", written)
	require.True(t, slices.IsSorted(percent), "%v", percent)
	require.Greater(t, percent[len(percent)-1], percent[0])
	require.Contains(t, written, "/4.2 MB")
	require.Empty(t, left(written))

	out.Reset()
	written = on(strings.NewReader(""), &out, "get", "pipe", "--range", "1000:2000000")
	require.True(t, bytes.Equal(value[1000:2001000], out.Bytes()))
	require.Contains(t, written, "/2.0 MB")
	require.Empty(t, left(written))

	require.Empty(t, on(file(), io.Discard, "put", "script", "--json"))
	text := strings.Repeat("state ", 100_000)
	require.Empty(t, left(on(strings.NewReader(text), io.Discard, "put", "text")))
	require.True(t, text+"\r\n" == on(nil, nil, "get", "text"), "the value itself shows how far it is")
}
