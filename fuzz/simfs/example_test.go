package simfs_test

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// save is a store of one value with a famous mistake: the directory is not synced
// after the rename.
func save(fs vfs.FS, value string) error {
	f, err := fs.Create("value.tmp", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write([]byte(value)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return fs.Rename("value.tmp", "value")
}

func Example() {
	fs := simfs.New(nil)
	if err := save(fs, "precious"); err != nil {
		fmt.Println(err)
	}
	for cfg, disk := range fs.CrashImages(1, 0) {
		if string(disk.Tree()["/value"].Data) != "precious" {
			fmt.Println("lost:", cfg.Image)
		}
	}
	// Output:
	// lost: nothing
}

// Cut the power at every call that changes something.
func ExampleFS_OnMutation() {
	run := simfs.New(nil)
	save(run, "precious")
	for k := range run.Mutations() {
		fs := simfs.New(nil)
		var disk *simfs.FS
		fs.OnMutation(k+1, func() {
			disk = fs.Crash(simfs.CrashConfig{Image: simfs.Everything, Kill: true})
		})
		err := save(fs, "precious")
		fmt.Println(errors.Is(err, simfs.ErrKilled), disk.Tree().Paths())
	}
	// Output:
	// true []
	// true [/value.tmp]
	// true [/value.tmp]
	// true [/value.tmp]
}

// The second sync succeeds, and the bytes are gone all the same.
func ExampleFS_Inject() {
	fs := simfs.New(nil)
	fs.Inject(simfs.FailOnce(simfs.OpSync, "*.log", 1, syscall.EIO))
	f, _ := fs.Create("1.log", vfs.WriteCategoryUnspecified)
	f.Write([]byte("hello"))
	fmt.Println(f.Sync())
	fmt.Println(f.Sync())
	d, _ := fs.OpenDir("/")
	d.Sync()
	fmt.Printf("%q\n", fs.Crash(simfs.CrashConfig{Image: simfs.Nothing}).Tree()["/1.log"].Data)
	// Output:
	// sync 1.log: input/output error (injected)
	// <nil>
	// "\x00\x00\x00\x00\x00"
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

// Pebble opens, crashes and opens again.
func ExampleFS_Crash() {
	fs := simfs.New(&simfs.Options{Seed: 7})
	db, _ := pebble.Open("db", &pebble.Options{FS: fs, Logger: silent{}})
	db.Set([]byte("k"), []byte("synced"), pebble.Sync)
	db.Set([]byte("l"), []byte("not synced"), pebble.NoSync)
	disk := fs.Crash(simfs.CrashConfig{Image: simfs.Nothing})
	db.Close()

	db, _ = pebble.Open("db", &pebble.Options{FS: disk, Logger: silent{}})
	defer db.Close()
	v, c, err := db.Get([]byte("k"))
	fmt.Printf("%s %v\n", v, err)
	c.Close()
	_, _, err = db.Get([]byte("l"))
	fmt.Println(err)
	// Output:
	// synced <nil>
	// pebble: not found
}

// Which states may be left of a file that was never synced?
func ExampleCut_Legal() {
	fs := simfs.New(&simfs.Options{Ext4Like: true, Damage: simfs.DamageNone})
	f, _ := fs.Create("f", vfs.WriteCategoryUnspecified)
	f.Write([]byte("abc"))
	f.Sync()
	f.Write([]byte("def"))
	cut := fs.Cut()
	for _, s := range []string{"abcdef", "abc\x00\x00\x00", "ab"} {
		fmt.Println(cut.Legal(simfs.Tree{"/f": {Data: []byte(s)}}))
	}
	fmt.Println(cut.Legal(simfs.Tree{}))
	// Output:
	// <nil>
	// <nil>
	// simfs: /f: length 2, durable are 3, and no unsynced write passes it
	// simfs: /f: is lost, and was durable
}
