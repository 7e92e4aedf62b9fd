#!/usr/bin/env bash
# Gateways against a real Kubernetes API server: as members of a cluster, and looking for OpenIM's services. The server is
# Debian's source of Kubernetes 1.20, built once (10 to 20 minutes on two cores, 3 GB of disk while it builds) into
# work/kubernetes; kubectl is Debian's kubernetes-client. Not part of scripts/ci.sh for that reason.
# Needs scripts/servers.sh, tests/clients/packages.sh and `cargo build --release`, or GATEWAY_BIN; root only to install.
set -eu -o pipefail
cd "$(dirname "$0")/.."
HERE="$PWD/work/kubernetes"
VERSION=1.20.2
ARCHIVE="kubernetes_1.20.5+really$VERSION.orig.tar.gz"
SHA256=b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc
mkdir -p "$HERE"

packages() {
    local missing=()
    command -v kubectl >/dev/null || missing+=(kubernetes-client)
    command -v openssl >/dev/null || missing+=(openssl)
    if [ ! -x "$HERE/kube-apiserver" ]; then
        command -v go >/dev/null || missing+=(golang-go)
    fi
    [ ${#missing[@]} -eq 0 ] || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# The release leaves its OpenAPI definitions to be generated; the server does not start without them.
build() {
    local go="$HERE/go" source="$HERE/go/src/k8s.io/kubernetes" types name
    curl -fsSL --retry 3 -o "$HERE/$ARCHIVE" "http://deb.debian.org/debian/pool/main/k/kubernetes/$ARCHIVE"
    echo "$SHA256  $HERE/$ARCHIVE" | sha256sum -c -
    mkdir -p "$source"
    tar -xzf "$HERE/$ARCHIVE" -C "$source" --strip-components=1
    export GO111MODULE=off GOPATH="$go" GOCACHE="$go/cache"
    name=k8s.io/kubernetes/vendor/k8s.io/component-base/version
    (
        cd "$source"
        go build -o "$HERE/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
        types=$(grep -rlE '^// *\+k8s:openapi-gen=true' --include='*.go' staging/src | grep -v -e _examples -e sample |
            xargs -n1 dirname | sort -u | sed 's#^staging/src#k8s.io/kubernetes/vendor#' | paste -sd,)
        "$HERE/openapi-gen" -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt \
            -p k8s.io/kubernetes/pkg/generated/openapi -i "$types" -r "$HERE/violations" --output-base "$go/src"
        nice go build -ldflags "-s -w -X $name.gitVersion=v$VERSION -X $name.gitMajor=1 -X $name.gitMinor=20" \
            -o "$HERE/kube-apiserver" ./cmd/kube-apiserver
    )
    rm -rf "$go" "$HERE/openapi-gen" "${HERE:?}/$ARCHIVE" "$HERE/violations"
}

packages
[ -x "$HERE/kube-apiserver" ] || build
ulimit -n "$(ulimit -Hn)"
# A network of its own: endpoints must have addresses that are not loopback ones, and nothing else hears of these.
exec unshare --map-root-user --net bash -eu -c '
    ip link set lo up
    ip address add 203.0.113.1/24 dev lo
    exec work/clients/venv/bin/python tests/kubernetes/run.py "$@"' kubernetes "$@"
