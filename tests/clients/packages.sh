#!/usr/bin/env bash
# Installs what the client tests and tests/standin need: into work/clients, pinned, from npm and PyPI, and two proxies
# from Debian.
# Nothing of it is ever committed: the licence files of OpenIM's SDKs are AGPL and GPL. Does nothing when it is there.
set -eu -o pipefail
cd "$(dirname "$0")/../.."
CLIENTS=$PWD/work/clients
mkdir -p "$CLIENTS"

# What stands in front of the gateways in suite_front.py; Debian's, as the files of tuning/front are for. Installed
# without being started: a policy-rc.d that forbids it is put in place for the time, unless there is one.
front_packages() {
    local missing=() policy=/usr/sbin/policy-rc.d ours=no
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx)
    [ -e /etc/nginx/modules-enabled/50-mod-stream.conf ] || missing+=(libnginx-mod-stream)
    command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || missing+=(haproxy)
    command -v openssl >/dev/null || missing+=(openssl)
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && ours=yes
    fi
    apt-get update && apt-get install -y --no-install-recommends "${missing[@]}" || missing=(failed)
    [ "$ours" = no ] || rm "$policy"
    [ "${missing[*]}" != failed ]
}
front_packages

# npm_set FOLDER PACKAGE..: no install scripts (koffi brings its binary), no peers (Electron itself is not needed).
npm_set() {
    local folder="$CLIENTS/$1" wanted
    shift
    wanted="$*"
    [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ] && return 0
    rm -rf "$folder"
    mkdir -p "$folder"
    echo '{"private":true}' >"$folder/package.json"
    (cd "$folder" && npm install --ignore-scripts --legacy-peer-deps --no-audit --no-fund --no-progress "$@")
    echo "$wanted" >"$folder/installed"
}

# The wasm package is there for its table of event names. There is no patch.15 of it;
# native_user.js bridges the difference.
npm_set native-patch.10 @openim/electron-client-sdk@3.8.3-patch.10 @openim/wasm-client-sdk@3.8.3-patch.10
npm_set native-patch.15.1 @openim/electron-client-sdk@3.8.3-patch.15.1 @openim/wasm-client-sdk@3.8.3-patch.13
npm_set grpc-js @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1
npm_set js @openim/client-sdk@0.0.14 ws@8.18.3

python_wanted="grpcio==1.85.0 grpcio-tools==1.85.0 grpcio-health-checking==1.85.0 grpcio-reflection==1.85.0 redis==8.1.0"
if [ "$(cat "$CLIENTS/venv/installed" 2>/dev/null)" != "$python_wanted" ]; then
    rm -rf "$CLIENTS/venv"
    python3 -m venv "$CLIENTS/venv"
    # shellcheck disable=SC2086 -- several requirements
    "$CLIENTS/venv/bin/pip" install --quiet --disable-pip-version-check $python_wanted
    echo "$python_wanted" >"$CLIENTS/venv/installed"
fi

# Stubs from our own proto files, made anew each time: they are cheap and must not be stale.
rm -rf "$CLIENTS/stubs"
mkdir -p "$CLIENTS/stubs"
sources=(proto/openim proto/pinion proto/google/rpc/status.proto tests/standin/proto)
mapfile -t protos < <(find "${sources[@]}" -name '*.proto')
"$CLIENTS/venv/bin/python" -m grpc_tools.protoc -I proto -I tests/standin/proto \
    --python_out="$CLIENTS/stubs" --grpc_python_out="$CLIENTS/stubs" "${protos[@]}"
# `google` is a package of protobuf itself: ours are reached by name through a module of their own.
mv "$CLIENTS/stubs/google/rpc/status_pb2.py" "$CLIENTS/stubs/rpc_status_pb2.py"
rm -r "$CLIENTS/stubs/google"
echo "client packages are in $CLIENTS"
