#!/usr/bin/env bash
# Fuzzes the pure layers. Usage: scripts/fuzz.sh [SECONDS [TARGET..]]: each target (default: all of tests/fuzz) for so
# many seconds (default 10; 0: only builds). Installs cargo-fuzz into work/tools if it is missing; needs stable Rust and a C++ compiler.
#
# Starts from the committed corpus (tests/fuzz/corpus, read only) and what earlier runs found (work/fuzz). Prints
# executions per target and how to reproduce a crash; last line `fuzz: N passed, M failed`; exits 1 if any failed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
CARGO_FUZZ_VERSION=0.13.1
seconds=${1:-10}
shift || true
tool=$PWD/work/tools/bin/cargo-fuzz
# Optimised, but with checks for overflow; without sanitizers, which need a nightly compiler.
options=(-s none --release --debug-assertions --codegen-units 4 --fuzz-dir tests/fuzz --target-dir target/fuzz)
binaries=target/fuzz/$(rustc -vV | sed -n 's/^host: //p')/release
found=work/fuzz
mkdir -p "$found"

if ! "$tool" --version 2>/dev/null | grep -qx "cargo-fuzz $CARGO_FUZZ_VERSION"; then
    # Not optimised: it only starts cargo.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off cargo install cargo-fuzz --locked --version "$CARGO_FUZZ_VERSION" --root work/tools \
        --target-dir work/tools-target || exit 1
fi
"$tool" fuzz build "${options[@]}" || { echo "fuzz: 0 passed, 1 failed"; exit 1; }
[ "$seconds" != 0 ] || exit 0
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <("$tool" fuzz list --fuzz-dir tests/fuzz)

fuzz() { # TARGET
    local target=$1 log=$found/$1.log status runs edges input
    mkdir -p "$found/$target" "tests/fuzz/corpus/$target"
    # The binary itself: `cargo fuzz run` would look for changes again and again.
    "$binaries/$target" -artifact_prefix="$found/crash-$target-" -max_total_time="$seconds" -timeout=60 \
        -len_control=20 -rss_limit_mb=2048 -print_final_stats=1 "$found/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(grep -o ' cov: [0-9]*' "$log" | tail -n 1)
    if [ "$status" -eq 0 ] && [ "${runs:-0}" -gt 0 ]; then
        echo "fuzz $target: $runs executions,$edges"
        return 0
    fi
    grep -v '^#' "$log" | tail -n 40
    input=$(grep -o "$found/crash-$target-[^ ]*" "$log" | tail -n 1)
    echo "fuzz $target: FAILED with status $status after ${runs:-0} executions, log in $log"
    [ -z "$input" ] || echo "fuzz $target: reproduce with: $binaries/$target $input"
    return 1
}

passed=0
failed=0
# As many at a time as there are processors.
together=$(nproc)
for ((first = 0; first < ${#targets[@]}; first += together)); do
    running=()
    for target in "${targets[@]:first:together}"; do
        fuzz "$target" &
        running+=($!)
    done
    for pid in "${running[@]}"; do
        if wait "$pid"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    done
done
echo "fuzz: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
