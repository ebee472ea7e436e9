package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/block/blockkind"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
	"github.com/cockroachdb/pebble/v2/sstable/valblk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// RemnantIter walks the entries of one table in key order, newest first within a
// key, block by block. A block that does not verify is passed over and noted. It
// is for one goroutine. Key and Cell are valid until the next move.
type RemnantIter struct {
	file   string
	read   objstorage.Readable
	table  *sstable.Reader // nil: what leads to its blocks is gone, they are searched for
	blocks blockSource
	schema colblk.KeySchema
	values valblk.Reader // knows which values lie elsewhere, and fetches none
	data   colblk.DataBlockIter
	began  bool // data stands in a block
	at     blockAt

	key, last []byte // user key; inner key that was given out last
	cell      []byte
	deleted   bool
	seq       uint64

	mark   Watermark
	marked bool
	ranges []RangeTombstone
	lost   []LostBlock
	merged bool
	err    error
}

// RangeTombstone of a table: [Lower, Upper), nil Upper is the end of the user keys.
type RangeTombstone struct {
	Lower, Upper []byte
	Seq          uint64
}

// blockAt is where a data block lies, and between which keys.
type blockAt struct {
	handle block.Handle
	lower  []byte // inner keys: above this ...
	upper  []byte // ... and at or below this
	known  bool   // lower and upper are
}

// blockSource yields the data blocks of a table in order. What it cannot follow it
// hands to lose. False is the end, or an error of the file system.
type blockSource interface {
	next(lose func(LostBlock)) (blockAt, bool, error)
}

// Open begins to read a table. What of it cannot be read comes up in Lost; the
// error is one of the file system. Close it in any case but an error.
func (r *Remains) Open(t *Remnant) (_ *RemnantIter, err error) {
	it := &RemnantIter{file: t.File, schema: colblk.DefaultKeySchema(pebble.DefaultComparer, keyBundle)}
	if t.Size < 0 {
		it.lose(LostBlock{What: "missing file", Bytes: t.NamedSize, Lower: t.Lower, Upper: t.Upper})
		return it, nil
	}
	if t.Named && t.NamedSize != t.Size {
		it.lose(LostBlock{What: fmt.Sprintf("%d bytes, the manifest says %d", t.Size, t.NamedSize),
			Offset: t.Size, Bytes: max(0, t.NamedSize-t.Size), Lower: t.Lower, Upper: t.Upper})
	}
	f, err := r.fs.Open(t.File, vfs.SequentialReadsOption)
	if err != nil {
		return nil, fmt.Errorf("storage: salvage: %w", err)
	}
	if it.read, err = sstable.NewSimpleReadable(f); err != nil {
		return nil, errors.Join(fmt.Errorf("storage: salvage %s: %w", t.File, err), f.Close())
	}
	it.data.InitOnce(&it.schema, pebble.DefaultComparer, &it.values)
	defer func() {
		if err != nil {
			err = errors.Join(err, it.Close())
		}
	}()
	if err := it.openIndex(); refused(err) {
		return nil, fmt.Errorf("storage: salvage %s: %w", t.File, err)
	} else if err != nil {
		// Without its last blocks nobody knows whether it had range tombstones.
		it.lose(LostBlock{What: "index or footer; its blocks are searched for without them", Err: err,
			Lower: t.Lower, Upper: t.Upper, Ranges: it.table == nil})
		it.merged = it.merged || it.table == nil // it may be
		it.table = nil
		it.blocks = &blockSearch{read: it.read, schema: &it.schema}
	}
	return it, nil
}

// keyBundle is Pebble's own: the tables say that they were written with it.
const keyBundle = 16

// refused tells the errors of the file system from those of the bytes. A disk that
// cannot give its bytes back any more (EIO) has damaged them.
func refused(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.EIO
}

func (it *RemnantIter) openIndex() (err error) {
	defer caught(&err)
	table, err := sstable.NewReader(context.Background(), it.read, sstable.ReaderOptions{})
	if err != nil {
		return err
	}
	it.table = table
	props, err := it.table.ReadPropertiesBlock(context.Background(), nil)
	if err != nil {
		return err
	}
	// A flush writes its tables uncompressed; the last levels are not.
	it.merged = props.CompressionName != "" && props.CompressionName != sstable.NoCompression.Name
	if err := it.readRanges(); refused(err) {
		return err
	} else if err != nil {
		it.ranges = nil
		it.lose(LostBlock{What: "range tombstones", Err: err, Ranges: true})
	}
	layout, err := it.table.Layout()
	if err != nil {
		return err
	}
	it.blocks = &blockIndex{table: it.table, blocks: layout.Index}
	return nil
}

func (it *RemnantIter) readRanges() (err error) {
	defer caught(&err)
	spans, err := it.table.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil || spans == nil {
		return err
	}
	defer spans.Close()
	span, err := spans.First()
	for ; span != nil && err == nil; span, err = spans.Next() {
		if len(span.Keys) == 0 || span.End[0] < userPrefix {
			continue
		}
		it.ranges = append(it.ranges, RangeTombstone{ // Keys are newest first
			Lower: bytes.Clone(userKey(span.Start)), Upper: bytes.Clone(userKey(span.End)), Seq: uint64(span.Keys[0].SeqNum()),
		})
	}
	return err
}

// Next moves to the next entry. False is the end, or what Err says.
func (it *RemnantIter) Next() bool {
	for it.err == nil && it.blocks != nil {
		ok, err := it.step()
		switch {
		case refused(err):
			it.err = fmt.Errorf("storage: salvage %s: %w", it.file, err)
		case err != nil:
			it.loseAt(err)
			it.began = false
		case ok:
			return true
		case !it.nextBlock():
			return false
		}
	}
	return false
}

