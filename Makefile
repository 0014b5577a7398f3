# What can be done with this tree. The work itself is in scripts/.
#
#   ANTEROOM_CACHE       where runsc, the development tools and Node are kept
#                        (/var/cache/anteroom)
#   ANTEROOM_IMAGE_DIR   where golden images are kept (/var/cache/anteroom)
#   ARGS                 more arguments for `make run` and `make demo`
#   FIRECRACKER, JAILER  the programs that `make test-firecracker` runs; without,
#                        those in PATH

.DEFAULT_GOAL := help
.SHELLFLAGS := -euo pipefail -c
SHELL := /bin/bash
.PHONY: help run setup build image test test-firecracker lint fuzz bench demo clean
# Each target is one sequence; the programs below use the processors themselves.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: image ## install, build and start everything; serves on 127.0.0.1:8080
	@exec bin/anteroom serve $(ARGS)

setup: ## install the Debian packages, Go and Node that are missing
	@scripts/setup.sh run

build: setup ## build the programs, the page and gVisor's runsc
	@scripts/build.sh page program runsc demo

image: setup ## build the golden image of the machines, if it is missing
	@scripts/build.sh page program runsc
	@scripts/image.sh

test: ## run every check and test there is
	@scripts/test.sh

test-firecracker: ## run the Firecracker driver's suite over the real programs, on KVM
	@scripts/setup.sh test
	@scripts/build.sh page program
	@scripts/image.sh
	@. scripts/lib.sh; . scripts/env.sh; get_go; GOFLAGS= CGO_ENABLED=1 \
	  ANTEROOM_FIRECRACKER=$(abspath $(FIRECRACKER)) ANTEROOM_JAILER=$(abspath $(JAILER)) ANTEROOM_REQUIRE_FIRECRACKER=1 \
	  exec go test "$${race_flags[@]}" -count=1 -v -timeout 30m -run '^TestConformance$$' ./internal/machine/firecracker

lint: ## run the static checks
	@scripts/setup.sh test
	@scripts/build.sh page
	@scripts/lint.sh

fuzz: ## fuzz every fuzz target for a few seconds (FUZZ_SECONDS in all)
	@scripts/setup.sh test
	@scripts/fuzz.sh

bench: ## measure, and write BENCH.md
	@scripts/setup.sh bench
	@scripts/build.sh page program runsc
	@scripts/image.sh
	@. scripts/lib.sh; . scripts/env.sh; get_go; exec go run ./test/bench $(ARGS)

demo: ## sign in with the three real tools without the internet
	@scripts/setup.sh test
	@scripts/build.sh page program runsc demo
	@scripts/image.sh
	@exec bin/anteroom demo $(ARGS)

clean: ## remove what was built in this tree; caches and golden images stay
	rm -rf bin demo-out ui/node_modules ui/src/api/schema.d.ts
	find internal/web/dist -mindepth 1 ! -name .gitkeep -delete
