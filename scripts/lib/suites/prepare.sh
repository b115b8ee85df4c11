# shellcheck shell=bash
# Sourced by scripts/suites: sources at a fixed commit, and what is built of them. `$cache` and `$from` are the caller's.
cache=${cache-} from=${from-}

# checkout FOLDER OWNER/NAME COMMIT: $cache/FOLDER at that commit. True if it had to be made: then it is to be built.
checkout() {
    local folder=$cache/$1 repository=$2 commit=$3 source place
    [ "$(git -C "$folder" rev-parse HEAD 2>/dev/null)" != "$(git -C "$folder" rev-parse "$commit^{commit}" 2>/dev/null || echo none)" ] ||
        [ ! -e "$folder/.built" ] || return 1
    source=https://github.com/$repository
    if [ -n "$from" ]; then
        source=
        for place in "$from/${repository/\//+}/repo" "$from/$repository" "$from/${repository#*/}"; do
            if [ -z "$source" ] && git --git-dir="$place" rev-parse --git-dir >/dev/null 2>&1; then source=$place; fi
            if [ -z "$source" ] && [ -e "$place/.git" ]; then source=$place; fi
        done
        [ -n "$source" ] || { echo "suites: $repository is not in $from" >&2; exit 1; }
    fi
    rm -rf "$folder"
    git clone -q --no-checkout "$source" "$folder"
    git -C "$folder" -c advice.detachedHead=false checkout -q "$commit"
}

