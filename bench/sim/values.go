package main

import (
	"encoding/binary"
	"fmt"
)

// keyBytes and overhead are charged to otter as to our L1.
const overhead = 224

var units = []string{"active", "pending", "closed", "eur", "usd", "north", "south", "none"}

// template is a record with holes: places whose digits differ from key to key.
type template struct {
	text  []byte
	holes []int
}

var templates = makeTemplates()

func makeTemplates() (out []template) {
	for i := range 64 {
		size := 100 << (i % 6) // 100 B to 3.2 KB, and what is between
		size += size * (i / 6) / 11 / 2
		t := template{text: fmt.Appendf(nil, `{"id":"user-`)}
		hole := func() {
			t.holes = append(t.holes, len(t.text))
			t.text = append(t.text, "00000000"...)
		}
		hole()
		t.text = append(t.text, `"`...)
		for k := 0; len(t.text) < size; k++ {
			t.text = fmt.Appendf(t.text, `,"field_%02d":{"value":`, k)
			hole()
			t.text = fmt.Appendf(t.text, `,"state":"%s"}`, units[(i+k*7)%len(units)])
		}
		t.text = append(t.text, '}')
		out = append(out, t)
	}
	return out
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func of(key uint32) *template { return &templates[mix(uint64(key)*3)%64] }

// value makes the record of a key.
func value(key uint32) []byte {
	t := of(key)
	b := append(make([]byte, 0, len(t.text)), t.text...)
	x := uint64(key)
	for _, at := range t.holes {
		x = mix(x)
		for j := range 7 {
			b[at+j] = '0' + byte(x>>(8*j))%10
		}
	}
	return b
}

func meanValue() (n int) {
	for _, t := range templates {
		n += len(t.text)
	}
	return n / len(templates)
}

// noise is as long as the record of the key, and does not compress.
func noise(key uint32) []byte {
	b := make([]byte, (len(of(key).text)+7)&^7)
	x := uint64(key)
	for i := 0; i < len(b); i += 8 {
		x = mix(x)
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	return b[:len(of(key).text)]
}
