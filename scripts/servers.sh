#!/usr/bin/env bash
# Installs the servers that the tests of the control thread talk to: etcd and Redis, Debian's packages, without starting
# them as services (each test starts its own). Does nothing when they are there.
set -eu -o pipefail

missing=()
command -v etcd >/dev/null || missing+=(etcd-server)
command -v redis-server >/dev/null && command -v redis-cli >/dev/null || missing+=(redis-server redis-tools)
command -v setpriv >/dev/null || missing+=(util-linux)
if [ "${#missing[@]}" -eq 0 ]; then
    echo "etcd and redis-server are there"
    exit 0
fi

# A policy-rc.d that forbids starts is put in place for the time, unless there is one.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
apt-get update
apt-get install -y --no-install-recommends "${missing[@]}"
echo "installed: ${missing[*]}"
