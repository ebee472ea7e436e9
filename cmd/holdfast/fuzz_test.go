package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
)

// importStore is a store in memory for all inputs of a target.
func importStore(f *testing.F) *engine.Engine {
	e, err := engine.Open("/store", &engine.Options{FS: vfs.NewMem(), MemoryBudget: 16 << 20, DiskReserve: -1, Sync: engine.SyncNever})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := e.Close(); err != nil {
			f.Error(err)
		}
	})
	return e
}

// imported runs one import into the emptied store, and returns what is there then.
func imported(t *testing.T, e *engine.Engine, skipBad bool, read func(*importer) error) (keys map[string]string, sum importSummary, err error) {
	t.Helper()
	if err := e.DeleteRange(nil, nil); err != nil {
		t.Fatal(err)
	}
	i := &importer{
		importFlags: importFlags{prefix: "p/", skipBad: skipBad}, ctx: context.Background(), e: e, batch: e.NewBatch(),
		bar: (&app{err: io.Discard, json: true}).newProgress("importing", -1),
	}
	defer i.batch.Close()
	err = read(i)
	if cerr := i.commit(); cerr != nil {
		t.Fatal(cerr)
	}
	keys = map[string]string{}
	for item, err := range e.Scan(engine.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		v, err := item.Value()
		if err != nil {
			t.Fatal(err)
		}
		keys[string(item.Key())] = string(v)
	}
	return keys, i.sum, err
}

// judged checks what both ways to import said of the same input: without --skip-bad an
// error names its place and all that came before is there; with it nothing that can be
// imported is left out, and what is left out is counted.
func judged(t *testing.T, e *engine.Engine, input string, read func(*importer) error, entries int) (keys map[string]string, sum importSummary) {
	t.Helper()
	strict, ssum, serr := imported(t, e, false, read)
	keys, sum, err := imported(t, e, true, read)
	for k, v := range strict {
		if _, ok := keys[k]; !ok {
			t.Fatalf("%q: %q is there without --skip-bad alone", k, v)
		}
	}
	var bad *badEntry
	switch {
	case err != nil && serr == nil:
		t.Fatalf("an error with --skip-bad alone: %v", err)
	case err != nil && errors.As(err, &bad):
		t.Fatalf("--skip-bad did not pass over: %v", err)
	case err == nil && sum.Bad == 0 && serr != nil:
		t.Fatalf("an error without --skip-bad, and nothing bad: %v", serr)
	case err == nil && sum.Bad > 0 && !errors.As(serr, &bad):
		t.Fatalf("%d bad entries and no error for them: %v", sum.Bad, serr)
	case serr != nil && !strings.HasPrefix(serr.Error(), input):
		t.Fatalf("the error does not name the input: %v", serr)
	case err == nil && sum.Keys+sum.Bad != int64(entries):
		t.Fatalf("%d entries, %d keys and %d bad", entries, sum.Keys, sum.Bad)
	case serr == nil && ssum.Keys != int64(entries):
		t.Fatalf("%d entries, %d keys and no error", entries, ssum.Keys)
	}
	return keys, sum
}

