package wal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: every fuzz target has seeds in the repository, in Go's form; -update
// writes those that the code can make.
func TestFuzz_corpus(t *testing.T) {
	golden, err := os.ReadFile("testdata/segment.golden")
	require.NoError(t, err)
	state, err := os.ReadFile("testdata/state.golden")
	require.NoError(t, err)
	seeds := map[string][]string{}
	add := func(target string, args ...string) {
		seeds[target] = append(seeds[target], "go test fuzz v1\n"+strings.Join(args, "\n")+"\n")
	}
	raw := func(b []byte) string { return fmt.Sprintf("[]byte(%q)", b) }
	h, err := parseSegmentHeader(golden)
	require.NoError(t, err)
	for off := framesOffset; ; { // one frame of each kind
		f, ok := parseFrame(golden[off:], h.salt, seedOf(h.salt), int64(off))
		if !ok {
			break
		}
		add("FuzzFrame", raw(golden[off:off+frameHeaderBytes]), fmt.Sprintf("uint64(%d)", h.salt), fmt.Sprintf("int64(%d)", off))
		p := golden[off+frameHeaderBytes:][:f.payloadLen]
		if f.kind == kindOpen || f.kind == kindSeal {
			add("FuzzFrame", raw(p), "uint64(0)", "int64(0)")
		} else if f.kind == kindData && f.flags == 0 {
			add("FuzzEntries", raw(p), fmt.Sprintf("int(%d)", f.count))
		}
		off += int(f.size())
	}
	for _, n := range []int{2, 7} {
		g := groupOf(n, 9)
		add("FuzzEntries", raw(g), fmt.Sprintf("int(%d)", n))
		add("FuzzEntries", raw(g[:len(g)-1]), fmt.Sprintf("int(%d)", n))
		add("FuzzEntries", raw(g), fmt.Sprintf("int(%d)", n+1))
	}
	add("FuzzEntries", raw(appendEntryHeader(nil, maxBatchBytes+1, 0, 1, 7)), "int(1)")
	newer := bytes.Clone(golden[:segmentHdrBytes])
	newer[8] = 9
	add("FuzzHeader", raw(golden[:segmentHdrBytes]))
	add("FuzzHeader", raw(golden[:segmentHdrBytes-1]))
	add("FuzzHeader", raw(newer))
	add("FuzzState", raw(state[pageBytes:]))
	add("FuzzSegment", raw(golden[:framesOffset+openBytes+20]), "int(0)", "byte('\\x00')", "bool(false)")
	for _, p := range walkPrograms {
		add("FuzzWalk", raw(p))
	}
	for target, files := range seeds {
		dir := filepath.Join("testdata/fuzz", target)
		for i, want := range files {
			name := filepath.Join(dir, fmt.Sprintf("seed-%02d", i))
			if *update {
				require.NoError(t, os.MkdirAll(dir, 0o755))
				require.NoError(t, os.WriteFile(name, []byte(want), 0o644))
			}
			got, err := os.ReadFile(name)
			require.NoError(t, err)
			require.True(t, want == string(got), "%s is not what the code makes; run with -update", name)
		}
	}
}
