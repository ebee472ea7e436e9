package fuzz

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// chosen is a source of bytes that notes which operation each step chose.
type chosen struct {
	*Bytes
	operations map[int]bool
}

func (c chosen) IntN(n int) int {
	i := c.Bytes.IntN(n)
	if n == 40 { // the choice at the head of a step, and nothing else
		c.operations[i] = true
	}
	return i
}

// corpusEntry reads a file that testing wrote, or that was written by its rules.
func corpusEntry(t *testing.T, name string) (ops []byte, setting byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	require.Len(t, lines, 3, name)
	s, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(lines[1], "[]byte("), ")"))
	require.NoError(t, err, name)
	c, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(lines[2], "byte("), ")"))
	require.NoError(t, err, name)
	return []byte(s), []byte(c)[0]
}

// Goal: the corpus that a fuzzer begins with reaches every operation of a run, under
// every policy; each entry is there for one that its name says.
func TestFuzzRun_corpus(t *testing.T) {
	names, err := filepath.Glob("testdata/fuzz/FuzzRun/*")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	all, policies := chosen{operations: map[int]bool{}}, map[byte]bool{}
	for _, name := range names {
		ops, setting := corpusEntry(t, name)
		policies[setting%3] = true
		all.Bytes = NewBytes(ops)
		o := Settings(uint64(setting))
		o.FS = vfs.NewMem()
		require.NoError(t, Run(Config{Dir: "/store", Options: o, Source: all, Steps: 200, Keys: 16}), name)
		require.True(t, all.Done(), "%s: longer than a run", name)
	}
	require.Len(t, policies, 3)
	for what, ops := range map[string][]int{
		"put": {30}, "delete": {0, 1, 2}, "range delete": {3}, "batch": {4, 5, 6}, "get": {7, 8, 9, 10, 11, 12, 13},
		"scan": {14, 15}, "open a snapshot": {16}, "read a snapshot": {17, 18}, "flush": {19},
		"compact or sync": {20}, "reopen": {21}, "batch again": {22},
	} {
		reached := false
		for _, op := range ops {
			reached = reached || all.operations[op]
		}
		require.True(t, reached, what)
	}
}
