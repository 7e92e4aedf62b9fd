#!/usr/bin/env bash
# Runs the Autobahn WebSocket test suite (all 301 cases without compression) against `examples/echo.rs`, which is built
# on the gateway's own frame code. Usage: scripts/autobahn.sh. Needs Python 2.7 (pyenv has it); its packages come from
# PyPI into work/py27. Prints `autobahn: N passed, M failed` last; exits 1 if any case failed or is missing.
#
# NON-STRICT is a failure too: RFC 6455 leaves open when invalid UTF-8 in a fragment is noticed (cases 6.4.*), but the
# frame code notices it at once, so that no case needs the allowance. INFORMATIONAL (7.1.6, 7.13.*) is no judgement: the
# suite only notes what a peer does where the RFC says nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/work/autobahn
mkdir -p "$work"
python2=$(command -v python2.7 || true)
[ -n "$python2" ] || { echo "autobahn: python2.7 is not on this machine (pyenv install 2.7.18)"; exit 3; }
if [ ! -x work/py27/bin/wstest ]; then
    export PYENV_VERSION=2.7.18
    python2.7 -m pip install -q virtualenv 2>/dev/null
    python2.7 -m virtualenv -q work/py27
    work/py27/bin/pip install -q autobahntestsuite==25.10.1
fi
# The debug build: its library is there already from the tests, and a release one would be linked with LTO once more.
cargo build -q --locked --workspace --example echo
target/debug/examples/echo 127.0.0.1:0 >"$work/echo.log" 2>"$work/echo.err" &
echo_pid=$!
trap 'kill "$echo_pid" 2>/dev/null || true' EXIT
for _ in $(seq 600); do
    grep -q listening "$work/echo.log" && break
    sleep 0.1
done
address=$(sed -n 's/^listening on //p' "$work/echo.log")
rm -rf "$work/reports"
cat >"$work/spec.json" <<JSON
{ "outdir": "$work/reports", "servers": [ { "agent": "pinion", "url": "ws://$address" } ],
  "cases": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"], "exclude-cases": [], "exclude-agent-cases": {} }
JSON
timeout 900 work/py27/bin/wstest -m fuzzingclient -s "$work/spec.json" >"$work/wstest.log" 2>&1
python3 - "$work/reports/index.json" <<'PY'
import collections, json, sys
cases = json.load(open(sys.argv[1]))["pinion"]
good = {"OK", "INFORMATIONAL"}
bad = {c: r for c, r in cases.items() if r["behavior"] not in good or r["behaviorClose"] not in good}
print("autobahn:", dict(collections.Counter(r["behavior"] for r in cases.values())))
for case, result in sorted(bad.items()):
    print("autobahn: FAILED", case, result)
for case, result in sorted(cases.items()):
    if result["behavior"] == "INFORMATIONAL":
        print("autobahn: informational", case)
missing = 301 - len(cases)
print(f"autobahn: {len(cases) - len(bad)} passed, {len(bad) + max(missing, 0)} failed")
sys.exit(1 if bad or missing else 0)
PY
