#!/usr/bin/env bash
# Measures the example `hub` and the same server on tokio's current-thread runtime in one run
# (benches/hub): the ratio of requests per second, processor time, resident memory.
#
#   ci/hub-bench.sh [--connections COUNT] [--seconds SECONDS] [--rounds COUNT]
#
# Default: 10,000 connections, and for each server 3 rounds of 5 s. Both listen on loopback, on ports
# that the system chooses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --locked --profile bench --example hub
exec cargo run --locked --profile bench -p greenlet-hub-bench -- \
    --hub "${CARGO_TARGET_DIR:-target}/release/examples/hub" "$@"
