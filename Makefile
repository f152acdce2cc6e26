# `make` lists the targets. Settings are given as NAME=value: make envoy POLICY=policies/revdesk.json PORT=10000
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The toolchain that scripts/setup.sh chose, if not the pinned one (`export RUSTUP_TOOLCHAIN=...`).
-include .tools/toolchain.env
export POLICY PORT UPSTREAM CORS CONCURRENCY ADMIN_PORT MODULE ENVOY_BIN ENVOY_IMAGE

.PHONY: help setup wasm image demo test check-gateways envoy policy compose-test bench lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## the wasm toolchain and Envoy (needs no root)
	@scripts/setup.sh --wasm --envoy

wasm: ## dist/callbound.wasm, the module
	@scripts/build-wasm.sh

image: ## dist/callbound-image.tar, the module as an OCI image (needs no container engine)
	@scripts/image.sh

demo: ## a real Envoy, a minted token, allowed and refused calls; ARGS=--once ends by itself
	@scripts/demo.sh $(ARGS)

test: ## all tests: core, module, real Envoy, and containers and a browser where installed
	@scripts/test.sh $(ARGS)

check-gateways: ## the files of gateways/, against definitions and on a real Envoy; ARGS=kong for one gateway
	@python3 scripts/check_gateways $(ARGS)

envoy: ## Envoy in the foreground: POLICY=policies/revdesk.json PORT=10000 UPSTREAM=127.0.0.1:18080 (or https://HOST) CORS=origin,...
	@envoy/run.sh

policy: ## replaces the POLICY of the Envoy that `make envoy` runs on PORT, also for open connections
	@envoy/run.sh update

compose-test: ## the same gateway as containers, with calls through it (needs a Docker engine)
	@envoy/compose-test.sh

# In the tests' profile: the bench is only the client, and its dependencies are built already.
bench: ## latency and throughput, compared with Envoy's native filters; ARGS='--rounds 40'
	@cargo bench --locked --quiet --profile dev --features bench --bench envoy -- $(ARGS)

lint: ## format, clippy (native and wasm), documentation, scripts, plain words
	@scripts/lint.sh

clean: ## removes built and rendered files; keeps .tools
	rm -rf target dist .run
