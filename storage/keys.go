package storage

// The one-byte prefixes of the room sign.
const (
	ownPrefix     = 0x00
	blobPrefix    = 0x01
	blobPrefixEnd = blobPrefix + 1
	userPrefix    = 0x10
	userPrefixEnd = userPrefix + 1
)

var (
	watermarkKey = []byte("\x00watermark")
	cutsKey      = []byte("\x00cuts")
	indexedKey   = []byte("\x00blobs")

	userLowest = []byte{userPrefix}
	userEnd    = []byte{userPrefixEnd}
)

// appendUser appends the inner key of a user key. The prefix is whole bytes in
// front, so order, and bounds made of 0xff bytes, are those of the user keys.
func appendUser(dst, key []byte) []byte {
	return append(append(dst, userPrefix), key...)
}

// bounds are the inner bounds of user keys, in buf, which comes back with the room it has
// now.
func bounds(buf, lower, upper []byte) (lo, hi, _ []byte) {
	lo, hi = userLowest, userEnd
	if need := 2 + len(lower) + len(upper); cap(buf) < need {
		buf = make([]byte, 0, need)
	}
	b := buf[:0]
	if lower != nil {
		b = appendUser(b, lower)
		lo = b
	}
	if upper != nil {
		n := len(b)
		b = appendUser(b, upper)
		hi = b[n:]
	}
	return lo, hi, buf
}
