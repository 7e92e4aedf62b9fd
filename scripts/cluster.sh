#!/usr/bin/env bash
# A fleet by hand: etcd, N gateways on loopback addresses, clients and pushes; prints per second what was lost and
# doubled, and takes add, kill, stop, cont, drain, cancel, cut, heal, etcd on standard input (`help` lists them).
# Needs scripts/servers.sh, tests/clients/packages.sh and `cargo build --release`, or GATEWAY_BIN. No root.
set -eu -o pipefail
cd "$(dirname "$0")/.."
python=work/clients/venv/bin/python
if [ ! -x "$python" ] || ! command -v etcd >/dev/null; then
    echo "cluster.sh: run scripts/servers.sh and tests/clients/packages.sh first" >&2
    exit 2
fi
if [ ! -x "${GATEWAY_BIN:-target/release/pinion}" ]; then
    echo "cluster.sh: there is no ${GATEWAY_BIN:-target/release/pinion}: run cargo build --release, or name another one" \
        "in GATEWAY_BIN" >&2
    exit 2
fi
# Each client is a descriptor here and one in a gateway.
ulimit -n "$(ulimit -Hn)"
exec "$python" tests/clients/scene.py "$@"
