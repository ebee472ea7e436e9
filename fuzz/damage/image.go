package damage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Image is the files of a store at one moment: names relative to the store's
// directory, folders as names with a slash at the end and no bytes. The bytes of an
// image are never changed; whoever damages a file puts another slice in its place.
type Image map[string][]byte

// Read takes the image of dir.
func Read(fs vfs.FS, dir string) (Image, error) {
	im := Image{}
	return im, im.read(fs, dir, "")
}

func (im Image) read(fs vfs.FS, dir, under string) error {
	names, err := fs.List(fs.PathJoin(dir, under))
	if err != nil {
		return err
	}
	for _, n := range names {
		name := path.Join(under, n)
		info, err := fs.Stat(fs.PathJoin(dir, name))
		if err != nil {
			return err
		}
		if info.IsDir() {
			im[name+"/"] = nil
			if err := im.read(fs, dir, name); err != nil {
				return err
			}
			continue
		}
		if im[name], err = contents(fs, fs.PathJoin(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func contents(fs vfs.FS, name string) (_ []byte, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// Write lays the image down in dir.
func (im Image) Write(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range im.names() { // a folder comes before what is in it
		at := fs.PathJoin(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := fs.MkdirAll(strings.TrimSuffix(at, "/"), 0o755); err != nil {
				return err
			}
			continue
		}
		if err := replace(fs, at, im[name]); err != nil {
			return err
		}
	}
	return nil
}

func replace(fs vfs.FS, name string, b []byte) error {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(b)) // with -race a MemFS spoils what it was given
	return errors.Join(err, f.Close())
}

func (im Image) names() []string { return slices.Sorted(maps.Keys(im)) }

// Files are the names that are no folders, sorted.
func (im Image) Files() []string {
	return slices.DeleteFunc(im.names(), func(n string) bool { return strings.HasSuffix(n, "/") })
}

// With returns the image with other bytes in one file.
func (im Image) With(name string, b []byte) Image {
	out := maps.Clone(im)
	out[name] = b
	return out
}

// Without returns the image without a file, or without a folder and all that is in it.
func (im Image) Without(name string) Image {
	out := maps.Clone(im)
	delete(out, name)
	if strings.HasSuffix(name, "/") {
		maps.DeleteFunc(out, func(n string, _ []byte) bool { return strings.HasPrefix(n, name) })
	}
	return out
}

// Changed names what differs between two images: "a file" gone, there, or other.
func (im Image) Changed(later Image) (out []string) {
	for _, n := range im.names() {
		if b, ok := later[n]; !ok {
			out = append(out, fmt.Sprintf("%s is gone", n))
		} else if !bytes.Equal(b, im[n]) {
			out = append(out, fmt.Sprintf("%s is another", n))
		}
	}
	for _, n := range later.names() {
		if _, ok := im[n]; !ok {
			out = append(out, fmt.Sprintf("%s came", n))
		}
	}
	return out
}
