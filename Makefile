# `make` lists what there is. Settings are given as NAME=value: make envoy POLICY=policies/revdesk.json PORT=10000
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The toolchain that set-up chose, where it is not the pinned one by name (`export RUSTUP_TOOLCHAIN=...`).
-include .tools/toolchain.env
export POLICY PORT UPSTREAM CORS CONCURRENCY ADMIN_PORT MODULE ENVOY_BIN ENVOY_IMAGE

.PHONY: help setup wasm image demo test check-gateways envoy policy compose-test bench lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## the wasm toolchain and Envoy (needs no root; says what it does)
	@scripts/setup.sh --wasm --envoy

wasm: ## dist/callbound.wasm, the module
	@scripts/build-wasm.sh

image: ## dist/callbound-image.tar, the module as an OCI image (needs no container engine)
	@scripts/image.sh

demo: ## a real Envoy, a minted token, calls allowed and refused; ARGS=--once ends by itself
	@scripts/demo.sh $(ARGS)

test: ## everything: core, module, real Envoy, and containers and browser where they are there
	@scripts/test.sh $(ARGS)

check-gateways: ## what gateways/ holds, against schemas and binaries where they can be had
	@scripts/check-gateways.sh

envoy: ## Envoy in the foreground: POLICY=policies/revdesk.json PORT=10000 UPSTREAM=127.0.0.1:18080 (or https://HOST) CORS=origin,...
	@envoy/run.sh

policy: ## another POLICY for the Envoy that `make envoy` runs on PORT, on open connections as well
	@envoy/run.sh update

compose-test: ## the same gateway as containers, with calls through it (needs a Docker engine)
	@envoy/compose-test.sh

# In the tests' profile: the bench itself is only the client, and what it needs is built already.
bench: ## what it costs, beside Envoy's native filters (never a timed test); ARGS='--rounds 40'
	@cargo bench --locked --quiet --profile dev --features bench --bench envoy -- $(ARGS)

lint: ## format, clippy (native and wasm), documentation, shell scripts
	@scripts/lint.sh

clean: ## removes what was built and rendered; keeps .tools
	rm -rf target dist .run
