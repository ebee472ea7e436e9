package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// maxLine bounds a line of input: without it a file that has no line ends would be
// read into memory whole.
const maxLine = 1 << 30

func newImportJSONL(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jsonl FILE",
		Short: "Import JSON lines",
		Long: `Imports a file of JSON objects, one per line; FILE may be - for standard input.

With --key FIELD the key is the string or number in that field, and the value is
the whole line. FIELD may be a path with dots (user.id). With --native the lines
are those that 'export jsonl' writes, and each becomes the key and value it came
from. Empty lines are passed over.`,
		Example: `  holdfast import jsonl -d ./state users.jsonl --key id --prefix user/
  zcat log.gz | holdfast import jsonl -d ./state - --key meta.request_id --skip-bad
  holdfast export jsonl -d ./old | holdfast import jsonl -d ./new - --native`,
		Args: between(1, 1, "one FILE"),
	}
	f := addImportFlags(cmd)
	field := cmd.Flags().String("key", "", "the field that is the key")
	native := cmd.Flags().Bool("native", false, "the lines come from 'export jsonl'")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (*field != "") == *native {
			return usagef(cmd, "say either --key FIELD or --native")
		}
		parse := func(line []byte) (key, value []byte, err error) {
			key, err = fieldOf(line, *field)
			return key, line, err
		}
		if *native {
			parse = parseKeyJSON
		}
		in, name, size, done, err := a.openInput(args[0])
		if err != nil {
			return err
		}
		return errors.Join(a.runImport(cmd, f, size, func(i *importer) error {
			return i.lines(in, name, parse)
		}), done())
	}
	return cmd
}

func (i *importer) lines(in io.Reader, name string, parse func([]byte) (key, value []byte, err error)) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	n := 0
	for lines.Scan() {
		n++
		line := lines.Bytes()
		i.bar.add(int64(len(line)) + 1)
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		where := fmt.Sprintf("%s:%d", name, n)
		var key, value []byte
		err := errNotUTF8
		if utf8.Valid(line) {
			key, value, err = parse(line)
		}
		if err == nil {
			err = i.put(where, key, value)
		} else {
			err = i.bad(where, err)
		}
		if err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	return nil
}

// What is no Unicode text has no place in JSON: decoding or encoding it would put
// U+FFFD in its place without a word, and two keys that differ would become one.
var (
	errNotUTF8  = errors.New("not UTF-8")
	errUnpaired = errors.New(`a \u escape is half of a surrogate pair`)
)

// unpaired says whether valid JSON has a \u escape of half a surrogate pair.
func unpaired(text []byte) bool {
	unit := func(i int) rune {
		if i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseUint(string(text[i+2:i+6]), 16, 16)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if r := unit(i); utf16.IsSurrogate(r) {
			if utf16.DecodeRune(r, unit(i+6)) == utf8.RuneError {
				return true
			}
			i += 6
		}
		i++ // what is escaped begins no escape
	}
	return false
}

func parseKeyJSON(line []byte) (key, value []byte, err error) {
	var r keyJSON
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, nil, jsonError(err)
	}
	if unpaired(line) {
		return nil, nil, errUnpaired
	}
	return r.bytes()
}

// fieldOf returns the field of a JSON object that is the key. Where an object has
// the path itself as a name, dots and all, that wins.
func fieldOf(line []byte, path string) ([]byte, error) {
	if !json.Valid(line) {
		var v any
		return nil, jsonError(json.Unmarshal(line, &v))
	}
	rest, raw := path, json.RawMessage(line)
	for rest != "" {
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil || object == nil {
			return nil, fmt.Errorf("no field %q: not an object", path)
		}
		name, after := rest, ""
		if _, ok := object[rest]; !ok {
			name, after, _ = strings.Cut(rest, ".")
		}
		var ok bool
		if raw, ok = object[name]; !ok {
			return nil, fmt.Errorf("no field %q", path)
		}
		rest = after
	}
	raw = bytes.TrimSpace(raw)
	switch c := raw[0]; {
	case c == '"' && unpaired(raw):
		return nil, errUnpaired
	case c == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return []byte(s), err
	case c == '-' || c >= '0' && c <= '9':
		return raw, nil // as written: a float would not keep a long number
	}
	return nil, fmt.Errorf("field %q is neither a string nor a number", path)
}

