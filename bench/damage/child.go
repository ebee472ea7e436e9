package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
)

// childFailed is the exit code of a child that could not do its part; what a store
// ends the process with is any other.
const childFailed = 97

func child(what, name, dir string, arg int) error {
	for _, s := range stores {
		if s.name != name {
			continue
		}
		switch what {
		case "fill":
			return fill(s.open, dir, arg == 1)
		case "read":
			return read(s.open, dir)
		case "write":
			return write(s.open, dir, arg)
		case "acked":
			return countAcked(s.open, dir)
		}
	}
	return fmt.Errorf("no child is called %q of %q", what, name)
}

// value of key i at version v: text that a store may compress, bytes that it may not,
// most of some hundred bytes, a few large.
func value(i, v int) []byte {
	head := fmt.Appendf(nil, "key %d version %d ", i, v)
	n := 100 + i%7*60
	switch {
	case i == 200:
		n = 1200 << 10
	case i%100 == 50:
		n = 100 << 10
	}
	if i%2 == 0 {
		return bytes.Repeat(head, n/len(head)+1)
	}
	rnd := rand.New(rand.NewPCG(uint64(i), uint64(v)))
	for len(head) < n {
		head = append(head, byte(rnd.Uint32()))
	}
	return head
}

func key(i int) []byte { return fmt.Appendf(nil, "key-%04d", i) }

// written is the whole history: what an undamaged store holds, and what is deleted.
func written() (want map[string][]byte, gone []string) {
	want = map[string][]byte{}
	for i := range 400 {
		v := 1
		if i < 100 || i >= 300 && i < 320 {
			v = 2
		}
		want[string(key(i))] = value(i, v)
	}
	for i := 250; i < 260; i++ {
		gone = append(gone, string(key(i)))
		delete(want, gone[len(gone)-1])
	}
	return want, gone
}

// fill makes the store in two opens: the first ends with a flush, where there is one,
// and a close; the second by a close or a kill, right after its last acknowledgement.
func fill(open func(string) (store, error), dir string, kill bool) error {
	s, err := open(dir)
	if err != nil {
		return err
	}
	puts := func(from, to, v int) {
		for i := from; i < to && err == nil; i++ {
			err = s.put(key(i), value(i, v))
		}
	}
	puts(0, 320, 1)
	puts(0, 60, 2)
	for i := 250; i < 255 && err == nil; i++ {
		err = s.del(key(i))
	}
	if err == nil {
		err = s.flush()
	}
	if err = errors.Join(err, s.close()); err != nil {
		return err
	}
	if s, err = open(dir); err != nil {
		return err
	}
	puts(60, 100, 2)
	puts(320, 400, 1)
	for i := 255; i < 260 && err == nil; i++ {
		err = s.del(key(i))
	}
	puts(300, 320, 2)
	if err == nil && kill {
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return errors.Join(err, s.close())
}

// answer is the last line of a child that reads.
type answer struct {
	Right, Wrong, Missing, Errors int
	Refused                       bool
	Example                       string
}

func (a answer) print() {
	fmt.Printf("answer %d %d %d %d %t %q\n", a.Right, a.Wrong, a.Missing, a.Errors, a.Refused, a.Example)
}

func parseAnswer(out string) (a answer, ok bool) {
	i := strings.LastIndex(out, "answer ")
	if i < 0 {
		return a, false
	}
	n, _ := fmt.Sscanf(out[i:], "answer %d %d %d %d %t %q", &a.Right, &a.Wrong, &a.Missing, &a.Errors, &a.Refused, &a.Example)
	return a, n == 6
}

// read opens the store and compares every key and a whole scan with what was written.
func read(open func(string) (store, error), dir string) error {
	var a answer
	note := func(format string, args ...any) {
		if a.Example == "" {
			a.Example = fmt.Sprintf("%.200s", fmt.Sprintf(format, args...))
		}
	}
	s, err := open(dir)
	if err != nil {
		a.Refused = true
		note("%v", err)
		a.print()
		return nil
	}
	want, gone := written()
	compare := func(k string, v []byte) {
		switch w, ok := want[k]; {
		case !ok:
			a.Wrong++
			note("%q is there and should not be", k)
		case !bytes.Equal(v, w):
			a.Wrong++
			note("%q is %.40q, should be %.40q", k, v, w)
		default:
			a.Right++
		}
	}
	ask := func(k string, there bool) {
		v, err := s.get([]byte(k))
		switch {
		case err != nil:
			a.Errors++
			note("get %q: %v", k, err)
		case v != nil:
			compare(k, v)
		case there:
			a.Missing++
			note("%q is missing", k)
		}
	}
	for k := range want {
		ask(k, true)
	}
	for _, k := range gone {
		ask(k, false)
	}
	seen := 0
	err = s.scan(func(k, v []byte) { seen++; compare(string(k), v) })
	if err != nil {
		a.Errors++
		note("scan: %v", err)
	} else if seen < len(want) {
		a.Missing++
		note("a scan showed %d of %d keys", seen, len(want))
	}
	if err := s.close(); err != nil {
		a.Errors++
		note("close: %v", err)
	}
	a.print()
	return nil
}

// writers of the child that is killed, each with keys of its own.
const writers = 4

func ackKey(w, i int) []byte { return fmt.Appendf(nil, "w%d-%08d", w, i) }

func ackValue(w, i int) []byte {
	n := 150
	if i%40 == 39 {
		n = 80 << 10
	}
	return bytes.Repeat(fmt.Appendf(nil, "writer %d put %d ", w, i), n/16)
}

// write puts until it is killed, and prints each number when its put has returned.
func write(open func(string) (store, error), dir string, from int) error {
	s, err := open(dir)
	if err != nil {
		fmt.Printf("refused %q\n", err.Error())
		return nil
	}
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := from; ; i++ {
				if err := s.put(ackKey(w, i), ackValue(w, i)); err != nil {
					errs <- err
					return
				}
				// One write to the pipe, whole or not at all.
				if _, err := os.Stdout.WriteString(fmt.Sprintf("acked %d %d\n", w, i)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	return <-errs
}

// countAcked reads "w i" lines of what was acknowledged and says how many are gone.
func countAcked(open func(string) (store, error), dir string) error {
	s, err := open(dir)
	if err != nil {
		answer{Refused: true, Example: err.Error()}.print()
		return nil
	}
	var a answer
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var w, i int
		if _, err := fmt.Sscan(in.Text(), &w, &i); err != nil {
			return err
		}
		v, err := s.get(ackKey(w, i))
		switch {
		case err != nil:
			a.Errors++
			a.Example = err.Error()
		case v == nil:
			a.Missing++
			a.Example = in.Text()
		case !bytes.Equal(v, ackValue(w, i)):
			a.Wrong++
			a.Example = in.Text()
		default:
			a.Right++
		}
	}
	if err := s.close(); err != nil {
		return err
	}
	a.print()
	return in.Err()
}