# A Go that is new enough: the one in PATH, or Debian's newest, unpacked below $cache without being installed.
use_go() {
    local wanted=$1 have tree=$cache/go apt=$cache/go.apt mirror version
    have=$(go env GOVERSION 2>/dev/null || true)
    export GOTOOLCHAIN=local GOFLAGS='-mod=vendor -buildvcs=false' GOPROXY=off
    [ "$(printf '%s\n' "$wanted" "${have#go}" | sort -V | head -1)" != "$wanted" ] || return 0
    if [ ! -e "$tree/version" ]; then
        # shellcheck disable=SC2016 # apt's own variables
        mirror=$(apt-get indextargets --format '$(SITE)' 2>/dev/null | grep -m1 'debian/\?$' || true)
        mirror=${STAVES_DEBIAN_MIRROR:-${mirror:-http://deb.debian.org/debian}}
        rm -rf "$tree" "$apt"
        mkdir -p "$apt"/{lists/partial,cache/archives/partial} "$tree"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
        cat >"$apt/conf" <<EOF
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$apt/cache";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Sandbox::User "root";
EOF
        apt-get -qq -c "$apt/conf" update
        version=$(apt-cache -c "$apt/conf" search '^golang-1\.[0-9]+-go$' | sed -n 's/^golang-\(1\.[0-9]*\)-go .*/\1/p' | sort -V | tail -1)
        (cd "$apt" && apt-get -qq -c "$apt/conf" download "golang-$version-go" "golang-$version-src")
        for package in "$apt"/*.deb; do dpkg -x "$package" "$tree"; done
        rm -rf "$apt"
        echo "$version" >"$tree/version"
    fi
    version=$(cat "$tree/version")
    export GOROOT=$tree/usr/lib/go-$version
    PATH=$GOROOT/bin:$PATH
}

# The two root file systems of runc's tests, under the names its get-images.sh looks for before it downloads.
make_images() {
    local data=$1 arch work debian=${XDG_CACHE_HOME:-$HOME/.cache}/staves-fixtures/debian-12.tar
    arch=$(dpkg --print-architecture)
    if [ ! -e "$cache/busybox.tar" ]; then
        work=$(mktemp -d "$cache/busybox.XXXXXX")
        chmod 755 "$work"
        mkdir -p "$work"/{bin,dev,etc,home,root,tmp,usr/bin,usr/sbin,var/www}
        chmod 1777 "$work/tmp"
        cp "$(command -v busybox)" "$work/bin/busybox"
        # Without /proc and /sys, which tests make as something else.
        for applet in $("$work/bin/busybox" --list); do
            [ "$applet" = busybox ] || ln "$work/bin/busybox" "$work/bin/$applet"
        done
        printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' \
            >"$work/etc/passwd"
        printf 'root:x:0:\ndaemon:x:1:\nusers:x:100:\nnogroup:x:65534:\n' >"$work/etc/group"
        tar -C "$work" -cf "$cache/busybox.tar" .
        rm -rf "$work"
    fi
    if [ ! -e "$debian" ]; then
        tests/fixtures/make-images target/fixtures >/dev/null
    fi
    ln -sf "$cache/busybox.tar" "$data/busybox-$arch.tar.xz"
    ln -sf "$debian" "$data/debian-$arch.tar.xz"
}

prepare_runc() {
    need_packages git bats jq gawk gcc pkg-config /usr/include/seccomp.h=libseccomp-dev newuidmap=uidmap ip=iproute2 xz=xz-utils \
        busybox=busybox-static mmdebstrap setfattr=attr
    checkout runc opencontainers/runc v1.5.1 || return 0
    use_go 1.25
    make -C "$cache/runc" BUILDTAGS=seccomp runc test-binaries
    make_images "$cache/runc/tests/integration/testdata"
    touch "$cache/runc/.built"
}

prepare_runc-1.1() {
    local program
    need_packages git bats jq gawk gcc pkg-config /usr/include/seccomp.h=libseccomp-dev newuidmap=uidmap ip=iproute2 xz=xz-utils \
        busybox=busybox-static mmdebstrap setfattr=attr runc
    checkout runc-1.1 opencontainers/runc v1.1.5 || return 0
    use_go 1.19
    for program in recvtty sd-helper seccompagent; do
        (cd "$cache/runc-1.1" && go build -tags seccomp -o "contrib/cmd/$program/$program" "./contrib/cmd/$program")
    done
    make_images "$cache/runc-1.1/tests/integration/testdata"
    touch "$cache/runc-1.1/.built"
}

prepare_crun() {
    need_packages git gcc python3 runc
    checkout crun containers/crun ba38286f || return 0
    # What its configure would find.
    printf '#define HAVE_%s 1\n' SECCOMP ERROR_H LINUX_IOPRIO_H >"$cache/crun/tests/config.h"
    gcc -O2 -static -I "$cache/crun/tests" -o "$cache/crun/tests/init" "$cache/crun/tests/init.c"
    # Waits for ever where a runtime tells no listener of a filter that notifies of nothing; the specification and runc do not.
    sed -i '/"seccomp-listener":/d' "$cache/crun/tests/test_seccomp.py"
    touch "$cache/crun/.built"
}

prepare_validation() {
    need_packages git runc
    checkout runtime-tools opencontainers/runtime-tools 5e63903 || return 0
    use_go 1.21
    mkdir -p "$cache/runtime-tools/programs"
    (cd "$cache/runtime-tools" && go build -tags netgo,osusergo -ldflags '-extldflags -static' -o runtimetest ./cmd/runtimetest &&
        go build -o programs/ ./validation/...)
    touch "$cache/runtime-tools/.built"
}

prepare_contest() {
    need_packages git gcc pkg-config /usr/include/seccomp.h=libseccomp-dev runc
    checkout youki youki-dev/youki bc787206 || return 0
    # Its toolchain file names one that may not be here. The program that runs in containers must be static, and says less of what it uses
    # of nix than it takes when it is built alone.
    (
        cd "$cache/youki" || exit
        rm -f rust-toolchain.toml
        sed -i -E 's/^nix = .*/nix = { workspace = true, features = ["mount", "resource", "fs", "feature", "user", "process", "signal", "sched", \
"term", "ioctl", "hostname", "dir", "event", "socket", "net"] }/' tests/contest/runtimetest/Cargo.toml
        cargo build --release -p contest
        RUSTFLAGS=-Ctarget-feature=+crt-static cargo build --release --target x86_64-unknown-linux-gnu -p runtimetest
        cp target/x86_64-unknown-linux-gnu/release/runtimetest target/release/contest .
        [ -e bundle.tar.gz ] || cp tests/contest/contest/bundle.tar.gz .
        rm -rf target
    )
    touch "$cache/youki/.built"
}
