# `make` lists what there is. All of it needs Go and nothing else; variables in
# capitals can be set on the command line.

GO ?= go
BENCH ?= .
COUNT ?= 1
FUZZTIME ?= 10s
NODES ?= 5
SEEDS ?= 5000
DURATION ?= 1h
ROUNDS ?= 20

GOLANGCI := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/starling
	$(GO) build -o bin/starling ./cmd/starling

.PHONY: run
run: build ## run a local cluster of NODES (5); Ctrl-C stops it
	bin/starling dev --nodes $(NODES)

.PHONY: check
check: ## format, vet, layers and linters: what must hold before a commit
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l .); \
	if [ -n "$$unformatted" ]; then echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) test -count=1 ./internal/layers
	$(GOLANGCI) run

.PHONY: test
test: ## run all tests
	$(GO) test ./...

.PHONY: race
race: ## run all tests under the race detector (needs a C compiler)
	$(GO) test -race ./...

# go test fuzzes one target of one package at a time, so they are listed first:
# names, then the line of their package.
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	@listed=$$($(GO) test -list '^Fuzz' ./...) || { echo "$$listed"; exit 1; }; \
	echo "$$listed" | \
	awk '/^Fuzz/ { names = names " " $$1 } /^ok/ { n = split(names, f, " "); for (i = 1; i <= n; i++) print $$2, f[i]; names = "" }' | \
	while read -r package target; do \
		echo "$$package $$target"; \
		$(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$package" || exit 1; \
	done

.PHONY: chaos
chaos: ## kill real processes under load for ROUNDS (20) rounds
	CHAOS_ROUNDS=$(ROUNDS) $(GO) test -count=1 -timeout 2h -v ./chaos

.PHONY: bench
bench: ## run the benchmarks that match BENCH (.), COUNT (1) times
	@$(GO) test -run='^$$' -bench='$(BENCH)' -benchmem -count=$(COUNT) ./...

.PHONY: healing
healing: KEYS = 1000000
healing: ## measure what repairs cost, with KEYS (1000000) on three nodes
	$(GO) test ./bench/healing -count=1 -timeout=30m -run=TestFigures -v -args -healing.keys=$(KEYS)

.PHONY: compare
compare: ROUNDS = 5
compare: build ## measure Starling beside other stores and the limits, ROUNDS (5) rounds
	bin/starling bench compare --rounds=$(ROUNDS) --json=bin/compare.json --svg=bin/compare.svg

.PHONY: table
table: ## print the placement table of package ring
	@$(GO) test -count=1 -run=TestTable -v ./ring

# With SEED=n alone that seed is run again. The commit goes into the report of
# a failure, for test binaries do not know theirs.
SIM = $(GO) test -c -o bin/sim.test ./sim && \
	STARLING_COMMIT=$$(git rev-parse --short HEAD 2>/dev/null) bin/sim.test -test.run='^TestSim$$'

.PHONY: sim
sim: ## run SEEDS (5000) simulated clusters, or the one of SEED
	@$(SIM) $(if $(SEED),-sim.seed=$(SEED),-sim.seeds=$(SEEDS))

.PHONY: sim-soak
sim-soak: ## simulate for DURATION (1h), with a line of progress every ten seconds
	@$(SIM) -sim.for=$(DURATION) -sim.from=$$(date +%s)000000

.PHONY: sim-trace
sim-trace: ## prove that one seed is one history, under the race detector too
	STARLING_SIM_RACE=1 $(GO) test -count=1 ./sim -run='^TestOneSeedOneTrace'

.PHONY: sim-mutants
sim-mutants: ## plant bugs in the production code and see that the simulation catches them
	$(GO) run ./sim/mutants
