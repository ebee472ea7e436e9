package compaction

import (
	"cmp"
	"slices"

	"github.com/holdfastdb/holdfast/mmap"
)

// BlobAt is where a blob lies.
type BlobAt struct{ Pack, Offset uint64 }

// BlobKey stands for a key: two independent hashes of it, of 64 bits each, so that no
// two keys of a store share one.
type BlobKey [2]uint64

// Blobs accounts for large values: which blob each key names, and which died but may
// still be read. It takes some 120 bytes a blob. It follows the commits in their order
// and the flushes in theirs; its owner serialises the calls.
//
//   - B1: whatever a cell names, in a generation or in L3, is kept.
//   - B2: what died is kept until L3 has the commit that killed it, and no snapshot is
//     older than that commit (I7).
type Blobs struct {
	byKey   map[BlobKey]BlobAt
	packs   map[uint64]*packBlobs
	placed  []BlobAt // of commits above flushed, in their order
	numbers []uint64 // commit numbers of placed
	dead    []death  // by number
	risen   []death  // above flushed, of blobs that a commit named again since
	flushed uint64
	live    int64 // bytes
}

type packBlobs struct {
	kept  map[uint64]kept // by offset
	bytes int64           // that a rewrite fills with them
}

type kept struct {
	key    BlobKey
	stored uint64
	placed uint64 // the last commit that named it; zero: L3 had it
}

type death struct {
	lsn    uint64
	at     BlobAt
	stored uint64
}

// NewBlobs begins an account at the watermark.
func NewBlobs(flushed uint64) *Blobs {
	return &Blobs{byKey: make(map[BlobKey]BlobAt), packs: make(map[uint64]*packBlobs), flushed: flushed}
}

// Len is the number of keys that name a blob.
func (b *Blobs) Len() int { return len(b.byKey) }

// Live is how many bytes the blobs take that keys name.
func (b *Blobs) Live() int64 { return b.live }

// Load enters what L3 has.
func (b *Blobs) Load(key BlobKey, at BlobAt, stored uint64) { b.enter(key, at, kept{key, stored, 0}) }

// Put says that commit lsn let key name a blob. A batch that is committed again lets
// the key name one that may have died.
func (b *Blobs) Put(key BlobKey, at BlobAt, stored, lsn uint64) {
	if old, ok := b.byKey[key]; ok && old != at {
		b.die(old, lsn)
	}
	if p := b.packs[at.Pack]; p != nil && p.kept[at.Offset].stored != 0 && b.byKey[key] != at {
		if i := slices.IndexFunc(b.dead, func(d death) bool { return d.at == at }); i >= 0 {
			b.risen = append(b.risen, b.dead[i])
			b.dead = slices.Delete(b.dead, i, i+1)
		}
	}
	b.enter(key, at, kept{key, stored, lsn})
	b.placed, b.numbers = append(b.placed, at), append(b.numbers, lsn)
}

func (b *Blobs) enter(key BlobKey, at BlobAt, k kept) {
	if b.byKey[key] != at {
		b.byKey[key] = at
		b.live += int64(k.stored)
	}
	p := b.packs[at.Pack]
	if p == nil {
		p = &packBlobs{kept: make(map[uint64]kept)}
		b.packs[at.Pack] = p
	}
	if _, ok := p.kept[at.Offset]; !ok {
		_, n := mmap.RewrittenBytes(k.stored)
		p.bytes += n
	}
	p.kept[at.Offset] = k
}

// Delete says that commit lsn wrote something else to key.
func (b *Blobs) Delete(key BlobKey, lsn uint64) {
	if old, ok := b.byKey[key]; ok {
		delete(b.byKey, key)
		b.die(old, lsn)
	}
}

func (b *Blobs) die(at BlobAt, lsn uint64) { b.bury(lsn, b.death(at, lsn)) }

// death takes a blob out of what is live.
func (b *Blobs) death(at BlobAt, lsn uint64) death {
	d := death{lsn, at, b.packs[at.Pack].kept[at.Offset].stored}
	b.live -= int64(d.stored)
	return d
}

// bury enters deaths that are all of commit lsn.
func (b *Blobs) bury(lsn uint64, deaths ...death) {
	i := len(b.dead)
	for i > 0 && b.dead[i-1].lsn > lsn {
		i--
	}
	b.dead = slices.Insert(b.dead, i, deaths...)
}

