package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newImportTree(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tree DIR",
		Short: "Import a directory tree: path to content",
		Long: `Imports every regular file below DIR. The key is the path relative to DIR, with
slashes; the value is the content. Symbolic links below DIR and special files are
skipped and counted; a store inside DIR does not import itself.`,
		Example: `  holdfast import tree -d ./state /usr/share/doc --prefix doc/`,
		Args:    between(1, 1, "one DIR"),
	}
	f := addImportFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		root := args[0]
		info, err := os.Stat(root)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", root)
		}
		own, err := a.storeDir(cmd)
		if err != nil {
			return err
		}
		total := int64(-1)
		if !a.json && isTerminal(a.err) {
			total = treeBytes(root) // a second walk, for the bar alone
		}
		return a.runImport(cmd, f, total, func(i *importer) error { return i.tree(root, own) })
	}
	return cmd
}

// inside is root for a walk: WalkDir follows no link, not even one that is its root,
// and would find that link and no files.
func inside(root string) string { return root + string(filepath.Separator) + "." }

// treeBytes adds up what an import would read. It is only an estimate, so what
// cannot be read counts nothing.
func treeBytes(root string) (total int64) {
	_ = filepath.WalkDir(inside(root), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// tree imports every file below root but those of the store itself, whose log
// would grow with what it reads.
func (i *importer) tree(root, own string) error {
	ownInfo, err := os.Stat(own)
	if err != nil {
		return err
	}
	return filepath.WalkDir(inside(root), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return i.bad(path, withoutPath(err))
		}
		if d.IsDir() {
			if info, err := d.Info(); err == nil && os.SameFile(info, ownInfo) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			i.sum.Skipped++
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return i.bad(path, err)
		}
		value, err := os.ReadFile(path)
		if err != nil {
			return i.bad(path, withoutPath(err))
		}
		i.bar.add(int64(len(value)))
		return i.put(path, []byte(filepath.ToSlash(rel)), value)
	})
}

// withoutPath is the cause of a PathError, whose path the caller says itself.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