// step moves within the block. What decodes wrongly panics in Pebble.
func (it *RemnantIter) step() (ok bool, err error) {
	defer caught(&err)
	if it.at.handle.Length == 0 {
		return false, nil
	}
	for {
		move := it.data.Next
		if !it.began {
			move = it.data.First
		}
		it.began = true
		kv := move()
		if kv == nil {
			it.at = blockAt{upper: it.at.upper}
			return false, nil
		}
		inner := kv.K.UserKey
		if len(inner) == 0 || bytes.Compare(inner, it.last) < 0 {
			return false, fmt.Errorf("%w: key %.40q after %.40q", ErrOrder, inner, it.last)
		}
		it.last = append(it.last[:0], inner...)
		if !kv.V.IsInPlaceValue() {
			// Pebble puts only values aside that a newer entry of the same key, right
			// before, had replaced: whoever reads tables by themselves has no use for them.
			continue
		}
		switch inner[0] {
		case userPrefix:
		case ownPrefix:
			it.own(inner, kv.InPlaceValue())
			continue
		default: // the index of blobs is made anew from the cells
			continue
		}
		it.deleted, it.cell = false, nil
		switch kv.Kind() {
		case sstable.InternalKeyKindSet, sstable.InternalKeyKindSetWithDelete:
			it.cell = kv.InPlaceValue()
		case sstable.InternalKeyKindDelete, sstable.InternalKeyKindDeleteSized, sstable.InternalKeyKindSingleDelete:
			it.deleted = true
		default:
			return false, fmt.Errorf("%w: entry of kind %d", ErrOrder, kv.Kind())
		}
		it.key, it.seq = it.last[1:], uint64(kv.SeqNum())
		return true, nil
	}
}

// own looks at one of storage's own keys.
func (it *RemnantIter) own(inner, value []byte) {
	if !bytes.Equal(inner, watermarkKey) {
		return
	}
	if w, err := decodeWatermark(value); err == nil && (!it.marked || w.LSN > it.mark.LSN) {
		it.mark, it.marked = w, true
	}
}

// nextBlock goes to the next block that verifies.
func (it *RemnantIter) nextBlock() bool {
	for {
		at, ok, err := it.blocks.next(it.lose)
		if err != nil {
			it.err = fmt.Errorf("storage: salvage %s: %w", it.file, err)
		}
		if err != nil || !ok {
			return false
		}
		it.at, it.began = at, false
		err = it.load(at.handle)
		if err == nil {
			return true
		}
		if refused(err) {
			it.err = fmt.Errorf("storage: salvage %s: %w", it.file, err)
			return false
		}
		it.loseAt(err)
	}
}

func (it *RemnantIter) load(h block.Handle) (err error) {
	defer caught(&err)
	b, err := it.reader().Read(context.Background(), block.NoReadEnv, nil, h, blockkind.SSTableData,
		func(md *block.Metadata, data []byte) error { return colblk.InitDataBlockMetadata(&it.schema, md, data) })
	if err != nil {
		return err
	}
	return it.data.InitHandle(pebble.DefaultComparer, b, block.NoTransforms)
}

func (it *RemnantIter) reader() *block.Reader {
	if it.table != nil {
		return it.table.BlockReader()
	}
	return it.blocks.(*blockSearch).reader()
}

// loseAt notes the block that it stands in.
func (it *RemnantIter) loseAt(err error) {
	l := LostBlock{Offset: int64(it.at.handle.Offset), Bytes: int64(it.at.handle.Length), What: "block does not verify", Err: err}
	if it.at.known {
		l.Own = len(it.at.upper) > 0 && it.at.upper[0] < userPrefix
		l.Lower, l.Upper = bytes.Clone(userKey(it.at.lower)), bytes.Clone(userKey(it.at.upper))
	} else if len(it.last) > 0 {
		l.Lower = bytes.Clone(userKey(it.last))
	}
	it.lose(l)
	it.at = blockAt{upper: it.at.upper}
}

func (it *RemnantIter) lose(l LostBlock) {
	l.File = it.file
	it.lost = append(it.lost, l)
}

// Key is the user key.
func (it *RemnantIter) Key() []byte { return it.key }

// Cell is the key's cell; nil for a tombstone.
func (it *RemnantIter) Cell() []byte { return it.cell }

// Deleted says that the entry is a tombstone.
func (it *RemnantIter) Deleted() bool { return it.deleted }

// Seq is the sequence number in the file: zero in a table that was ingested and
// never rewritten, and in one that lies below everything.
func (it *RemnantIter) Seq() uint64 { return it.seq }

// Watermark is the highest that was passed; false if none was.
func (it *RemnantIter) Watermark() (Watermark, bool) { return it.mark, it.marked }

// Ranges are the table's range tombstones, in key order without overlaps, with the
// newest number over each.
func (it *RemnantIter) Ranges() []RangeTombstone { return it.ranges }

// Merged says that a compaction wrote the table for one of the last levels, or may
// have.
func (it *RemnantIter) Merged() bool { return it.merged }

// Lost gives out, once, what could not be read up to here.
func (it *RemnantIter) Lost() []LostBlock {
	l := it.lost
	it.lost = nil
	return l
}

// Err is what the file system refused.
func (it *RemnantIter) Err() error { return it.err }

// Close ends the reading.
func (it *RemnantIter) Close() (err error) {
	defer caught(&err)
	_ = it.data.Close() // never fails
	if b, ok := it.blocks.(*blockIndex); ok {
		_ = b.index.Close()
	}
	it.blocks = nil
	if it.read == nil {
		return nil
	}
	read := it.read
	it.read = nil
	return read.Close()
}
