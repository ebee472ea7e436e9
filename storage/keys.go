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

// lowerBound and upperBound give the inner bounds; nil means open.
func lowerBound(lower []byte) []byte {
	if lower == nil {
		return userLowest
	}
	return appendUser(make([]byte, 0, 1+len(lower)), lower)
}

func upperBound(upper []byte) []byte {
	if upper == nil {
		return userEnd
	}
	return appendUser(make([]byte, 0, 1+len(upper)), upper)
}
