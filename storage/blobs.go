package storage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// The index of blobs says, pack by pack, which keys name a blob there. It changes in
// the ingest that changes the cells (I4), so it is exact at the watermark: an entry
// for each cell that names a blob, and none for any other blob.

// blobAt is where a blob lies; with blobPrefix before it, in big-endian, it is the
// inner key of its entry.
type blobAt struct{ pack, offset uint64 }

const blobKeyLen = 1 + 8 + 8

func (a blobAt) appendKey(dst []byte) []byte {
	dst = append(dst, blobPrefix)
	dst = binary.BigEndian.AppendUint64(dst, a.pack)
	return binary.BigEndian.AppendUint64(dst, a.offset)
}

// SetBlob enters the blob that the cell of key names, and the bytes it takes there.
// Of two calls for one place the last one counts, DropBlob included.
func (in *Ingest) SetBlob(pack, offset, stored uint64, key []byte) {
	in.blob(blobAt{pack, offset}, append(binary.AppendUvarint(nil, stored), key...))
}

// DropBlob takes out the entry of a blob that no cell names any more. One that is not
// there is none to drop.
func (in *Ingest) DropBlob(pack, offset uint64) { in.blob(blobAt{pack, offset}, nil) }

func (in *Ingest) blob(at blobAt, entry []byte) {
	if in.blobs == nil {
		in.blobs = make(map[blobAt][]byte)
	}
	in.blobs[at] = entry
}

// SetIndexed says that with this ingest the index is exact; see [Store.Indexed].
func (in *Ingest) SetIndexed() { in.indexed = true }

func (in *Ingest) writeIndexed(t *tableWriter) error {
	if !in.indexed || in.s.indexed.Load() {
		return nil
	}
	return t.w.Set(indexedKey, []byte{indexVersion})
}

const indexVersion = 1

// writeBlobs writes the index's entries behind storage's other own keys.
func (in *Ingest) writeBlobs(t *tableWriter) error {
	at := slices.SortedFunc(maps.Keys(in.blobs), func(a, b blobAt) int {
		return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.offset, b.offset))
	})
	var key []byte
	for _, a := range at {
		key = a.appendKey(key[:0])
		var err error
		if entry := in.blobs[a]; entry == nil {
			err = t.w.Delete(key)
		} else {
			err = t.w.Set(key, entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Indexed says whether the index of blobs is exact. It is not in an L3 that something
// wrote that keeps none: then the caller scans the cells once, and enters what they
// name with the next ingest.
func (s *Store) Indexed() bool { return s.indexed.Load() }

// loadIndexed reads the note at open; nothing is ingested yet.
func (s *Store) loadIndexed(sn *Snapshot) error {
	b, ok, err := sn.getInner(indexedKey)
	switch {
	case err != nil:
		return err
	case ok && !bytes.Equal(b, []byte{indexVersion}):
		return fmt.Errorf("storage: index of blobs: version % x is not known", b)
	}
	s.indexed.Store(ok)
	return nil
}

// EachBlob calls fn for every entry of the index, in the order of packs and offsets,
// until fn returns an error, which it returns. The key is valid inside fn only.
func (sn *Snapshot) EachBlob(fn func(pack, offset, stored uint64, key []byte) error) error {
	return sn.eachBlob([]byte{blobPrefix}, []byte{blobPrefixEnd}, fn)
}

// EachBlobOf is EachBlob for one pack.
func (sn *Snapshot) EachBlobOf(pack uint64, fn func(pack, offset, stored uint64, key []byte) error) error {
	lower := blobAt{pack, 0}.appendKey(nil)
	upper := []byte{blobPrefixEnd}
	if pack+1 != 0 {
		upper = blobAt{pack + 1, 0}.appendKey(nil)
	}
	return sn.eachBlob(lower, upper, fn)
}

func (sn *Snapshot) eachBlob(lower, upper []byte, fn func(pack, offset, stored uint64, key []byte) error) error {
	it := new(Iter)
	err := sn.init(it, false, func(buf []byte) (_, _, _ []byte) { return lower, upper, buf })
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key() // without the prefix
		v := it.Value()
		if it.Err() != nil {
			break
		}
		stored, n := binary.Uvarint(v)
		if len(k) != blobKeyLen-1 || n <= 0 {
			return &CorruptError{What: fmt.Sprintf("index of blobs: entry %x", k)}
		}
		if err := fn(binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(k[8:]), stored, v[n:]); err != nil {
			return err
		}
	}
	return it.Err()
}
