package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// keys reads keys of a command line: as text, or in hexadecimal.
type keys struct{ hex bool }

func keyFlag(cmd *cobra.Command) *keys {
	k := new(keys)
	cmd.Flags().BoolVar(&k.hex, "hex", false, "keys on the command line are hexadecimal, for binary keys")
	return k
}

func (k *keys) parse(cmd *cobra.Command, s string) ([]byte, error) {
	if !k.hex {
		return []byte(s), nil
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, usagef(cmd, "key %q is not hexadecimal", s)
	}
	return b, nil
}

// parseOne refuses what cannot be a key before a store is opened for it.
func (k *keys) parseOne(cmd *cobra.Command, s string) ([]byte, error) {
	b, err := k.parse(cmd, s)
	if err == nil && len(b) == 0 {
		return nil, usagef(cmd, "a key must have at least one byte")
	}
	if err == nil && len(b) > engine.MaxKey {
		return nil, usagef(cmd, "a key has at most %s bytes, not %s", humanize.Comma(engine.MaxKey), humanize.Comma(int64(len(b))))
	}
	return b, err
}

// invertedf refuses a range whose ends are the wrong way around: it would quietly be
// empty.
func invertedf(cmd *cobra.Command, low, high string, lower, upper []byte) error {
	return usagef(cmd, "inverted range: %s %.60q is above %s %.60q", low, lower, high, upper)
}

// escape makes bytes one line of printable text: what is not printable, the tab
// and the backslash are written as in a Go string.
func escape(b []byte) string {
	var s strings.Builder
	s.Grow(len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, b[0])
		case r == '\\' || !unicode.IsPrint(r):
			q := strconv.QuoteRune(r)
			s.WriteString(q[1 : len(q)-1])
		default:
			s.WriteRune(r)
		}
		b = b[n:]
	}
	return s.String()
}

// keyJSON is one key in JSON: the format of get, scan and export, and what import
// --native reads. Bytes that are not UTF-8 are written in base64.
type keyJSON struct {
	Key         string  `json:"key"`
	KeyEncoding string  `json:"key_encoding,omitempty"`
	Value       *string `json:"value,omitempty"`
	Encoding    string  `json:"encoding,omitempty"` // of the value
	Revision    uint64  `json:"revision,omitempty"`
	Size        int64   `json:"size"`
}

const inBase64 = "base64"

func newKeyJSON(key []byte, size int64, revision uint64) keyJSON {
	r := keyJSON{Size: size, Revision: revision}
	r.Key, r.KeyEncoding = encodeBytes(key)
	return r
}

func (r *keyJSON) setValue(value []byte) {
	var s string
	s, r.Encoding = encodeBytes(value)
	r.Value = &s
}

func encodeBytes(b []byte) (text, encoding string) {
	if utf8.Valid(b) {
		return string(b), ""
	}
	return base64.StdEncoding.EncodeToString(b), inBase64
}

func decodeBytes(text, encoding string) ([]byte, error) {
	switch encoding {
	case "":
		return []byte(text), nil
	case inBase64:
		return base64.StdEncoding.DecodeString(text)
	}
	return nil, fmt.Errorf("unknown encoding %q", encoding)
}

var errNoValue = errors.New(`no "value"`)

func (r *keyJSON) bytes() (key, value []byte, err error) {
	if r.Value == nil {
		return nil, nil, errNoValue
	}
	if key, err = decodeBytes(r.Key, r.KeyEncoding); err != nil {
		return nil, nil, err
	}
	value, err = decodeBytes(*r.Value, r.Encoding)
	return key, value, err
}
