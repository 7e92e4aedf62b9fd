#!/usr/bin/env bash
# The whole of CI, the same here and there: installs what it needs, stops at the first failure and names the step,
# ends with one line `N passed, M failed` over all suites. A step without a count of its own (formatting, lints, docs,
# builds) counts as one. Everything it installs or writes is under work/ and target/.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
export CARGO_TERM_COLOR=never
ROOT=$PWD
WORK=$ROOT/work
LOGS=$WORK/ci
mkdir -p "$LOGS"

# Kept in step with tests/clients/packages.sh, which pins what the client tests install.
CARGO_DENY_VERSION=0.20.2
# No step may hang: the whole run must stay under 30 minutes.
STEP_SECONDS=1200

passed=0
failed=0
skipped=0

finish() {
    local line="$passed passed, $failed failed"
    [ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
    echo "$line"
    [ "$failed" -eq 0 ] || exit 1
    exit 0
}

# stop STEP WHY: a failure that no suite has counted is counted here.
stop() {
    [ "$failed" -gt 0 ] || failed=1
    echo "ci: FAILED at step: $1 ($2)"
    finish
}

# count LOG: adds the totals of cargo's and our own suites, as `passed failed skipped`.
count() {
    awk '
        /^test result: / { gsub(/[;.]/, ""); for (i = 2; i <= NF; i++) {
            if ($i == "passed") p += $(i-1); if ($i == "failed") f += $(i-1); if ($i == "ignored") s += $(i-1) } }
        /^[a-z-]+: [0-9]+ passed, [0-9]+ failed/ { gsub(/,/, ""); p += $2; f += $4; if ($7 == "skipped") s += $6 }
        END { print p + 0, f + 0, s + 0 }' "$1"
}

# run STEP KIND COMMAND..: KIND is `gate` (one pass if it succeeds) or `suite` (brings its own counts).
run() {
    local step=$1 kind=$2 log status started p f s
    shift 2
    log="$LOGS/$(echo "$step" | tr -c 'a-z0-9\n' '-').log"
    started=$SECONDS
    echo "== $step: $*"
    timeout --kill-after=30 "$STEP_SECONDS" "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    p=1 f=0 s=0
    if [ "$kind" = suite ]; then
        read -r p f s < <(count "$log")
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    elif [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
    fi
    [ "$status" -eq 0 ] || stop "$step" "exit status $status, log in $log"
    [ "$f" -eq 0 ] || stop "$step" "$f failed, log in $log"
    [ "$p" -gt 0 ] || stop "$step" "it ran no test, log in $log"
    echo "== $step: ok, $p passed, $((SECONDS - started)) s"
}

# begin STEP COMMAND..: builds what a later step needs with what the tests leave of the processors. `await STEP` waits.
begun=()
begin() {
    local file="$LOGS/begun-${1// /-}"
    shift
    rm -f "$file.status"
    (
        nice -n 19 timeout --kill-after=30 "$STEP_SECONDS" "$@" >"$file.log" 2>&1
        echo $? >"$file.status"
    ) &
    begun+=($!)
}

await() {
    local file="$LOGS/begun-${1// /-}"
    run "$1" gate bash -c 'while [ ! -e "$0.status" ]; do sleep 0.2; done; tail -n 5 "$0.log"; exit "$(cat "$0.status")"' "$file"
}

end_begun() {
    local pid
    for pid in "${begun[@]}"; do pkill -P "$pid" 2>/dev/null; done
}
trap end_begun EXIT

# Debian packages, only when something is missing.
packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(build-essential)
    command -v c++ >/dev/null || missing+=(g++)
    command -v git >/dev/null || missing+=(git)
    command -v curl >/dev/null || missing+=(curl ca-certificates)
    command -v node >/dev/null && command -v npm >/dev/null || missing+=(nodejs npm)
    command -v strace >/dev/null || missing+=(strace)
    command -v unshare >/dev/null || missing+=(util-linux)
    command -v ip >/dev/null || missing+=(iproute2)
    command -v make >/dev/null || missing+=(make) # LuaJIT's build
    command -v h2load >/dev/null && command -v nghttp >/dev/null || missing+=(nghttp2-client)
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
    if [ "${#missing[@]}" -gt 0 ]; then
        apt-get update && apt-get install -y --no-install-recommends "${missing[@]}" || return 1
    fi
    command -v cargo >/dev/null || { echo "cargo is missing: install rustup"; return 1; }
    node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' || {
        echo "Node 18 or newer is needed for OpenIM's clients, found $(node --version)"
        return 1
    }
}

# Not optimised: it runs for seconds, and optimising it takes minutes.
deny_tool() {
    "$WORK/tools/bin/cargo-deny" --version 2>/dev/null | grep -qx "cargo-deny $CARGO_DENY_VERSION" ||
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
            cargo install cargo-deny --locked --version "$CARGO_DENY_VERSION" --root "$WORK/tools" \
            --target-dir "$WORK/tools-target"
}

