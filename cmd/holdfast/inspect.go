package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

func newInspect(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect KEY",
		Short: "Say what every layer knows of one key",
		Long: `Asks every layer from the top down what it knows of KEY: the generations of the map,
L1, L2, L3, and the pack of a large value. Of each it prints what it has (value, blob,
tombstone, a range delete over the key, or that the key is absent), revision, size, what
it takes where it is kept, and expiry; of the caches the stamp, and whether it passes the
check. A read takes the word of the first layer that knows, marked with *.

Nothing is changed by looking. A store that was just opened has empty caches. A key that
no layer knows is no error.`,
		Example: `  holdfast inspect -d ./state user/42
  holdfast inspect -d ./state --hex 00ff --json`,
		Args: between(1, 1, "one KEY"),
	}
	keys, how := keyFlag(cmd), a.readFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := keys.parseOne(cmd, args[0])
		if err != nil {
			return err
		}
		return a.withStore(cmd, how(), func(e *engine.Engine) error { return a.inspect(e, key) })
	}
	return cmd
}

// inspect prints what the upper layers know also where a lower one cannot be read.
func (a *app) inspect(e *engine.Engine, key []byte) error {
	i, err := e.Inspect(key)
	if err != nil {
		err = ofKey(key, err)
		if len(i.Layers) == 0 {
			return err
		}
	}
	show := a.inspectTable
	if a.json {
		show = a.inspectJSON
	}
	if showErr := show(key, &i); err == nil {
		err = showErr
	}
	return err
}

type layerJSON struct {
	Layer    string  `json:"layer"`
	Knows    string  `json:"knows"`
	Answers  bool    `json:"answers"`
	Revision uint64  `json:"revision,omitempty"`
	Size     int64   `json:"size"`
	Stored   int64   `json:"stored"`
	Expiry   int64   `json:"expiry,omitempty"`
	Stamp    *uint64 `json:"stamp,omitempty"` // of a cache that holds the key
	Fresh    *bool   `json:"fresh,omitempty"`
	Codec    string  `json:"codec,omitempty"`
	Pack     uint64  `json:"pack,omitempty"`
	Offset   int64   `json:"offset,omitempty"`
	Frames   int     `json:"frames,omitempty"`
}

func (a *app) inspectJSON(key []byte, i *engine.Inspection) error {
	out := struct {
		Key         string      `json:"key"`
		KeyEncoding string      `json:"key_encoding,omitempty"`
		LSN         uint64      `json:"lsn"`
		Seq         uint64      `json:"seq"`
		Floor       uint64      `json:"floor"`
		Found       bool        `json:"found"`
		Layers      []layerJSON `json:"layers"`
	}{LSN: i.LSN, Seq: i.Seq, Floor: i.Floor, Found: i.Found}
	out.Key, out.KeyEncoding = encodeBytes(key)
	for _, l := range i.Layers {
		j := layerJSON{
			Layer: l.Name, Knows: l.Knows.String(), Answers: l.Answers, Revision: l.Revision,
			Size: l.Size, Stored: l.Stored, Expiry: l.Expiry,
			Codec: l.Codec, Pack: l.Pack, Offset: l.Offset, Frames: l.Frames,
		}
		if isCached(&l) {
			j.Stamp, j.Fresh = &l.Stamp, &l.Fresh
		}
		out.Layers = append(out.Layers, j)
	}
	return a.printJSON(out)
}

// isCached says that l is a cache and holds the key.
func isCached(l *engine.Layer) bool {
	return (l.Tier == engine.TierL1 || l.Tier == engine.TierL2) && l.Knows != engine.KnowsNothing
}

func (a *app) inspectTable(key []byte, i *engine.Inspection) error {
	t := newTable()
	t.row("key", escape(key))
	t.row("lsn", i.LSN)
	t.row("a read", finding(i))
	g := &grid{head: []string{"layer", "knows", "revision", "size", "stored", "expires", "stamp", "where"}, left: 2, sparse: true}
	for _, l := range i.Layers {
		g.add(layerCells(&l, i.Seq)...)
	}
	return a.printf("%s\n%s", t, g)
}

// finding is what a read gets, and from whom.
func finding(i *engine.Inspection) string {
	for _, l := range i.Layers {
		if !l.Answers {
			continue
		}
		switch l.Knows {
		case engine.KnowsTombstone:
			return fmt.Sprintf("finds nothing: %s has a tombstone", l.Name)
		case engine.KnowsRange:
			return fmt.Sprintf("finds nothing: %s has a range delete over the key", l.Name)
		case engine.KnowsAbsent:
			return fmt.Sprintf("finds nothing: %s says that the key is absent", l.Name)
		}
		return "finds the value in " + l.Name
	}
	return "fails" // the layer that would answer could not be read
}

func layerCells(l *engine.Layer, seq uint64) []string {
	cells := []string{l.Name, l.Knows.String(), none, none, none, none, none, none}
	if l.Answers {
		cells[0] += " *"
	}
	if l.Revision != 0 {
		cells[2] = fmt.Sprint(l.Revision)
	}
	if l.Knows == engine.KnowsValue || l.Knows == engine.KnowsBlob {
		cells[3], cells[4] = sized(l.Size), sized(l.Stored)
	}
	if l.Expiry != 0 {
		cells[5] = time.UnixMilli(l.Expiry).UTC().Format(time.RFC3339Nano)
	}
	switch {
	case isCached(l) && l.Fresh:
		cells[6] = fmt.Sprintf("%d, fresh", l.Stamp)
	case isCached(l):
		cells[6] = fmt.Sprintf("%d, stale at %d", l.Stamp, seq)
	}
	if l.Pack != 0 {
		cells[7] = fmt.Sprintf("pack %d at %d, %s", l.Pack, l.Offset, l.Codec)
		if l.Frames != 0 {
			cells[7] += ", " + count(l.Frames, "frame")
		}
	}
	return cells
}
