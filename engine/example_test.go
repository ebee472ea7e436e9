package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/holdfastdb/holdfast/engine"
)

func open() (*engine.Engine, func()) {
	dir, err := os.MkdirTemp("", "holdfast-example-")
	if err != nil {
		log.Fatal(err)
	}
	e, err := engine.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	return e, func() {
		if err := errors.Join(e.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleEngine_Put() {
	e, done := open()
	defer done()
	if err := e.Put([]byte("session/42"), []byte("state")); err != nil {
		log.Fatal(err)
	}
	v, err := e.Get([]byte("session/42"))
	fmt.Printf("%s %v\n", v, err)
	_, err = e.Get([]byte("session/43"))
	fmt.Println(errors.Is(err, engine.ErrNotFound))
	// Output:
	// state <nil>
	// true
}

func ExampleEngine_Apply() {
	e, done := open()
	defer done()
	b := e.NewBatch()
	defer b.Close()
	b.Put([]byte("a"), []byte("1"))
	b.Put([]byte("b"), []byte("2"))
	b.DeleteRange([]byte("b"), []byte("z")) // later writes win
	b.Put([]byte("c"), []byte("3"))
	lsn, err := e.Apply(b)
	fmt.Println(lsn, err)
	for item, err := range e.Scan(engine.Range{}) {
		if err != nil {
			log.Fatal(err)
		}
		v, _ := item.Value()
		fmt.Printf("%s=%s at %d\n", item.Key(), v, item.Revision())
	}
	// Output:
	// 1 <nil>
	// a=1 at 1
	// c=3 at 1
}

func ExampleEngine_Snapshot() {
	e, done := open()
	defer done()
	e.Put([]byte("k"), []byte("before"))
	s, err := e.Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	e.Put([]byte("k"), []byte("after"))
	then, _ := s.Get([]byte("k"))
	now, _ := e.Get([]byte("k"))
	fmt.Printf("%s, %s\n", then, now)
	// Output: before, after
}

func ExampleEngine_Checkpoint() {
	e, done := open()
	defer done()
	e.Put([]byte("k"), []byte("v"))
	dst, err := os.MkdirTemp("", "holdfast-checkpoint-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dst)
	if err := e.Checkpoint(context.Background(), dst+"/copy"); err != nil {
		log.Fatal(err)
	}
	c, err := engine.Open(dst+"/copy", &engine.Options{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	v, _ := c.Get([]byte("k"))
	fmt.Printf("%s\n", v)
	// Output: v
}

func ExampleSalvage() {
	damaged, err := os.MkdirTemp("", "holdfast-salvage-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(damaged)
	e, err := engine.Open(damaged, nil)
	if err != nil {
		log.Fatal(err)
	}
	e.Put([]byte("in L3"), []byte("1"))
	e.Flush(context.Background())
	e.Put([]byte("in the log"), []byte("2"))
	if err := errors.Join(e.Close(), os.Remove(damaged+"/STATE")); err != nil {
		log.Fatal(err)
	}
	_, err = engine.Open(damaged, nil)
	fmt.Println(errors.Is(err, engine.ErrCorrupt))

	rescued := damaged + "-rescued"
	defer os.RemoveAll(rescued)
	report, err := engine.Salvage(context.Background(), damaged, rescued, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Keys, "keys,", report.DoubtfulCount, "doubtful")
	for _, l := range report.Lost {
		fmt.Println("lost:", l.What)
	}
	// Output:
	// true
	// 2 keys, 0 doubtful
	// lost: missing; nothing says what had been promised
}

func ExamplePrefix() {
	r := engine.Prefix([]byte("session/"))
	fmt.Printf("%s to %s\n", r.Lower, r.Upper)
	// Output: session/ to session0
}

// A value of any size is streamed in, and any part of it is read back without the rest.
func ExampleEngine_Create() {
	e, done := open()
	defer done()

	w, err := e.Create(context.Background(), []byte("log/2026-11"))
	if err != nil {
		log.Fatal(err)
	}
	defer w.Abort() // nothing, once Close has committed
	for i := range 1_000_000 {
		if _, err := fmt.Fprintf(w, "line %07d\n", i); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Close(); err != nil { // now it is there, and survives a crash
		log.Fatal(err)
	}

	v, err := e.OpenValue([]byte("log/2026-11"))
	if err != nil {
		log.Fatal(err)
	}
	defer v.Close()
	line := make([]byte, 13)
	if _, err := v.ReadAt(line, 700_000*13); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes; %s", v.Size(), line)
	// Output:
	// 13000000 bytes; line 0700000
}

// An open value stays what it was, whatever happens to its key.
func ExampleEngine_OpenValue() {
	e, done := open()
	defer done()

	photo := []byte("photo")
	if err := e.Put(photo, bytes.Repeat([]byte("old"), 100_000)); err != nil {
		log.Fatal(err)
	}
	v, err := e.OpenValue(photo)
	if err != nil {
		log.Fatal(err)
	}
	defer v.Close()
	if err := e.Delete(photo); err != nil {
		log.Fatal(err)
	}
	if _, err := v.Seek(-6, io.SeekEnd); err != nil {
		log.Fatal(err)
	}
	end, err := io.ReadAll(v)
	fmt.Printf("%s %v\n", end, err)
	_, err = e.OpenValue(photo)
	fmt.Println(errors.Is(err, engine.ErrNotFound))
	// Output:
	// oldold <nil>
	// true
}

func ExampleEngine_Inspect() {
	e, done := open()
	defer done()
	e.Put([]byte("session/42"), []byte("state"))
	e.Flush(context.Background())
	e.Delete([]byte("session/42"))
	i, err := e.Inspect([]byte("session/42"))
	fmt.Println("found:", i.Found, err)
	for _, l := range i.Layers {
		fmt.Printf("%s knows %v", l.Name, l.Knows)
		if l.Revision != 0 {
			fmt.Printf(" of revision %d", l.Revision)
		}
		if l.Answers {
			fmt.Print(", and answers")
		}
		fmt.Println()
	}
	// Output:
	// found: false <nil>
	// active knows tombstone of revision 2, and answers
	// L1 knows nothing
	// L2 knows nothing
	// L3 knows value of revision 1
}