# The database of advisories is on a host that may be unreachable: then this is skipped, and counted.
advisories() {
    local deny="$WORK/tools/bin/cargo-deny"
    if timeout 60 "$deny" fetch db >"$LOGS/advisories-fetch.log" 2>&1; then
        run advisories gate "$deny" check --disable-fetch advisories
    else
        echo "== advisories: SKIPPED, the database cannot be reached ($(grep -m 1 '^fatal' "$LOGS/advisories-fetch.log"))"
        skipped=$((skipped + 1))
    fi
}

# Autobahn runs on Python 2.7, which Debian no longer has (pyenv does). Where it is missing the step is skipped by name
# and counted, but not in `.ci/run`, which sets NO_SKIPS.
autobahn() {
    if [ -z "${NO_SKIPS:-}" ] && ! PYENV_VERSION=2.7.18 python2.7 --version >/dev/null 2>&1; then
        echo "== autobahn: SKIPPED, python2.7 is not on this machine (pyenv install 2.7.18)"
        skipped=$((skipped + 1))
        return
    fi
    run "autobahn" suite bash scripts/autobahn.sh
}

export -f packages deny_tool
export WORK CARGO_DENY_VERSION
denied=(python3 scripts/without-io-uring.py)

run "prerequisites" gate bash -c packages
run "servers" gate bash scripts/servers.sh
run "format" gate cargo fmt --all --check
# What is built for tests is built with one selection of packages, the whole workspace: with another one crates get
# other features, and half of them would be built again.
run "test build" gate cargo test --locked --workspace --all-targets --no-run
run "build of the tools" gate cargo build --locked --workspace --bins --examples
# The gateway under test is the one with debug assertions. The release build is what README.md's commands are run with.
export GATEWAY_BIN=$ROOT/target/debug/pinion
# Many tests wait for a deadline most of the time: hence eight at once. Those of rpc and shard talk over loopback. The
# routers' simulator is in the library, since it looks inside them; those named tonic:: want the real binary.
run "unit tests" suite cargo test --locked --workspace --lib --bins -- --test-threads=8 \
    --skip rpc::tests --skip shard::tests --skip cluster::protocol::sim --skip tonic::
run "rpc and shards over loopback" suite cargo test --locked --workspace --lib -- --test-threads=8 rpc::tests shard::tests
begin "cargo-deny" bash -c deny_tool
begin "fuzz targets" bash scripts/fuzz.sh 0
begin "client packages" bash tests/clients/packages.sh
begin "release build" cargo build --locked --release
run "sim of the routers" suite cargo test --locked --workspace --lib -- cluster::protocol::sim
run "it" suite cargo test --locked --workspace --test it -- --test-threads=3 --skip churn::
run "tonic" suite cargo test --locked --workspace --lib -- tonic::
run "churn" suite cargo test --locked --workspace --test it -- churn:: --nocapture
run "seccomp filter" suite "${denied[@]}" --self-test
# (The rpc tests run on both drivers anyway.)
run "unit tests without io_uring" suite "${denied[@]}" cargo test --locked --workspace --lib -- shard:: tonic::
run "it without io_uring" suite "${denied[@]}" \
    cargo test --locked --workspace --test it -- --test-threads=3 --skip tidy:: --skip churn:: --skip control:: \
    --skip proxy --skip assign --skip doctor:: --skip openim_config:: --skip placement:: --skip tuning::
run "churn without io_uring" suite "${denied[@]}" cargo test --locked --workspace --test it -- churn:: --nocapture
run "sim" suite cargo test --locked --workspace --test sim
autobahn
run "micro benchmarks, once each" gate cargo test --locked --workspace --bench micro
await "fuzz targets"
run "fuzz" suite bash scripts/fuzz.sh 5
# From here on nothing but these is built in target/debug: they wait for nobody, and nobody for them.
begin "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
begin "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --lib --document-private-items
begin "pure layers alone" cargo check --locked --lib --no-default-features
run "arithmetic of the comparison" gate python3 -m unittest discover -s bench/compare -p 'test_*.py'
run "bench smoke" suite target/debug/bench-push smoke --gateway "$GATEWAY_BIN"
run "load generator smoke" suite python3 bench/scripts/smoke.py --gateway "$GATEWAY_BIN" \
    --bench target/debug/pinion-bench --services target/debug/openim-services
run "host" suite bash scripts/host.sh
await "client packages"
run "stand-in of OpenIM" suite "$WORK/clients/venv/bin/python" tests/standin/selftest.py
run "clients" suite "$WORK/clients/venv/bin/python" tests/clients/run.py
# Those whose way through the gateway depends on the driver.
run "clients without io_uring" suite "${denied[@]}" "$WORK/clients/venv/bin/python" tests/clients/run.py \
    native-patch.15.1 js grpc grpc-limits push
await "clippy"
await "docs"
await "pure layers alone"
await "release build"
run "the commands of README.md" suite python3 scripts/quickstart.py
await "cargo-deny"
run "licences, bans, sources" gate "$WORK/tools/bin/cargo-deny" --workspace check bans licenses sources
advisories
echo "ci: all steps ok in $SECONDS s"
finish
