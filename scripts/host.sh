#!/usr/bin/env bash
# Checks what tuning/ has for a real host: sysctl profiles (applied and undone in a network namespace), the systemd
# unit, the Kubernetes manifests. Needs the release binary, or GATEWAY_BIN; installs its own Python packages under work/.
set -eu -o pipefail
cd "$(dirname "$0")/.."
VENV=$PWD/work/host/venv
WANTED="kubernetes-validate==1.34.1 PyYAML==6.0.3"
if [ "$(cat "$VENV/installed" 2>/dev/null)" != "$WANTED" ]; then
    rm -rf "$VENV"
    python3 -m venv "$VENV"
    # shellcheck disable=SC2086 -- several requirements
    "$VENV/bin/pip" install --quiet --disable-pip-version-check $WANTED
    echo "$WANTED" >"$VENV/installed"
fi
exec "$VENV/bin/python" tests/host/run.py
