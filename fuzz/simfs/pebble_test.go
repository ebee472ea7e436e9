package simfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// quiet keeps Pebble's log out of the test's, and a fatal error out of the process.
type quiet struct{}

func (quiet) Infof(string, ...any)             {}
func (quiet) Errorf(string, ...any)            {}
func (quiet) Fatalf(format string, arg ...any) { panic(fmt.Sprintf(format, arg...)) }

func openPebble(fs *FS) (*pebble.DB, error) {
	return pebble.Open("db", &pebble.Options{FS: fs, Logger: quiet{}, MemTableSize: 32 << 10, L0CompactionThreshold: 2})
}

// pebbleRun writes with Sync until the power goes at the kth mutating call, and
// checks that what was acknowledged before is there, whatever the crash took.
func pebbleRun(t *testing.T, seed uint64, damage Damage, cfg CrashConfig) {
	cfg.Seed = seed
	rnd := rand.New(rand.NewPCG(seed, 2))
	fs := New(&Options{Damage: damage, Ext4Like: seed%2 == 0})
	db, err := openPebble(fs)
	require.NoError(t, err)
	var mu sync.Mutex // the cut may come from a goroutine of Pebble's
	acked, tried := map[string]string{}, map[string]string{}
	var atCut, tryCut map[string]string
	var state *Cut
	cut := func() {
		mu.Lock()
		defer mu.Unlock()
		if state == nil {
			state, atCut, tryCut = fs.Cut(), maps.Clone(acked), maps.Clone(tried)
		}
	}
	fs.OnMutation(fs.Mutations()+1+rnd.IntN(400), cut)
	for i := range 150 {
		key, val := fmt.Sprintf("k%03d", rnd.IntN(60)), fmt.Sprintf("%d-%x", i, bytesOf(rnd, rnd.IntN(700)))
		mu.Lock()
		over := state != nil
		tried = map[string]string{key: val}
		mu.Unlock()
		if over {
			break
		}
		require.NoError(t, db.Set([]byte(key), []byte(val), pebble.Sync))
		mu.Lock()
		acked[key] = val
		mu.Unlock()
		if rnd.IntN(40) == 0 {
			require.NoError(t, db.Flush())
		}
	}
	cut()
	img := state.Image(cfg)
	require.NoError(t, db.Close())

	db, err = openPebble(img)
	require.NoError(t, err, "seed %d: %s", seed, fs.Trace())
	defer func() { require.NoError(t, db.Close()) }()
	for key, want := range atCut {
		got, closer, err := db.Get([]byte(key))
		require.NoError(t, err, "seed %d: key %s", seed, key)
		if s := string(got); s != want && s != tryCut[key] {
			t.Errorf("seed %d: key %s went back", seed, key)
		}
		require.NoError(t, closer.Close())
	}
}

// Goal: a store that syncs what it acknowledges loses none of it in 200 crashes.
func TestPebble_crash(t *testing.T) {
	for seed := range uint64(200) {
		pebbleRun(t, seed, DamageBytes, CrashConfig{})
	}
	for _, i := range Corners() {
		pebbleRun(t, 1000+uint64(i), DamageBytes, CrashConfig{Image: i})
	}
}
