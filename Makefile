# Holdfast. `make` alone prints this help.
SHELL := /bin/bash
GO    ?= go
T     ?= 30s
BIN   := bin/holdfast
PROVE := $(GO) test -count=1 -timeout 20m -v
SRC   := $(shell find . -name '*.go' -not -path './bench/*') go.mod go.sum

.PHONY: help build run test race crash gate schedule sites seeded torture io-errors peers-damage check fuzz bench guard bench-compare microbench memory memory-hard large huge cover ci packages clean

help: ## print this help
	@awk -F':.*## ' '/^[a-z%-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(BIN) ## build the command into bin/

$(BIN): $(SRC)
	$(GO) build -o $@ ./cmd/holdfast

run: build ## import the Go source tree while being killed again and again, and prove that nothing was lost
	./$(BIN) demo

test: ## all tests
	$(GO) test -timeout 15m ./...
	cd bench && $(GO) vet ./...

race: ## the tests under the race detector, shorter loops
	$(GO) test -race -short -timeout 30m ./...

crash: ## power cuts and kills: the crash suites of every room, whole
	$(GO) test -timeout 20m -count=1 -run 'Crash|Kill|kills|Cut|Torn|torn|Fault|Gate' ./wal ./storage ./mmap ./engine ./fuzz/... ./cmd/holdfast

check: ## formatting, vet, dependencies between rooms
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt wants:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	cd bench && $(GO) vet ./...
	$(GO) test -count=1 -run TestDependencies .
	$(GO) mod verify >/dev/null

seeded: ## 45 known bugs, one at a time: each must be caught
	HOLDFAST_SEEDED=all $(GO) test -count=1 -timeout 30m -v -run 'areCaught|replay' ./fuzz/seeded | grep -v '^=== '

torture: ## every way to hurt a store, MINUTES long from SEED on (make torture MINUTES=30); ONLY="a,b": those runners
	$(GO) build -tags schedule -o bin/torture ./cmd/holdfast
	$(GO) build -o $(BIN) ./cmd/holdfast
	./bin/torture torture --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)") --binary ./$(BIN)

torture-%: ## one way alone, by its name with hyphens (make torture-power-cuts-at-random MINUTES=5 SEED=1)
	@$(MAKE) --no-print-directory torture ONLY=$*

# Longest first; make test has the first cases of some. Most keep one core and a half busy, the schedules exactly one.
GATES := gate-damage gate-schedule gate-cuts gate-powercut gate-ext4 gate-coherence gate-kills gate-component

gate: ## the proofs that every change passes, at the counts of docs/RELIABILITY.md
	@$(MAKE) -j2 --output-sync=target --no-print-directory $(GATES)

.PHONY: $(GATES)
gate-damage:
	$(PROVE) ./fuzz/damage -run 'TestFixture_AtRest$$' -stride 1
gate-schedule:
	$(PROVE) -tags schedule ./fuzz/schedule
	$(PROVE) -tags schedule ./engine -run TestChosen
	$(PROVE) -tags schedule ./fuzz/live -cases 20
gate-cuts:
	$(PROVE) ./fuzz -run TestCrash_everyCall -seeds 9 -floors "20000 cuts"
gate-powercut:
	$(PROVE) ./fuzz/machine -run TestExt4_powerCuts -cases 56 -floors "300 cuts"
gate-ext4:
	$(PROVE) ./fuzz/simfs -run TestExt4 -ext4.traces 1000
gate-coherence:
	$(PROVE) ./fuzz/live -run TestLinear -cases 500 -floors "500 histories"
	$(PROVE) ./fuzz/live -run TestCoherence_engine -cases 10 -floors "1000000 reads"
gate-kills: $(BIN)
	$(PROVE) ./fuzz/machine -run TestKill_anyMoment -cases 36 -floors "200 kills" -binary $(abspath $(BIN))
gate-component:
	$(PROVE) ./fuzz/component -cuts 100000

io-errors: ## an error at each fallible call of the whole engine, every kind, once and for ever
	$(GO) test -count=1 -timeout 120m -v ./fuzz/fault -run 'TestSweep$$' -stride 1

