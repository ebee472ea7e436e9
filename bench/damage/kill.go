package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"
)

// childLimit is how long a child may take before it counts as hung.
const childLimit = 30 * time.Second

// ended is how a child ended.
type ended struct {
	stdout, stderr       string
	err                  error
	killed, hung, failed bool
}

func command(what, name, dir string, arg int) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return exec.Command(self, "-child", what, "-store", name, "-dir", dir, "-arg", fmt.Sprint(arg))
}

// runChild runs one to its end, or to childLimit.
func runChild(what, name, dir string, arg int, stdin []byte) (e ended) {
	c := command(what, name, dir, arg)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr, c.Stdin = &out, &errs, bytes.NewReader(stdin)
	if e.err = c.Start(); e.err != nil {
		e.failed = true
		return e
	}
	late := time.AfterFunc(childLimit, func() { _ = c.Process.Kill() })
	e.err = c.Wait()
	e.hung = !late.Stop()
	e.stdout, e.stderr = out.String(), errs.String()
	e.killed = c.ProcessState.String() == "signal: killed"
	e.failed = c.ProcessState.ExitCode() == childFailed
	return e
}

// killRow is a line of the second table.
type killRow struct {
	Store   string   `json:"store"`
	Kills   int      `json:"kills"`
	Acked   int      `json:"acknowledged"`
	Lost    int      `json:"lost"` // missing, wrong or unreadable
	Refused int      `json:"refused"`
	Exits   int      `json:"exits"`
	Hangs   int      `json:"hangs"`
	Notes   []string `json:"notes,omitempty"`
}

// kills writes to one store and kills the writer, n times, and looks each time for
// everything that was ever acknowledged.
func kills(s storeKind, n int, seed uint64) (row killRow, err error) {
	row.Store = s.name
	dir, err := os.MkdirTemp("", "holdfast-damage-")
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rnd := rand.New(rand.NewPCG(seed, 1))
	var acked bytes.Buffer
	next := 0
	for range n {
		highest, refusal, err := killOnce(s, dir, next, time.Duration(20+rnd.IntN(400))*time.Millisecond, &acked)
		if err != nil {
			return row, err
		}
		next = highest + 10 // what was not acknowledged may be there, too
		row.Kills++
		c := runChild("acked", s.name, dir, 0, acked.Bytes())
		a, ok := parseAnswer(c.stdout)
		switch {
		case c.hung:
			row.Hangs++
		case refusal != "" || a.Refused:
			row.Refused++
			a.Example += refusal
		case !ok || c.err != nil:
			row.Exits++
			a.Example = lastCause(c.stderr)
		}
		row.Lost += a.Missing + a.Wrong + a.Errors
		if a.Example != "" && len(row.Notes) < 3 {
			row.Notes = append(row.Notes, a.Example)
			fmt.Fprintf(os.Stderr, "%s: kill %d: %s\n", s.name, row.Kills, a.Example)
		}
		if refusal != "" || a.Refused || a.Missing > 0 {
			break // what follows would count the same again
		}
	}
	row.Acked = bytes.Count(acked.Bytes(), []byte("\n"))
	fmt.Fprintf(os.Stderr, "%s: %d kills, %d acknowledged, %d lost\n", s.name, row.Kills, row.Acked, row.Lost)
	return row, nil
}

// killOnce starts a writer and kills it so long after its first acknowledgement. What
// it acknowledged before it died is in the pipe, whole.
func killOnce(s storeKind, dir string, from int, after time.Duration, acked *bytes.Buffer) (highest int, refusal string, err error) {
	c := command("write", s.name, dir, from)
	var errs bytes.Buffer
	c.Stderr = &errs
	pipe, err := c.StdoutPipe()
	if err != nil {
		return 0, "", err
	}
	if err := c.Start(); err != nil {
		return 0, "", err
	}
	late := time.AfterFunc(childLimit, func() { _ = c.Process.Kill() })
	highest = from
	first := true
	in := bufio.NewScanner(pipe)
	for in.Scan() {
		line := in.Text()
		if strings.HasPrefix(line, "refused ") {
			refusal = line
			continue
		}
		var w, i int
		if _, err := fmt.Sscanf(line, "acked %d %d", &w, &i); err != nil {
			continue // cut in the middle by the kill: not acknowledged
		}
		fmt.Fprintln(acked, w, i)
		highest = max(highest, i)
		if first {
			first = false
			late.Reset(after)
		}
	}
	werr := c.Wait()
	late.Stop()
	if werr != nil && c.ProcessState.String() != "signal: killed" {
		return highest, "", fmt.Errorf("writer: %w: %.300s", werr, errs.String())
	}
	return highest, refusal, nil
}