func jsonError(err error) error { return fmt.Errorf("not a JSON object: %w", err) }

func newImportCSV(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "csv FILE",
		Short: "Import CSV with a key column",
		Long: `Imports a CSV file whose first line names its columns; FILE may be - for standard
input. The key is the cell in the column that --key names; the value is the row as
a JSON object, column to cell, in the order of the columns.`,
		Example: `  holdfast import csv -d ./state people.csv --key email --prefix person/
  holdfast import csv -d ./state data.tsv --key id --delimiter tab`,
		Args: between(1, 1, "one FILE"),
	}
	f := addImportFlags(cmd)
	column := cmd.Flags().String("key", "", "the column that is the key")
	delimiter := cmd.Flags().String("delimiter", ",", "between two cells: one character, or tab")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		comma, n := utf8.DecodeRuneInString(*delimiter)
		switch {
		case *column == "":
			return usagef(cmd, "say which column is the key: --key COLUMN")
		case *delimiter == "tab":
			comma = '\t'
		case n != len(*delimiter) || n == 0 || strings.ContainsRune("\"\r\n\ufffd", comma):
			return usagef(cmd, "--delimiter wants one character or tab, not %q", *delimiter)
		}
		in, name, size, done, err := a.openInput(args[0])
		if err != nil {
			return err
		}
		return errors.Join(a.runImport(cmd, f, size, func(i *importer) error {
			return i.csv(in, name, *column, comma)
		}), done())
	}
	return cmd
}

func (i *importer) csv(in io.Reader, name, column string, comma rune) error {
	buffered := bufio.NewReaderSize(in, 64<<10)
	if mark, _ := buffered.Peek(3); string(mark) == "\ufeff" {
		_, _ = buffered.Discard(3) // what some spreadsheets write in front; Peek saw it
	}
	rows := csv.NewReader(buffered)
	rows.Comma = comma
	header, err := rows.Read()
	if err == io.EOF {
		return fmt.Errorf("%s: empty: the first line must name the columns", name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	at := slices.Index(header, column)
	if at < 0 {
		return fmt.Errorf("%s: no column %q; there are %s", name, column, strings.Join(header, ", "))
	}
	names := make([][]byte, len(header))
	for c, h := range header {
		if !utf8.ValidString(h) {
			return fmt.Errorf("%s: column %d: %w", name, c+1, errNotUTF8)
		}
		if slices.Contains(header[:c], h) {
			return fmt.Errorf("%s: two columns are called %q", name, h)
		}
		names[c] = appendJSON(nil, h)
	}
	rows.ReuseRecord = true
	read := int64(0)
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return nil
		}
		i.bar.add(rows.InputOffset() - read)
		read = rows.InputOffset()
		var parse *csv.ParseError
		switch {
		case errors.As(err, &parse):
			err = i.bad(fmt.Sprintf("%s:%d", name, parse.StartLine), parse.Err)
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		default:
			line, _ := rows.FieldPos(at)
			where := fmt.Sprintf("%s:%d", name, line)
			if slices.ContainsFunc(row, func(cell string) bool { return !utf8.ValidString(cell) }) {
				err = i.bad(where, errNotUTF8)
			} else {
				err = i.put(where, []byte(row[at]), rowJSON(names, row))
			}
		}
		if err != nil {
			return err
		}
	}
}

func rowJSON(names [][]byte, row []string) []byte {
	b := []byte{'{'}
	for c, cell := range row {
		if c > 0 {
			b = append(b, ',')
		}
		b = append(append(b, names[c]...), ':')
		b = appendJSON(b, cell)
	}
	return append(b, '}')
}

func appendJSON(b []byte, s string) []byte {
	var w bytes.Buffer
	_ = writeJSON(&w, s) // a string has JSON, and a Buffer takes it
	return append(b, bytes.TrimSuffix(w.Bytes(), []byte{'\n'})...)
}
