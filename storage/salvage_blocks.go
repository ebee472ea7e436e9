package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/block/blockkind"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
)

// blockIndex follows the index of a table.
type blockIndex struct {
	table  *sstable.Reader
	blocks []block.Handle // of the index, not read yet
	index  colblk.IndexIter
	valid  bool
	lower  []byte
}

func (b *blockIndex) next(lose func(LostBlock)) (at blockAt, ok bool, err error) {
	for {
		err = func() (err error) {
			defer caught(&err)
			at, ok, err = b.step()
			return err
		}()
		if err == nil || refused(err) {
			return at, ok, err
		}
		b.valid = false
		lose(LostBlock{What: "a part of the index", Err: err, Lower: bytes.Clone(userKey(b.lower))})
	}
}

func (b *blockIndex) step() (at blockAt, ok bool, err error) {
	if b.valid {
		b.valid = b.index.Next()
	}
	for !b.valid {
		if len(b.blocks) == 0 {
			return at, false, nil
		}
		h := b.blocks[0]
		b.blocks = b.blocks[1:]
		data, err := b.table.BlockReader().Read(context.Background(), block.NoReadEnv, nil, h, blockkind.Index, colblk.InitIndexBlockMetadata)
		if err != nil {
			return at, false, err
		}
		if err := b.index.InitHandle(pebble.DefaultComparer, data, block.NoTransforms); err != nil {
			return at, false, err
		}
		b.valid = b.index.First()
	}
	h, err := b.index.BlockHandleWithProperties()
	if err != nil {
		return at, false, err
	}
	at = blockAt{handle: h.Handle, known: true, lower: b.lower, upper: bytes.Clone(b.index.Separator())}
	b.lower = at.upper
	return at, true, nil
}

// untraced is the one thing that Pebble's reader of blocks does not do without.
type untraced struct{ pebble.Logger }

func (untraced) Eventf(context.Context, string, ...any) {}
func (untraced) IsTracingEnabled(context.Context) bool  { return false }

// blockSearch finds the data blocks of a table without its index: they stand one
// behind the other from its beginning, and the checksum behind each one says where
// it ends. It stops at the first that is no data block.
type blockSearch struct {
	read   objstorage.Readable
	schema *colblk.KeySchema
	off    int64
	blocks block.Reader
	ready  bool
	buf    []byte
}

// maxBlockBytes bounds the search for the end of one block.
const maxBlockBytes = 4 << 20

func (b *blockSearch) reader() *block.Reader {
	if !b.ready {
		var o block.ReaderOptions
		o.LoggerAndTracer = untraced{} // a read that takes 5 ms asks for it
		b.blocks.Init(b.read, o, block.ChecksumTypeCRC32c)
		b.ready = true
	}
	return &b.blocks
}

func (b *blockSearch) next(lose func(LostBlock)) (at blockAt, ok bool, err error) {
	n := int(min(b.read.Size()-b.off, maxBlockBytes))
	if n <= block.TrailerLen {
		return at, false, nil
	}
	if cap(b.buf) < n {
		b.buf = make([]byte, n)
	}
	buf := b.buf[:n]
	if err := b.read.ReadAt(context.Background(), buf, b.off); err != nil {
		return at, false, err
	}
	end, found := blockEnd(buf)
	if !found {
		if b.off < b.read.Size()-maxMetaBytes {
			lose(LostBlock{Offset: b.off, Bytes: b.read.Size() - b.off, What: "everything behind a block without an end"})
		}
		b.off = b.read.Size()
		return at, false, nil
	}
	h := block.Handle{Offset: uint64(b.off), Length: uint64(end)}
	b.off += int64(end) + block.TrailerLen
	isData, err := b.isData(h)
	if err != nil || !isData {
		b.off = b.read.Size()
		return at, false, err
	}
	return blockAt{handle: h}, true, nil
}

// maxMetaBytes is less than what stands behind the data of any table: a search that
// ends there ended at the footer.
const maxMetaBytes = 64

// blockEnd finds the first length at which what follows is the block's trailer: how
// it is compressed, and the checksum of both.
func blockEnd(b []byte) (int, bool) {
	crc := ^uint32(0)
	for i := 0; i+block.TrailerLen <= len(b); i++ {
		if kind := b[i]; i > 0 && kind <= byte(block.MinLZCompressionIndicator) {
			sum := ^(castagnoli[byte(crc)^kind] ^ crc>>8)
			if binary.LittleEndian.Uint32(b[i+1:]) == masked(sum) {
				return i, true
			}
		}
		crc = castagnoli[byte(crc)^b[i]] ^ crc>>8
	}
	return 0, false
}

// masked is how Pebble stores a checksum, so that data with checksums in it does not
// look like one.
func masked(crc uint32) uint32 { return (crc>>15 | crc<<17) + 0xa282ead8 }

// isData looks whether a block that verifies has the columns of a data block.
func (b *blockSearch) isData(h block.Handle) (is bool, err error) {
	defer caught(&err)
	v, err := b.reader().Read(context.Background(), block.NoReadEnv, nil, h, blockkind.SSTableData,
		func(*block.Metadata, []byte) error { return nil })
	if err != nil {
		if refused(err) {
			return false, fmt.Errorf("block at %d: %w", h.Offset, err)
		}
		return false, nil
	}
	defer v.Release()
	data := v.BlockData()
	const custom, columns = 4, 5 // of a data block, besides those of its keys
	return len(data) > custom+3 && data[custom] == 1 &&
		int(binary.LittleEndian.Uint16(data[custom+1:])) == len(b.schema.ColumnTypes)+columns, nil
}
