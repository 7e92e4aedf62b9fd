#!/usr/bin/env bash
# A TLS-terminating nginx in front of a gateway: what the pair costs per client, in sockets, bytes and CPU.
#
#   bench/scripts/tls.sh ws://127.0.0.1:10001 GATEWAY_PID [pinion-bench options]
#   bench/scripts/tls.sh ws://127.0.0.1:10001 $(pgrep -x pinion) -c5k -d30s -s bench/scripts/idle.lua
#
# Kernel bytes are the machine's: the generator's and the client nginx's sockets are in them.
#
# Three runs with the same options: the gateway alone; behind nginx without TLS; behind nginx with TLS. The difference
# of the first two is the proxy, that of the last two is TLS.
#
#   pinion-bench --ws--> client nginx --wss--> front nginx --ws--> gateway
#
# The generator speaks no TLS: its cost on the same cores would be taken for the server's. The clients' half of TLS is
# done by another nginx (in all but the first run), which belongs to the load and is counted nowhere. Measured
# (`--server-pid`) are the workers of the front nginx and the gateway. Both nginx listen on loopback on free ports,
# with a certificate made here, and end with this script. Needs Debian's nginx-light (or nginx) and openssl.
set -u -o pipefail

[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
url=$1 gateway_pid=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
bench=${PINION_BENCH:-$root/target/release/pinion-bench}
upstream=${url#*://}
upstream=${upstream%%/*}
for tool in nginx openssl python3 "$bench"; do
    command -v "$tool" >/dev/null || { echo "tls: $tool is missing (apt-get install nginx-light openssl)" >&2; exit 2; }
done

mkdir -p "$root/target/tmp"
dir=$(mktemp -d "$root/target/tmp/tls.XXXXXX") || exit 2
started=()
finish() {
    for pid in "${started[@]}"; do kill -QUIT "$pid" 2>/dev/null; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null; done
    rm -rf "$dir"
}
trap finish EXIT

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null || { echo "tls: no certificate could be made" >&2; exit 2; }

free_port() {
    python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# nginx_proxy NAME LISTEN TARGET [tls line]..: one nginx with one worker; its pid in $dir/NAME.pid.
nginx_proxy() {
    local name=$1 listen=$2 target=$3 line
    shift 3
    {
        echo "daemon off; worker_processes 1; worker_rlimit_nofile $(ulimit -Hn); pid $dir/$name.pid;"
        echo "error_log $dir/$name.log warn;"
        echo "events { worker_connections $(($(ulimit -Hn) - 100)); }"
        echo "http { access_log off;"
        for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $dir/$name-$kind;"; done
        echo "server { listen 127.0.0.1:$listen backlog=4096;"
        for line in "$@"; do echo "$line"; done
        echo "location / { proxy_pass $target; proxy_http_version 1.1;"
        echo "proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade;"
        echo "proxy_set_header Host \$http_host; proxy_read_timeout 1h; proxy_send_timeout 1h; } } }"
    } >"$dir/$name.conf"
    # -c with a whole configuration: nothing of /etc/nginx is read.
    nginx -p "$dir" -c "$dir/$name.conf" -e "$dir/$name.log" &
    started+=($!)
    for _ in $(seq 200); do
        python3 -c "import socket; socket.create_connection(('127.0.0.1', ${listen%% *}), 1)" 2>/dev/null && return 0
        kill -0 "${started[-1]}" 2>/dev/null || break
        sleep 0.05
    done
    echo "tls: the $name nginx does not answer:" >&2
    cat "$dir/$name.log" >&2
    exit 2
}

worker_of() { pgrep -P "$1" | head -n 1; }
sockets_of() { find "/proc/$1/fd" -lname 'socket:*' 2>/dev/null | wc -l; }


front=$(free_port) front_tls=$(free_port) client=$(free_port) client_tls=$(free_port)
nginx_proxy front "$front" "http://$upstream"
front_pid=$(worker_of "${started[-1]}")
nginx_proxy front-tls "$front_tls ssl" "http://$upstream" "ssl_certificate $dir/cert.pem;" \
    "ssl_certificate_key $dir/key.pem;" "ssl_protocols TLSv1.3;"
front_tls_pid=$(worker_of "${started[-1]}")
nginx_proxy client "$client" "http://127.0.0.1:$front"
nginx_proxy client-tls "$client_tls" "https://127.0.0.1:$front_tls" \
    "proxy_ssl_protocols TLSv1.3; proxy_ssl_verify off; proxy_ssl_session_reuse off;"

# measure TITLE PORT_OR_EMPTY FRONT_PID_OR_EMPTY OPTIONS..
measure() {
    local title=$1 target=$2 proxy=$3 json="$dir/run.json" most=0 now run
    shift 3
    echo "== $title"
    "$bench" --json "$json" --quiet --server-pid "$gateway_pid${proxy:+,$proxy}" "$@" "$target" &
    run=$!
    while kill -0 "$run" 2>/dev/null; do
        now=$(sockets_of "$gateway_pid")
        [ -z "$proxy" ] || now=$((now + $(sockets_of "$proxy")))
        [ "$now" -le "$most" ] || most=$now
        sleep 0.2
    done
    wait "$run" || exit 1
    python3 - "$json" "$title" "$most" <<'PY'
import json, sys
run = json.load(open(sys.argv[1]))
clients, used, logins = run["open"] or 1, run["server"], run["server_connecting"]
kernel = sum(used[f"{name}_bytes"] - used[f"{name}_before_bytes"] for name in ("socket_memory", "slab"))
print(f"{sys.argv[2]}: {clients} clients, {int(sys.argv[3]) / clients:.2f} sockets, "
      f"{(used['memory_bytes'] - used['memory_before_bytes']) / clients:.0f} B user and {kernel / clients:.0f} B of the "
      f"machine's kernel per client; {1e6 * logins['cpu_seconds'] / clients:.0f} us CPU per login, "
      f"{1e9 * used['cpu_seconds'] / run['seconds'] / clients:.0f} us CPU/s per 1 000 clients\n")
PY
}

path=/${url#*://*/}
[ "${url#*://*/}" != "$url" ] || path=/
measure "gateway alone" "$url" "" "$@" || exit 1
measure "nginx in front" "ws://127.0.0.1:$client$path" "$front_pid" "$@" || exit 1
measure "nginx in front, TLS" "ws://127.0.0.1:$client_tls$path" "$front_tls_pid" "$@" || exit 1
