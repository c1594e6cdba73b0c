# The only door: people and CI call these, and nothing else has to be known. `make` alone explains.
.DEFAULT_GOAL := help
.PHONY: help cluster cluster-down image install uninstall demo test check bench fuzz clean tools root
SHELL := /bin/bash

# They would replace the flags of .cargo/config.toml, and with them the static linking.
unexport RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

# One profile, so that what the tests prove is what the image ships. .cargo/config.toml sets the target and the linking.
CARGO_FLAGS := --release --locked
TRIPLE      := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BINARY      := $(or $(CARGO_TARGET_DIR),target)/$(TRIPLE)/release/pullguard
IMAGE       := docker.io/pullguard/pullguard:dev
IMAGE_FILE  := target/image/pullguard.tar
# What `make install` applies: the plain manifests, for a cluster whose nodes are all young.
MANIFESTS   := manifests/overlays/dev
FUZZ_GOALS   := review reference policy words
FUZZ_SECONDS := 60
CLUSTER      = cargo run --quiet $(CARGO_FLAGS) --package cluster --
KUBECTL      = $(CLUSTER) kubectl

# Runs $(1). Interrupted, it ends that with all its children, and takes those clusters away that are not of `make cluster`.
UNTIL_INTERRUPTED = set -m; $(1) & job=$$!; set +m; \
	trap 'trap "" INT TERM HUP; kill -- -$$job; wait; echo "interrupted: removing the clusters of demo and tests"; $(CLUSTER) down --others; exit 130' INT TERM HUP; \
	wait $$job

help: ## this list
	@echo 'Pullguard: images that cannot be pulled, refused at admission and ended at run time. make ...'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'The test cluster needs root and, the first time, 8 to 15 minutes to build Kubernetes; `source target/cluster/env` to use it.'

# What cargo and the linker say of a missing tool comes late, and does not say what to do.
tools:
	@lacks() { echo "make: $$1" >&2; exit 1; }; \
	cargo --version >/dev/null 2>&1 || lacks 'there is no cargo on the PATH: install Rust 1.91 or newer (under sudo: sudo env "PATH=$$PATH" make ...)'; \
	rustc --version | awk '{ split($$2, v, "."); exit !(v[1] > 1 || v[2] >= 91) }' || lacks "Rust 1.91 or newer is needed, this is $$(rustc --version): rustup update"; \
	cc --version >/dev/null 2>&1 || lacks 'there is no C compiler: install gcc (one dependency, ring, is partly C)'; \
	case '$(TRIPLE)' in *-linux-gnu) case "$$(cc -print-file-name=libc.a)" in /*) ;; \
	*) lacks 'there is no static libc (libc.a): install libc6-dev (Debian) or glibc-static (Fedora)';; esac;; esac

root:
	@[ "$$(id -u)" = 0 ] || { echo 'demo: it takes root, for real kubelets run in it: sudo env "PATH=$$PATH" make demo' >&2; exit 1; }

cluster: tools ## bring up the real two-node Kubernetes of the tests (does nothing if it is up)
	@$(CLUSTER) up

cluster-down: ## remove it, and what a crashed demo or test left: processes, network namespaces, mounts, cgroups
	@$(CLUSTER) down --all

image: tools ## build the static binary and target/image/pullguard.tar, without Docker
	@echo 'image: building the static binary'
	@cargo build $(CARGO_FLAGS) --bin pullguard
	@$(CLUSTER) image $(BINARY) $(IMAGE) $(IMAGE_FILE)

install: cluster image ## bring up the cluster, build the image, load it into both nodes, install Pullguard
	@for node in node-a node-b; do echo "install: loading the image on $$node"; $(CLUSTER) load $$node $(IMAGE_FILE) || exit 1; done
	@before=$$($(KUBECTL) get deployment pullguard --namespace pullguard --output name --ignore-not-found 2>/dev/null); \
	echo 'install: applying $(MANIFESTS)'; \
	$(KUBECTL) apply --kustomize $(MANIFESTS) && \
	if [ -n "$$before" ]; then $(KUBECTL) rollout restart deployment/pullguard --namespace pullguard; fi
	@echo 'install: waiting until Pullguard is ready'
	@$(KUBECTL) rollout status deployment/pullguard --namespace pullguard --timeout=120s

uninstall: ## take Pullguard out of the cluster
	@$(KUBECTL) delete --kustomize $(MANIFESTS) --ignore-not-found

demo: root image ## replay the incident on the real cluster, without and with Pullguard
	@echo 'demo: building the demo'
	@$(call UNTIL_INTERRUPTED,cargo run $(CARGO_FLAGS) --example demo)

test: image ## every test, the ones on a real cluster included
	$(call UNTIL_INTERRUPTED,cargo test $(CARGO_FLAGS) --workspace)

check: tools ## the quick door: format, lints, unit tests, licences, generated manifests
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- --deny warnings
	cargo test $(CARGO_FLAGS) --workspace --lib --bins
	@if cargo deny --version >/dev/null 2>&1; then echo cargo deny check; cargo deny --locked check; \
	else echo 'check: cargo-deny is not installed, so licences and advisories are NOT checked (cargo install cargo-deny)'; fi
	@echo 'check: manifests/base/crds.yaml is what the types generate'
	@cargo run $(CARGO_FLAGS) --quiet --bin pullguard -- crds | diff --unified manifests/base/crds.yaml -

bench: ## measure all figures, in some minutes (BENCH_STRICT=1: fail where a target is missed); docs/benchmarks.md explains
	@set -e; for bench in decision webhook growth memory; do cargo bench --locked --quiet --bench $$bench; done

# Without a sanitizer: they need a nightly compiler, and the product forbids unsafe code, so that a panic, a hang or a law
# that does not hold is what there is to find. cargo-fuzz sets RUSTFLAGS, which replace the static linking of
# .cargo/config.toml. What is found lands in fuzz/artifacts/; mended, it becomes a seed, which `make test` runs for ever.
fuzz: ## search for inputs that break the readers of reviews, references, policies, words (FUZZ_SECONDS=60 each)
	@cargo fuzz --version >/dev/null 2>&1 || { echo 'fuzz: cargo-fuzz is missing: cargo install --locked cargo-fuzz'; exit 1; }
	@c++ --version >/dev/null 2>&1 || { echo 'fuzz: libFuzzer is C++ and there is no C++ compiler: install g++ or clang++'; exit 1; }
	@set -e; for goal in $(FUZZ_GOALS); do \
		echo "fuzz: $$goal for $(FUZZ_SECONDS) s"; mkdir -p fuzz/corpus/$$goal; \
		cargo fuzz run --sanitizer none $$goal fuzz/corpus/$$goal fuzz/seeds/$$goal -- \
			-dict=fuzz/words/$$goal.dict -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -print_final_stats=1; \
	done

clean: ## remove the clusters and all that was built (the cache of Kubernetes binaries stays)
	@$(CLUSTER) down --all
	cargo clean
