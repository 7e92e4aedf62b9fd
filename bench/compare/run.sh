#!/bin/sh
# Everything of bench/compare, unattended: builds, installs, measures (20 minutes), writes bench/RESULTS.md.
# run.sh [options of compare.py]; run.sh --quick is the smoke of CI.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release -q -p pinion -p pinion-bench-load -p pinion-bench-peers
mkdir -p work/bench
exec python3 bench/compare/compare.py "$@"