// Unflushed is how many bytes died that only a flush makes collectable.
func (b *Blobs) Unflushed() (n int64) {
	for i := len(b.dead) - 1; i >= 0 && b.dead[i].lsn > b.flushed; i-- {
		n += int64(b.dead[i].stored)
	}
	return n
}

// Dead is how many blobs died and are kept.
func (b *Blobs) Dead() int { return len(b.dead) }

// Died lists what died above the last flush and through number last, named again or not:
// L3 hears of that from the cell.
func (b *Blobs) Died(last uint64) (out []BlobAt) {
	for _, deaths := range [...][]death{b.dead, b.risen} {
		for _, d := range deaths {
			if d.lsn > b.flushed && d.lsn <= last {
				out = append(out, d.at)
			}
		}
	}
	return out
}

// Flushed says that L3 has everything through last, and what became of the index: t
// came back from that flush.
func (b *Blobs) Flushed(last uint64, t Turnover) {
	n := 0
	var hidden []death // merged at once: thousands may have died in later commits
	for ; n < len(b.placed) && b.numbers[n] <= last; n++ {
		hidden = b.hide(hidden, b.placed[n], last, t) // by a range delete, before it came down
	}
	b.placed, b.numbers = slices.Delete(b.placed, 0, n), slices.Delete(b.numbers, 0, n)
	for _, at := range t.hidden {
		hidden = b.hide(hidden, at, last, t)
	}
	b.bury(last, hidden...)
	b.risen = slices.DeleteFunc(b.risen, func(d death) bool { return d.lsn <= last })
	b.flushed = last
}

// hide lets a blob die by a range delete at or below last, unless it died already or a
// commit named it after the range delete: one of that flush, or one above it.
func (b *Blobs) hide(hidden []death, at BlobAt, last uint64, t Turnover) []death {
	p := b.packs[at.Pack]
	if p == nil || t.set[at] {
		return hidden
	}
	if k, ok := p.kept[at.Offset]; ok && b.byKey[k.key] == at && k.placed <= last {
		delete(b.byKey, k.key)
		hidden = append(hidden, b.death(at, last))
	}
	return hidden
}

// Collect forgets what died and cannot be read any more: oldest is the lowest number
// that a snapshot may read at (B2).
func (b *Blobs) Collect(oldest uint64) {
	bound := min(oldest, b.flushed)
	n := 0
	for ; n < len(b.dead) && b.dead[n].lsn <= bound; n++ {
		at := b.dead[n].at
		p := b.packs[at.Pack]
		_, freed := mmap.RewrittenBytes(b.dead[n].stored)
		p.bytes -= freed
		if delete(p.kept, at.Offset); len(p.kept) == 0 {
			delete(b.packs, at.Pack)
		}
	}
	b.dead = slices.Delete(b.dead, 0, n)
}

// KeptBytes is how much a rewrite would leave of a pack, zero if nothing: what it takes
// above that is garbage, and a pack that was just rewritten has none.
func (b *Blobs) KeptBytes(pack uint64) int64 {
	if p := b.packs[pack]; p != nil {
		header, _ := mmap.RewrittenBytes(0)
		return header + p.bytes
	}
	return 0
}

// Kept lists, by offset, the blobs of a pack that may still be read.
func (b *Blobs) Kept(pack uint64) (out []mmap.Extent) {
	p := b.packs[pack]
	if p == nil {
		return nil
	}
	for off, k := range p.kept {
		out = append(out, mmap.Extent{Offset: off, Stored: k.stored})
	}
	slices.SortFunc(out, func(a, b mmap.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	return out
}

// Pack is what decides whether a pack is worth rewriting.
type Pack struct {
	Num         uint64
	Bytes, Kept int64
}

// Victim chooses the pack with the largest share of garbage while all together take
// more than amp times what is kept in them, and slack bytes more. False: there is none
// worth it.
func Victim(packs []Pack, amp float64, slack int64) (Pack, bool) {
	var total, keep int64
	worst, share := -1, 0.0
	for i, p := range packs {
		total, keep = total+p.Bytes, keep+p.Kept
		if s := float64(p.Bytes-p.Kept) / float64(p.Bytes); s > share {
			worst, share = i, s
		}
	}
	if worst < 0 || total-keep < slack || float64(total) <= amp*float64(keep) {
		return Pack{}, false
	}
	return packs[worst], true
}
