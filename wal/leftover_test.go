package wal

import (
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/stretchr/testify/require"
)

// logFiles are the files in the log's folder.
func (tr *trial) logFiles() (n int) {
	for name := range tr.fs.Tree() {
		if strings.HasPrefix(name, "/db/log/") {
			n++
		}
	}
	return n
}

// known are the files that the log has a use for.
func (tr *trial) known() int { return 1 + len(tr.log.segs) + len(tr.log.spares) }

// Goal (I10): however often a segment cannot be made, and wherever the try ends, it
// leaves no file behind; the batch is refused, nothing is poisoned, and once the disk is
// well the log goes on, also after a power cut at any moment.
func TestLog_newSegment_leavesNothing(t *testing.T) {
	for name, rule := range map[string]simfs.Rule{
		"no room to open the folder":  {Ops: simfs.OpOpenDir, Path: "/db/log", Err: syscall.EMFILE},
		"no room to sync the folder":  {Ops: simfs.OpSyncDir, Path: "/db/log", Err: syscall.ENOSPC},
		"no room to open the file":    {Ops: simfs.OpOpenReadWrite, Path: "spare-*", Err: syscall.EMFILE},
		"no room for the header":      {Ops: simfs.OpWrites, Path: "spare-*", Err: syscall.ENOSPC},
		"no room to sync the file":    {Ops: simfs.OpSync, Path: "spare-*", Err: syscall.ENOSPC},
		"no room for the second name": {Ops: simfs.OpRename, Path: "spare-*", Err: syscall.ENOSPC},
		"the name may be there": {
			Ops: simfs.OpRename, Path: "spare-*", Err: syscall.ENOSPC, Effect: simfs.EffectDone,
		},
	} {
		for _, recycled := range []bool{false, true} {
			tr := quiet(t, nil)
			tr.name = name
			if recycled { // the next try takes an old segment
				require.NoError(t, tr.puts(9000, 9000, 9000, 9000))
				require.NoError(t, tr.flush())
				require.NoError(t, tr.tick(2*time.Second))
				tr.tend()
				require.NotEmpty(t, tr.log.segs, name)
			}
			for len(tr.log.spares) > 0 { // until the next put has to make a segment itself
				require.NoError(t, tr.put(9000))
			}
			rule.Every = 1
			fault := tr.fs.Inject(rule)
			refused := 0
			for range 30 {
				if err := tr.put(9000); err != nil {
					refused++
					require.True(t, isTransient(err), "%s: %v", name, err)
				}
				tr.tend()
				require.NoError(t, tr.log.Err(), name)
				require.LessOrEqual(t, tr.logFiles(), tr.known(), name)
			}
			require.Positive(t, fault.Fired(), name)
			if !recycled || rule.Ops != simfs.OpWrites { // a reused file needs no room
				require.Positive(t, refused, name)
			}
			fault.Remove()
			again := tr.again(tr.fs.Crash(simfs.CrashConfig{Seed: 1}), name+", after a power cut")
			require.NoError(t, again.open(), name)
			require.NoError(t, again.puts(9000, 9000), name)
			require.NoError(t, again.end(), name)

			require.NoError(t, tr.puts(9000, 9000, 9000), name)
			tr.tend()
			require.Equal(t, tr.known(), tr.logFiles(), name)
			require.NoError(t, tr.end(), name)
			require.NoError(t, tr.open(), name)
			require.NoError(t, tr.end(), name)
		}
	}
}

// Goal (I10): what cannot be removed either is tried again, and is bounded: beyond some
// files no further one is made.
func TestLog_newSegment_cannotRemove(t *testing.T) {
	tr := quiet(t, nil)
	for len(tr.log.spares) > 0 {
		require.NoError(t, tr.put(9000))
	}
	make := tr.fs.Inject(simfs.Rule{Ops: simfs.OpSyncDir, Path: "/db/log", Err: syscall.ENOSPC, Every: 1})
	remove := tr.fs.Inject(simfs.Rule{Ops: simfs.OpRemove, Path: "*", Err: syscall.ENOSPC, Every: 1})
	for range 50 {
		require.ErrorIs(t, tr.put(9000), ErrDiskFull)
		tr.tend()
	}
	require.LessOrEqual(t, tr.logFiles(), tr.known()+maxLeftovers+2)
	require.Positive(t, remove.Fired())
	make.Remove()
	remove.Remove()
	require.NoError(t, tr.puts(9000, 9000))
	tr.tend()
	require.Equal(t, tr.known(), tr.logFiles())
	require.NoError(t, tr.end())
}

// Goal: a file of another owner is not what a try left, and stays.
func TestLog_newSegment_leavesOthersAlone(t *testing.T) {
	tr := quiet(t, nil)
	for len(tr.log.spares) > 0 {
		require.NoError(t, tr.put(9000))
	}
	other := path.Join("/db/log", segmentName(tr.log.nextNo))
	require.NoError(t, tr.fs.Put(other, []byte("not ours")))
	require.ErrorContains(t, tr.put(9000), "another owner")
	tr.tend()
	require.Equal(t, "not ours", string(tr.fs.Tree()[other].Data))
	require.ErrorIs(t, tr.end(), ErrPoisoned)
}
