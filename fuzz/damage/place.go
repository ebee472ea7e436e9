package damage

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"path"
	"strings"
)

// swappedFiles exchanges files of one class, by pairs.
func swappedFiles(f *Fixture) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		files := f.Image.Files()
		for i, x := range files {
			for _, y := range files[i+1:] {
				if Class(x) != Class(y) || bytes.Equal(f.Image[x], f.Image[y]) {
					continue
				}
				if !yield(Case{Class: Class(x), What: fmt.Sprintf("%s and %s swapped", x, y), Make: func() Image {
					return f.Image.With(x, f.Image[y]).With(y, f.Image[x])
				}}) {
					return
				}
			}
		}
	}
}

// older are the files of an earlier moment that are others now, or are gone.
func (f *Fixture) older(m Moment) (out []part) {
	for _, name := range m.Image.Files() {
		if now, ok := f.Image[name]; !ok || !bytes.Equal(now, m.Image[name]) {
			out = append(out, part{name, m.Image[name]})
		}
	}
	return out
}

// rewinds says whether the files put back are both that bear promises, STATE and the
// newest segment of the log: then nothing on this disk knows better, and a state that
// the store once had is the right answer.
func (f *Fixture) rewinds(m Moment, puts []part) *uint64 {
	var state, log bool
	for _, p := range puts {
		state = state || p.name == "STATE"
		log = log || p.name == newest(f.Image)
	}
	if !state || !log {
		return nil
	}
	return &m.LSN
}

// staleFiles puts back each file as it was at each earlier moment, alone: a disk that
// forgot its last writes.
func staleFiles(f *Fixture) iter.Seq[Case] {
	return f.stale(func(m Moment, yield func(what string, puts ...part) bool) bool {
		for _, p := range f.older(m) {
			if !yield(p.name, p) {
				return false
			}
		}
		return true
	})
}

func stalePairs(f *Fixture) iter.Seq[Case] {
	return f.stale(func(m Moment, yield func(what string, puts ...part) bool) bool {
		all := f.older(m)
		for i, p := range all {
			for _, q := range all[i+1:] {
				if !yield(p.name+" and "+q.name, p, q) {
					return false
				}
			}
		}
		return true
	})
}

// staleFolders puts back all of a folder, or L3's manifest with all that points to it:
// what the moment did not have goes.
func staleFolders(f *Fixture) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		for _, m := range f.Moments {
			for _, d := range []string{"l3/", "log/", "packs/", "l3/ but its tables"} {
				if !yield(Case{Class: "folder", What: fmt.Sprintf("%s of %q", d, m.Name), Make: func() Image {
					folder, but := strings.CutSuffix(d, " but its tables")
					goes := func(n string) bool { return strings.HasPrefix(n, folder) && !(but && Class(n) == "table") }
					im := maps.Clone(f.Image)
					maps.DeleteFunc(im, func(n string, _ []byte) bool { return goes(n) })
					for n, b := range m.Image {
						if goes(n) {
							im[n] = b
						}
					}
					return im
				}}) {
					return
				}
			}
		}
	}
}

func (f *Fixture) stale(cases func(m Moment, yield func(what string, puts ...part) bool) bool) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		for _, m := range f.Moments {
			more := cases(m, func(what string, puts ...part) bool {
				im := f.Image
				for _, p := range puts {
					im = im.With(p.name, p.b)
				}
				return yield(Case{
					Class: Class(puts[0].name), What: fmt.Sprintf("%s of %q", what, m.Name),
					Make: func() Image { return im }, Rewinds: f.rewinds(m, puts),
				})
			})
			if !more {
				return
			}
		}
	}
}

// foreign puts the file, or folder, of another store with the same history in place.
func foreign(f *Fixture) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		for _, n := range f.Image.names() {
			theirs, ok := f.Foreign[n]
			if !ok || bytes.Equal(theirs, f.Image[n]) && !strings.HasSuffix(n, "/") {
				continue
			}
			if !yield(Case{Class: Class(n), What: n + " of another store", Make: func() Image {
				im := f.Image.Without(n).With(n, theirs)
				if strings.HasSuffix(n, "/") {
					for m, b := range f.Foreign {
						if strings.HasPrefix(m, n) {
							im[m] = b
						}
					}
				}
				return im
			}}) {
				return
			}
		}
	}
}

func missing(f *Fixture) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		for _, n := range f.Image.names() {
			if !yield(Case{Class: Class(n), What: n + " is gone", System: true, File: n, Make: func() Image { return f.Image.Without(n) }}) {
				return
			}
		}
	}
}

// wrongSort puts a folder where a file should be, a file where a folder should be,
// and an empty file in the place of each.
func wrongSort(f *Fixture) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		for _, n := range f.Image.names() {
			bare := strings.TrimSuffix(n, "/")
			made := []part{{"a folder", nil}, {"a folder with a file", []byte("x")}, {"a file", []byte("not a folder")}, {"an empty file", nil}}
			for i, p := range made {
				if i == 3 && bare == n && len(f.Image[n]) == 0 {
					continue // as it was
				}
				if !yield(Case{Class: Class(n), What: fmt.Sprintf("%s is %s", n, p.name), System: true, Make: func() Image {
					im := f.Image.Without(n)
					switch i {
					case 0:
						return im.With(bare+"/", nil)
					case 1:
						return im.With(bare+"/", nil).With(bare+"/x", p.b)
					}
					return im.With(bare, p.b)
				}}) {
					return
				}
			}
		}
	}
}

// extras are files that nobody knows, in every folder, under names that look like
// ours and under names that do not.
func extras(f *Fixture) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		names := []string{"lost+found/", "readme.txt", ".hidden", "core"}
		for _, d := range []string{"l3", "log", "packs"} {
			for _, n := range []string{"readme.txt", "sub/", "00000000000000000099.wal", "00000000000000000099.pack",
				"00000000000000000001.pack.tmp", "spare-00000000000000000077.tmp", "lost-00000000000000000001.wal",
				"1.wal", "x.pack", "000099.sst", "000099.log", "MANIFEST-000099", "OPTIONS-000099", "CURRENT", "temporary.000099.dbtmp"} {
				names = append(names, path.Join(d, n)+n[len(strings.TrimSuffix(n, "/")):])
			}
		}
		for _, n := range names {
			for _, p := range []part{{"empty", nil}, {"garbage", garbage(5000, 1)}, {"zeros", zeros(16<<10, 0)}} {
				if strings.HasSuffix(n, "/") {
					p = part{"a folder", nil}
				}
				if !yield(Case{Class: "unknown", What: fmt.Sprintf("%s (%s) came", n, p.name), System: true, Make: func() Image { return f.Image.With(n, p.b) }}) {
					return
				}
			}
		}
	}
}
