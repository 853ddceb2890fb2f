# What one does with this repository, each under a short name. `make` alone lists them.
#
# Everything but `bench`, `stages`, `peers`, `soak` and `backfills` uses one build: the dev profile with
# the test dependencies in it. A plain `cargo build` gives some dependencies other features, and would
# compile most of them twice.

TARGET := $(or $(CARGO_TARGET_DIR),target)
LEADPIPE := $(TARGET)/debug/leadpipe
VENV := $(TARGET)/interop-venv
PEERS_VENV := $(TARGET)/peers-venv
TOOLS := $(TARGET)/tools
FUZZ_SECONDS ?= 60
NEXTEST := $(shell command -v cargo-nextest)
FUZZ := $(or $(shell command -v cargo-fuzz),$(TOOLS)/bin/cargo-fuzz)
DENY := $(or $(shell command -v cargo-deny),$(TOOLS)/bin/cargo-deny)

export CARGO_TERM_QUIET ?= true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test kills crashes damages contract hostile trial together nights freshness soak backfills \
	fuzz check lint audit schemas fmt review interop buckets bench stages peers ci clean build

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: build ## a first sync, a nightly sync and their changes, from invented leads
	@$(LEADPIPE) demo

test: ## run all tests
ifdef NEXTEST
	@cargo nextest run
else
	@cargo test
endif

kills: ## kill syncs at 50 seeded random moments (KILLS=1000): nothing lost, doubled or asked for twice
	@TMPDIR=$(firstword $(wildcard /dev/shm) $(TMPDIR) /tmp) LEADPIPE_KILLS=$(or $(KILLS),50) cargo test --test it -- kill crash --nocapture

# A lake for each death, of which none is to outlast it: they lie in memory where they can.
crashes: ## die at every point of disk and network, in pairs, and with a disk that fails: nothing lost or left
	@TMPDIR=$(firstword $(wildcard /dev/shm) $(TMPDIR) /tmp) \
		LEADPIPE_CRASHES=0 LEADPIPE_PAIRS=$(or $(PAIRS),100) LEADPIPE_FAULTS=0 \
		cargo test --test it -- points:: --nocapture --test-threads 1

damages: ## damage 300 random files of a lake: found, and mended by `verify --repair`
	@LEADPIPE_DAMAGES=300 cargo test --test it -- damage::random::a_random --nocapture

contract: ## run every provider under every switch of the sandbox, and count the runs
	@cargo test --test it -- contract:: --nocapture > $(TARGET)/contract.log 2>&1 \
		|| { cat $(TARGET)/contract.log; exit 1; }
	@awk '$$1 == "switches" { values[$$2] = $$3 } \
		$$1 == "contract" { cases[$$2] += $$3; runs[$$2] += $$5; all += $$5 } \
		END { for (name in runs) printf "%-12s x %3d values of switches, in %3d cases = %4d runs\n", \
				name, values[name], cases[name], runs[name]; \
			printf "%-12s %43d runs\n", "in all", all }' $(TARGET)/contract.log

hostile: ## providers that are wrong in every way: each fault alone, and 2,000 runs of faults mixed
	@LEADPIPE_HOSTILE=$(or $(RUNS),2000) LEADPIPE_PAGES=20000 \
		cargo test --test it -- hostile:: --nocapture --test-threads 2 > $(TARGET)/hostile.log 2>&1 \
		|| { cat $(TARGET)/hostile.log; exit 1; }
	@grep -E '^(alone|mixed|memory) ' $(TARGET)/hostile.log

trial: ## read 12,000 contacts with a trial key, killed and shifted under way
	@LEADPIPE_CONTACTS=12000 cargo test --test it -- trial --nocapture

together: ## one sync of 100,000 leads of all three providers: requests against the fewest
	@LEADPIPE_LEADS=100000 cargo test --test it -- together --nocapture

nights: ## what a night costs: at each provider by the leads held, and for an agency of 60 profiles
	@LEADPIPE_NIGHTS=100000 LEADPIPE_AGENCY=60 \
		cargo test --test it -- growth:: prices::the_nights --nocapture

freshness: ## how long a change at the provider takes to be seen, by the age of its lead
	@LEADPIPE_FRESHNESS=4000 cargo test --test it -- freshness::a_change_is_seen --nocapture

# A life has thousands of files, of which none is to outlast it: they lie in memory where they can.
soak: ## live through 10,000 days of small quotas, with crashes and clocks put off (release build)
	@TMPDIR=$(firstword $(wildcard /dev/shm) $(TMPDIR) /tmp) LEADPIPE_SOAK_DAYS=10000 LEADPIPE_MINUTES=2 \
		cargo test --release --test it -- soak:: lakes:: --nocapture

