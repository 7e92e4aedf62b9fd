#!/bin/sh
# Starts one server that Pinion is measured against, in the foreground: start.sh NAME [--port P] [--cpu N]
# start.sh NAME --version prints what would be started. What is not there yet is installed below work/bench first
# (Debian packages: by apt). Names: see `case` below; ../README.md says how each was chosen.
set -eu
cd "$(dirname "$0")/../.."
name=${1:?usage: start.sh NAME [--port P] [--cpu N] | NAME --version}
shift
port=9001 cpu=0 version=
while [ $# -gt 0 ]; do
    case $1 in
        --port) port=$2; shift 2 ;;
        --cpu) cpu=$2; shift 2 ;;
        --version) version=yes; shift ;;
        *) echo "start.sh: $1: unknown" >&2; exit 2 ;;
    esac
done
here=bench/peers
work=$PWD/work/bench
mkdir -p "$work"
SOCKETIFY=0.0.31 WS=8.23.0

rust() {
    [ -x "target/release/$1" ] || cargo build --release -q -p pinion-bench-peers
    set -- "target/release/$1" --port "$port"
    run "$@"
}
package() { # package names, then a file that it brings
    [ -e "$2" ] || apt-get install -y --no-install-recommends $1 >&2
}
run() {
    exec taskset -c "$cpu" "$@"
}

case $name in
    send-loop | ring-loop)
        [ -z "$version" ] || { echo "this repository"; exit; }
        rust "$name" ;;
    fastwebsockets | tokio-tungstenite)
        [ -z "$version" ] || { sed -n "s/^$name = .*\"=\([0-9.]*\)\".*/\1/p" $here/servers/Cargo.toml; exit; }
        rust "$name" ;;
    uwebsockets)
        [ -z "$version" ] || { echo "socketify $SOCKETIFY ($(python3 --version))"; exit; }
        package libuv1 /usr/share/doc/libuv1
        venv=$work/socketify-$SOCKETIFY
        [ -e "$venv/ready" ] || {
            python3 -m venv "$venv"
            "$venv/bin/pip" install -q "socketify==$SOCKETIFY" >&2
            touch "$venv/ready"
        }
        run "$venv/bin/python" $here/foreign/uwebsockets.py "$port" ;;
    node-ws)
        [ -z "$version" ] || { echo "ws $WS (node $(node --version))"; exit; }
        modules=$work/ws-$WS
        [ -e "$modules/node_modules/ws/package.json" ] ||
            npm install --silent --no-save --no-audit --no-fund --prefix "$modules" "ws@$WS" >&2
        NODE_PATH=$modules/node_modules run node $here/foreign/node-ws.js "$port" ;;
    nchan)
        package "nginx-light libnginx-mod-nchan" /usr/lib/nginx/modules/ngx_nchan_module.so
        [ -z "$version" ] || { dpkg-query -W -f '${Package} ${Version} ' nginx-light libnginx-mod-nchan; echo; exit; }
        prefix=$work/nchan-$port
        mkdir -p "$prefix"
        sed "s/@PORT@/$port/" $here/conf/nchan.conf > "$prefix/nginx.conf"
        run /usr/sbin/nginx -p "$prefix" -c "$prefix/nginx.conf" -e stderr ;;
    nats)
        package nats-server /usr/sbin/nats-server
        [ -z "$version" ] || { dpkg-query -W -f '${Package} ${Version}\n' nats-server; exit; }
        sed "s/@PORT@/$port/" $here/conf/nats.conf > "$work/nats-$port.conf"
        GOMAXPROCS=1 run /usr/sbin/nats-server -c "$work/nats-$port.conf" ;;
    *) echo "start.sh: no server $name" >&2; exit 2 ;;
esac
