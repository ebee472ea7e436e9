package main

import (
	"errors"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"syscall"
)

func keys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// seekData and seekHole of lseek(2): Badger's files are gigabytes of hole.
const (
	seekData = 3
	seekHole = 4
)

// eachExtent calls f for each part of a file that is no hole.
func eachExtent(name string, visit func(f *os.File, from, to int64) error) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for off := int64(0); ; {
		from, err := f.Seek(off, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return nil // nothing but hole from here on
		}
		if err != nil {
			return err
		}
		to, err := f.Seek(from, seekHole)
		if err != nil {
			return err
		}
		if err := visit(f, from, to); err != nil {
			return err
		}
		off = to
	}
}

// copyTree copies a folder, holes as holes.
func copyTree(dst, src string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dst, name), 0o755)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return copyFile(filepath.Join(dst, name), path, info.Size())
	})
}

func copyFile(dst, src string, size int64) (err error) {
	w, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Truncate(size); err != nil {
		return err
	}
	return eachExtent(src, func(f *os.File, from, to int64) error {
		_, err := io.Copy(io.NewOffsetWriter(w, from), io.NewSectionReader(f, from, to-from))
		return err
	})
}