func seeds(f *testing.F, names ...string) (all [][]byte) {
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join("testdata", n))
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// Goal: whatever bytes come as JSON lines, each line that is not empty becomes the key
// and value that it says, exactly, or is a bad entry with its line number; two keys
// that differ in the input differ in the store.
func FuzzImportJSONL(f *testing.F) {
	e := importStore(f)
	for _, b := range seeds(f, "users.jsonl", "bad.jsonl") {
		f.Add(b, "id")
		f.Add(b, "user.id")
	}
	native := `{"key":"a","value":"v","size":1}` + "\n" + `{"key":"AP/+","key_encoding":"base64","value":"/w==","encoding":"base64","size":1}`
	f.Add([]byte(native), "")
	f.Add([]byte(`{"key":"k","value":"v","encoding":"rot13"}`), "")
	f.Add([]byte(`{"key":"k"}`), "")
	f.Add([]byte("{\"id\":\"\xff\"}\n{\"id\":\"\xfe\"}\n"), "id")
	f.Add([]byte(`{"id":"\ud800"}`+"\r\n"+`{"id":"\udbff"}`), "id")
	f.Add([]byte("{\"key\":\"\xff\",\"value\":\"\xfe\"}"), "")
	f.Add([]byte("\xef\xbb\xbf{\"id\":1}\n\n \n[1]\nnull\n{\"id\":null}\n{\"id\":-0.1e9}\n{\"id\":\"\"}"), "id")
	f.Add([]byte(strings.Repeat(`{"id":`, 100)), "id.id.id")
	f.Fuzz(func(t *testing.T, input []byte, field string) {
		parse := func(line []byte) (key, value []byte, err error) {
			key, err = fieldOf(line, field)
			return key, line, err
		}
		if field == "" {
			parse = parseKeyJSON
		}
		entries := 0
		for line := range bytes.Lines(input) {
			if len(bytes.TrimSpace(line)) > 0 {
				entries++
			}
		}
		keys, _ := judged(t, e, "input", func(i *importer) error {
			return i.lines(bytes.NewReader(input), "input", parse)
		}, entries)
		for k, v := range keys {
			if field != "" {
				if !json.Valid([]byte(v)) || !bytes.Contains(input, []byte(v)) {
					t.Fatalf("%q: %q is no line of the input", k, v)
				}
				again, err := fieldOf([]byte(v), field)
				if err != nil || "p/"+string(again) != k {
					t.Fatalf("%q: its line says %q, %v", k, again, err)
				}
			}
			if strings.Contains(k, "\ufffd") && !bytes.Contains(input, []byte("\ufffd")) && !bytes.Contains(bytes.ToLower(input), []byte(`\ufffd`)) &&
				!bytes.Contains(input, []byte("base64")) {
				t.Fatalf("key %q was made up", k)
			}
		}
	})
}

// Goal: whatever bytes come as CSV, each row becomes a JSON object that decodes to its
// cells, exactly, or is a bad entry with its line number.
func FuzzImportCSV(f *testing.F) {
	e := importStore(f)
	for _, b := range seeds(f, "people.csv", "bad.csv") {
		f.Add(b, "email", uint8(','))
	}
	f.Add([]byte("id\tv\n1\ta,b\n"), "id", uint8('\t'))
	f.Add([]byte("a,a\n1,2\n"), "a", uint8(','))
	f.Add([]byte("\ufeffid,v\n\"1\n2\",\"\"\"x\"\"\"\n"), "id", uint8(','))
	f.Add([]byte("id,v\n1,\xff\n2,\xfe\n"), "id", uint8(','))
	f.Add([]byte("id,\xff,\xfe\n1,2,3\n"), "id", uint8(','))
	f.Add([]byte("id\n\"unclosed\n"), "id", uint8(','))
	f.Add([]byte{}, "id", uint8(';'))
	f.Fuzz(func(t *testing.T, input []byte, column string, comma uint8) {
		if comma == 0 || comma >= 0x80 || strings.ContainsRune("\"\r\n", rune(comma)) || column == "" {
			return // refused before a file is opened
		}
		entries := 0
		want := map[string][][]string{} // key to the rows that have it
		rows := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(input, []byte("\ufeff"))))
		rows.Comma = rune(comma)
		header, err := rows.Read()
		for err == nil {
			var row []string
			if row, err = rows.Read(); err == io.EOF {
				break
			}
			entries++
			if err != nil {
				err = nil
				continue
			}
			for c, h := range header {
				if h == column {
					want["p/"+row[c]] = append(want["p/"+row[c]], row)
					break
				}
			}
		}
		keys, _ := judged(t, e, "input", func(i *importer) error {
			return i.csv(bytes.NewReader(input), "input", column, rune(comma))
		}, entries)
		for k, v := range keys {
			var got map[string]string
			if err := json.Unmarshal([]byte(v), &got); err != nil {
				t.Fatalf("%q: %v", k, err)
			}
			found := false
			for _, row := range want[k] {
				same := len(got) == len(row)
				for c, cell := range row {
					same = same && got[header[c]] == cell
				}
				found = found || same
			}
			if !found {
				t.Fatalf("%q: %s is none of %q", k, v, fmt.Sprint(want[k]))
			}
		}
	})
}