backfills: ## ten years of 2,400,000 leads, and killed 100 times: requests (release build; SCALE=10)
	@LEADPIPE_BACKFILL_SCALE=$(or $(SCALE),10) LEADPIPE_BACKFILL_KILLS=100 \
		cargo test --release --test it -- backfills:: --nocapture --test-threads 1

# Nothing of this needs a nightly compiler: without a sanitizer the stable one builds targets, too.
fuzz: $(FUZZ) ## try made-up input, a minute a target (C++ compiler, python3; FUZZ_SECONDS=60)
	@echo "Building the targets; the first time this takes many minutes." >&2
	@$(FUZZ) build --sanitizer none --target-dir fuzz/target
	@rm -rf fuzz/seeds && LEADPIPE_FUZZ_SEEDS=$(CURDIR)/fuzz/seeds cargo test --lib -- seeds_are_laid_out > /dev/null
	@fuzz/run $(FUZZ_SECONDS) $(FUZZ_TARGETS)

check: lint $(DENY) ## formatting, lints, docs, dependencies
	@RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	@$(DENY) --log-level error check --hide-inclusion-graph bans licenses sources
	@if $(DENY) --log-level off fetch db 2> /dev/null; then $(DENY) --log-level error check advisories; else \
		echo "check: the database of known vulnerabilities cannot be reached; they are not looked for" >&2; fi

lint:
	@cargo fmt --check
	@cargo clippy --all-targets -- -D warnings

audit: $(DENY) ## dependencies alone; fails where known vulnerabilities cannot be looked for
	@$(DENY) --log-level error check

schemas: ## write schemas/ anew, from the types
	@LEADPIPE_SCHEMAS=$(CURDIR)/schemas cargo test --quiet --lib -- schema_is_the_one_of_the > /dev/null

fmt: ## format the code
	@cargo fmt

review: ## show snapshots of tests that differ, and those changed since the last commit
	@find src tests -name '*.snap.new' | while read -r new; do \
		old="$${new%.new}"; [ -e "$$old" ] || old=/dev/null; \
		diff -u "$$old" "$$new" || true; \
	done
	@git --no-pager diff -- '*.snap'
	@echo "To accept one: move NAME.snap.new over NAME.snap (\`cargo insta review\` does it by asking)."

interop: build $(VENV)/ready ## read a snapshot with DuckDB, pyarrow and pandas (needs python3)
	@$(VENV)/bin/python tests/interop/interop.py --binary $(LEADPIPE)

bench: ## whole syncs, replays against a floor, nights (release build, python3; LEADS="..." LAKES="..." RUNS=1)
	@cargo build --release
	@cargo bench --quiet --bench floor --no-run
	@python3 tests/bench/whole.py --binary $(TARGET)/release/leadpipe --runs $(or $(RUNS),1) $(LEADS)
	@python3 tests/bench/nightly.py --binary $(TARGET)/release/leadpipe --runs $(or $(RUNS),1) $(LAKES)

buckets: ## lakes in buckets: deaths, faults and all that differs, at S3 and Azure served here (needs python3, npm)
	@TMPDIR=$(firstword $(wildcard /dev/shm) $(TMPDIR) /tmp) python3 tests/servers.py $(TARGET)/servers-venv $(TOOLS) \
		cargo test --test it -- bucket --ignored --nocapture > $(TARGET)/buckets.log 2>&1 \
		|| { cat $(TARGET)/buckets.log; exit 1; }
	@grep -E '^(stage|all|denied|failing|full|torn|test result)' $(TARGET)/buckets.log

stages: ## mapping, Parquet, CSV and merging, each against a floor (release build; STAGE=map)
	@cargo bench --quiet --bench stages -- $(STAGE)

peers: ## leadpipe beside other pipelines (release build, python3; PEERS=folder of theirs, LEADS, RUNS=5)
	@[ -d "$(PEERS)" ] || { echo "peers: give the folder of the peers' scripts: make peers PEERS=folder" >&2; exit 2; }
	@cargo build --release
	@$(MAKE) --no-print-directory $(PEERS_VENV)/ready
	@python3 tests/bench/peers.py --binary $(TARGET)/release/leadpipe --python $(PEERS_VENV)/bin/python \
		--peers "$(PEERS)" --runs $(or $(RUNS),5) $(LEADS)

ci: check test ## what CI runs before `make interop`

clean: ## remove what was built
	@cargo clean

build:
	@[ -x $(LEADPIPE) ] || echo "Building leadpipe; the first time this takes some minutes." >&2
	@cargo test --no-run

$(TOOLS)/bin/%: .ci/tools.txt
	@python3 -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --requirement $<
	@touch $@

$(VENV)/ready: tests/interop/requirements.txt
$(PEERS_VENV)/ready: tests/bench/peers.txt
$(VENV)/ready $(PEERS_VENV)/ready:
	@python3 -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@
