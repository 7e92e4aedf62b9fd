#!/usr/bin/env bash
# Runs every figure of bench/README.md against one binary and keeps the reports as text:
#
#   bench/record-push.sh [GATEWAY [OUTPUT]]
#
# The defaults are target/release/pinion and bench/results/push-DATE.txt. About five minutes. With FIRST=1 it runs
# through setsid with a higher priority of its scheduling group (root only), for a machine that others use too.
set -euo pipefail
cd "$(dirname "$0")/.."
gateway=${1:-target/release/pinion}
output=${2:-bench/results/push-$(date -u +%F).txt}
bench=(timeout 300 target/release/bench-push)
[ -x target/release/bench-push ] || cargo build --locked --release -p pinion-bench-push
if [ -n "${FIRST:-}" ]; then
    bench=(setsid -w bash -c 'echo -10 >/proc/self/autogroup; exec "$@"' _ "${bench[@]}")
fi

measure() {
    "${bench[@]}" "$@" --gateway "$gateway"
}

{
    measure unary
    measure unary --body 4000 --users 1000
    measure unary --body 4000 --users 1000 --variant gob-gzip
    measure stream
    measure stream --batch 1
    measure fanout
    measure fanout --fan-out everybody
    measure fanout --body 4000
    measure fanout --body 4000 --variant gob-gzip
    measure fanout --body 102400 --connections 2000 --server-cpus 0,1
    measure latency
    measure fairness
    measure idle --seconds 8 --runs 3
} | tee "$output"