peers-damage: ## the same damage and kills on Pebble, Badger and bbolt: wrong, missing, exits, refusals
	cd bench && $(GO) run ./damage

schedule: ## orders of goroutines made from a seed (make schedule CASES=1000 SEED=1)
	$(GO) test -tags schedule -count=1 -timeout 60m -v ./fuzz/schedule -run orders -cases $(or $(CASES),1000) -seed $(or $(SEED),1) | grep -v '^=== '

sites: ## every place in wal/ that looks at an error, and whether a test's fault got there
	@mkdir -p bin
	$(GO) test -count=1 -covermode=atomic -coverprofile=bin/wal.cover ./wal
	$(GO) run ./fuzz/sites -profile bin/wal.cover ./wal

fuzz: ## every native fuzz target for T (make fuzz T=30s)
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run xxx -fuzz "^$$f$$" -fuzztime $(T) -fuzzminimizetime 1s $$p; done; done

bench: ## rows against Pebble and others (SUITE=quick|full ROWS=hot-get,… PEERS=… SYNCS=1 JSON=file SVG=file)
	cd bench && $(GO) run . -suite $(or $(SUITE),quick) -rows "$(ROWS)" -peers "$(PEERS)" -json "$(abspath $(JSON))" -svg "$(abspath $(SVG))" $(if $(SYNCS),-syncs)

guard: ## a few rows beside Pebble in one process: fails where one is far below its floor
	cd bench && $(GO) run . -guard

bench-compare: ## our own rows as they are beside those of a commit (REF=main SUITE=… ROWS=…)
	@set -e; dir=$$(mktemp -d); trap 'git worktree remove --force $$dir/ref; rm -rf $$dir' EXIT; \
	git worktree add -q --detach $$dir/ref $(or $(REF),main); \
	(cd $$dir/ref/bench && $(GO) build -o $$dir/bench.ref .); \
	cd bench && $(GO) run . -suite $(or $(SUITE),quick) -rows "$(ROWS)" -ref $$dir/bench.ref -json "$(abspath $(JSON))" -svg "$(abspath $(SVG))"

microbench: ## benchmarks beside the code, with bare Pebble as control
	$(GO) test -run xxx -bench 'Engine_(Get|Put|Scan)' -benchtime 2s ./engine

memory: ## 2 GiB through a budget of 256 MiB: resident memory as the kernel counts it
	HOLDFAST_MEMORY_CHILD=2048 $(GO) test -count=1 -v -run TestEngine_memory ./engine

memory-hard: ## budgets of 64 MiB, 256 MiB and 1 GiB with snapshots held and 1 GiB streamed through, then in a memory cgroup
	@for mib in 512 2048 8192; do for in in "" 1; do \
	  HOLDFAST_MEMORY_CHILD=$$mib HOLDFAST_MEMORY_CHILD_HARD=1 HOLDFAST_MEMORY_CHILD_CGROUP=$$in $(GO) test -count=1 -v -timeout 30m -run '^TestEngine_memory$$' ./engine || bad=1; \
	done; done; test -z "$$bad"

large: ## 1 GiB objects beside plain files and Pebble, and the room that overwritten ones take
	HOLDFAST_LARGE_MIB=1024 $(GO) test -count=1 -timeout 30m -v -run TestLarge ./engine

huge: ## 64 GiB as one value, compressed and raw, streamed in and read at random (the disk holds little of it)
	HOLDFAST_HUGE=1 $(GO) test -count=1 -timeout 30m -v -run 'TestWriter_largestValue|TestCreate_huge' ./mmap ./engine

cover: ## statement coverage per room
	$(GO) test -short -cover ./...

packages: # the Debian packages that some checks use
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  miss=; for c in strace zstd; do command -v $$c >/dev/null || miss="$$miss $$c"; done; \
	  if [ -n "$$miss" ]; then (apt-get update -qq && apt-get install -y -qq $$miss) || echo "could not install:$$miss; the checks that use them will skip"; fi; fi

ci: packages check build test race gate sites guard ## everything that must pass before a change lands
	./$(BIN) demo --kills 10

clean: ## remove what was built
	rm -rf bin
