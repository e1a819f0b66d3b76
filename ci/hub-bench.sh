#!/usr/bin/env bash
# Measures the example hub beside the same server on tokio's current-thread runtime (benches/hub):
# requests per second as a ratio, processor time and resident memory, in one run.
#
#   ci/hub-bench.sh [--connections COUNT] [--seconds SECONDS] [--rounds COUNT]
#
# 10,000 connections, 3 rounds of 5 s for each; on loopback, on ports that the system chooses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --locked --profile bench --example hub
exec cargo run --locked --profile bench -p greenlet-hub-bench -- \
    --hub "${CARGO_TARGET_DIR:-target}/release/examples/hub" "$@"
