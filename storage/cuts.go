package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sort"
)

// cutPoints are the user keys at which every ingest cuts its tables (S5).
// Tables of different ingests then share their borders, so a compaction of one
// range drags in no neighbour (103-106 MB/s of random keys on two cores
// against 31-39 with borders that fall anywhere).
//
// They adapt like this. The first ingest of at least cutsMinBytes chooses the
// quantiles of its own keys, and they are stored with it. Later they are
// chosen again only when one range took more than half of such an ingest and
// L3 has grown cutsRegrowth-fold since the last choice: keys that always
// ascend are unbalanced for ever, and new borders every time would be worse
// than lopsided ones.
type cutPoints struct {
	chosenAt uint64 // bytes in L3 then; zero: never chosen
	keys     [][]byte
}

const (
	cutRanges    = 16
	cutKeyBytes  = 64 // of a cut point are kept; a border may be any key
	cutsMinBytes = 4 << 20
	cutsRegrowth = 4
	cutsVersion  = 1

	// A table is closed at a cut point only when this much is in it: small
	// flushes do not pay sixteen syncs.
	tableMinBytes = 256 << 10
	// And anywhere when it holds this much; before cut points exist, the second.
	tableMaxBytes   = 32 << 20
	tableFirstBytes = 4 << 20
)

func (c cutPoints) encode() []byte {
	b := []byte{cutsVersion}
	b = binary.LittleEndian.AppendUint64(b, c.chosenAt)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(c.keys)))
	for _, k := range c.keys {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(k)))
		b = append(b, k...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeCuts(b []byte) (cutPoints, error) {
	var c cutPoints
	bad := func(what string) (cutPoints, error) {
		return cutPoints{}, &CorruptError{What: "cut points: " + what}
	}
	if len(b) < 15 {
		return bad(fmt.Sprintf("%d bytes", len(b)))
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return bad("checksum")
	}
	if body[0] != cutsVersion {
		return c, fmt.Errorf("storage: cut points: version %d is not known", body[0])
	}
	c.chosenAt = binary.LittleEndian.Uint64(body[1:])
	n := int(binary.LittleEndian.Uint16(body[9:]))
	rest := body[11:]
	for range n {
		if len(rest) < 2 {
			return bad("short")
		}
		l := int(binary.LittleEndian.Uint16(rest))
		rest = rest[2:]
		if l > len(rest) {
			return bad("short key")
		}
		c.keys = append(c.keys, bytes.Clone(rest[:l]))
		rest = rest[l:]
	}
	if len(rest) != 0 || n >= cutRanges || !sort.SliceIsSorted(c.keys, func(i, j int) bool {
		return bytes.Compare(c.keys[i], c.keys[j]) < 0
	}) {
		return bad("order or length")
	}
	return c, nil
}

// sampler keeps keys at equal distances in bytes, at most sampleKeys of them:
// when it is full, every second one goes and the distance doubles.
type sampler struct {
	every uint64
	since uint64
	total uint64
	keys  [][]byte
}

const (
	sampleKeys  = 1024
	sampleEvery = 4 << 10
)

func (sm *sampler) add(key []byte, n int) {
	if sm.every == 0 {
		sm.every = sampleEvery
	}
	sm.since += uint64(n)
	sm.total += uint64(n)
	if sm.since < sm.every {
		return
	}
	sm.since = 0
	sm.keys = append(sm.keys, bytes.Clone(key[:min(len(key), cutKeyBytes)]))
	if len(sm.keys) == sampleKeys {
		for i := range sampleKeys / 2 {
			sm.keys[i] = sm.keys[2*i+1]
		}
		clear(sm.keys[sampleKeys/2:])
		sm.keys = sm.keys[:sampleKeys/2]
		sm.every *= 2
	}
}

// choose returns the points to store with this ingest, or false to keep old.
func (sm *sampler) choose(old cutPoints, bytesInL3 uint64) (cutPoints, bool) {
	if sm.total < cutsMinBytes || len(sm.keys) < 4*cutRanges {
		return old, false
	}
	if old.chosenAt != 0 && (bytesInL3 < cutsRegrowth*old.chosenAt || !sm.lopsided(old)) {
		return old, false
	}
	c := cutPoints{chosenAt: max(bytesInL3+sm.total, 1)}
	for i := 1; i < cutRanges; i++ {
		k := sm.keys[i*len(sm.keys)/cutRanges]
		// Long common beginnings fall together when they are shortened.
		if n := len(c.keys); len(k) > 0 && (n == 0 || bytes.Compare(c.keys[n-1], k) < 0) {
			c.keys = append(c.keys, k)
		}
	}
	return c, true
}

// lopsided tells whether one range of c took more than half of the sample.
func (sm *sampler) lopsided(c cutPoints) bool {
	at := 0
	for i := 0; i <= len(c.keys); i++ {
		from := at
		for at < len(sm.keys) && (i == len(c.keys) || bytes.Compare(sm.keys[at], c.keys[i]) < 0) {
			at++
		}
		if at-from > len(sm.keys)/2 {
			return true
		}
	}
	return false
}
