# shellcheck shell=bash disable=SC2154
# Pulling, unpacking, pushing, saving and loading one large image. Sourced by scripts/bench, whose functions it uses.
#
# Each measurement has an ext4 file system of its own, made for it: on one whose files were just removed ext4 skips their inodes one by one.

# ---- the image: ten layers out of this machine's /usr
app=$work/app
megabytes=${STAVES_BENCH_IMAGE_MB:-750}
make_image() {
    local layers=() diff_ids=() n size
    mkdir -p "$app/blobs/sha256"
    # Files that every Debian machine with the packages of these benchmarks has, in an order that depends on nothing else.
    find /usr/bin /usr/lib /usr/share /usr/sbin -xdev -type f -size -20M -printf '%s %p\n' 2>/dev/null | LC_ALL=C sort -k2 |
        awk -v limit=$((megabytes * 1048576)) -v dir="$work" '{ if (sum + $1 > limit) next; sum += $1
            name = $0; sub(/^[0-9]+ \//, "", name); print name >(dir "/list." int(sum * 10 / (limit + 1))) }'
    for n in 0 1 2 3 4 5 6 7 8 9; do
        [ -s "$work/list.$n" ] || continue
        tar -C / --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer.tar" -T "$work/list.$n"
        diff_ids+=("sha256:$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)")
        gzip -n <"$work/layer.tar" >"$work/layer.gz"
        size=$(stat -c %s "$work/layer.gz")
        digest=$(sha256sum <"$work/layer.gz" | cut -d' ' -f1)
        mv "$work/layer.gz" "$app/blobs/sha256/$digest"
        layers+=("{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$digest\",\"size\":$size}")
    done
    rm -f "$work/layer.tar" "$work"/list.*
    put() {
        local digest
        digest=$(sha256sum <"$work/document" | cut -d' ' -f1)
        cp "$work/document" "$app/blobs/sha256/$digest"
        printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$1" "$digest" "$(stat -c %s "$work/document")"
    }
    printf '{"architecture":"%s","os":"linux","config":{"Cmd":["/bin/true"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(dpkg --print-architecture)" "$(printf '"%s",' "${diff_ids[@]}" | sed 's/,$//')" >"$work/document"
    config=$(put application/vnd.oci.image.config.v1+json)
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
        "$config" "$(printf '%s,' "${layers[@]}" | sed 's/,$//')" >"$work/document"
    manifest=$(put application/vnd.oci.image.manifest.v1+json)
    printf '{"schemaVersion":2,"manifests":[%s]}' \
        "$(jq -c '.annotations = {"org.opencontainers.image.ref.name": "app"}' <<<"$manifest")" >"$app/index.json"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$app/oci-layout"
}

# serve PORT FOLDER: a registry; its process is in $served.
serve() {
    cat >"$work/registry-$1.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $2}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$1"}
END
    docker-registry serve "$work/registry-$1.yml" >/dev/null 2>&1 &
    served=$!
    until curl -fs "http://127.0.0.1:$1/v2/" >/dev/null; do sleep 0.05; done
}

# ---- a file system for each measurement
fresh() {
    truncate -s 8G "$work/disk"
    mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1 "$work/disk"
    mkdir -p "$work/fs"
    mount -o loop "$work/disk" "$work/fs"
    export STAVES_ROOT=$work/fs/root
    mkdir -p "$work/fs/tmp"
    sync
}
gone() {
    # Whoever makes it durable in the background may still be at it.
    for _ in $(seq 100); do
        sync
        umount "$work/fs" 2>/dev/null && break
        sleep 0.1
    done
    rm -f "$work/disk"
    rm -rf "${STAVES_RUN:?}"/*
}

# ---- the peers' daemons, started before the clock
with_docker() {
    export DOCKER_HOST=unix://$work/docker.sock
    dockerd --data-root "$work/fs/docker" --exec-root "$work/docker-run" -H "$DOCKER_HOST" --pidfile "$work/docker.pid" \
        --storage-driver overlay2 --iptables=false --bridge=none --insecure-registry 127.0.0.1:5001 >"$work/dockerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do docker version >/dev/null 2>&1 && return; sleep 0.1; done
    tail -3 "$work/dockerd.log" >&2
    return 1
}
with_containerd() {
    printf 'version = 2\nroot = "%s"\nstate = "%s"\n[grpc]\naddress = "%s"\n' "$work/fs/containerd" "$work/containerd-run" \
        "$work/containerd.sock" >"$work/containerd.toml"
    containerd -c "$work/containerd.toml" >"$work/containerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do ctr -a "$work/containerd.sock" version >/dev/null 2>&1 && return; sleep 0.1; done
    return 1
}
# The most memory the daemon, and its own containerd, had resident.
end_daemon() {
    local pid
    for pid in "$daemon" $(pgrep -P "$daemon" || true); do
        awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null
    done | awk '{ sum += $1 } END { print sum }' >>"$work/times/$1.daemon"
    kill "$daemon"
    wait "$daemon" 2>/dev/null || true
    findmnt -rno TARGET | grep -E "^$work/(fs/.|docker-run|containerd-run)" | sort -r | xargs -r umount 2>/dev/null || true
}
podman_=(podman --root "$work/fs/podman" --runroot "$work/podman-run" --storage-driver overlay)

# A floor: what the registry has, inflated and written, with nothing checked and nothing kept.
blobs() { jq -r '.layers[].digest' <<<"$manifest_text"; }
cat >"$work/one-layer" <<'END'
#!/bin/bash
set -eo pipefail
mkdir -p "$2/$1"
curl -sS "http://127.0.0.1:5000/v2/app/blobs/$1" | $INFLATE | tar -C "$2/$1" -x
END
chmod +x "$work/one-layer"

once() {
    fresh
    case $1 in
    pull-unpack) measure "$1" sh -c "img-pull -q $reference >/dev/null; img-unpack -q $reference" ;;
    pipeline) measure "$1" sh -c "img-pull $reference | img-unpack" ;;
    one-process) measure "$1" img-pull --unpack "$reference" ;;
    pull) measure "$1" img-pull "$reference" ;;
    floor-in-a-row) INFLATE='zcat' measure "$1" sh -c "for it in $digests; do $work/one-layer \$it $work/fs/floor; done" ;;
    floor-two-lanes) INFLATE="igzip -dc" measure "$1" sh -c "printf '%s\n' $digests | xargs -P 2 -I{} $work/one-layer {} $work/fs/floor" ;;
    skopeo-umoci)
        measure "$1" sh -c "skopeo --insecure-policy copy -q --src-tls-verify=false docker://$reference oci:$work/fs/oci:app && \
            umoci unpack --image $work/fs/oci:app $work/fs/bundle"
        ;;
    podman-pull) measure "$1" "${podman_[@]}" pull -q --tls-verify=false "$reference" ;;
    docker-pull) with_docker && measure "$1" docker pull -q "$reference"; end_daemon "$1" ;;
    containerd-pull)
        with_containerd && measure "$1" ctr -a "$work/containerd.sock" images pull --plain-http --snapshotter overlayfs "$reference"
        end_daemon "$1"
        ;;
    push | skopeo-push | docker-push)
        mkdir "$work/fs/registry"
        serve 5001 "$work/fs/registry"
        case $1 in
        push)
            img-pull -q "$reference" >/dev/null
            measure "$1" img-push "$reference" 127.0.0.1:5001/app:1
            ;;
        skopeo-push) measure "$1" skopeo --insecure-policy copy -q --dest-tls-verify=false "oci:$app:app" docker://127.0.0.1:5001/app:1 ;;
        docker-push)
            with_docker
            docker pull -q "$reference" >/dev/null && docker tag "$reference" 127.0.0.1:5001/app:1
            measure "$1" docker push -q 127.0.0.1:5001/app:1
            end_daemon "$1"
            ;;
        esac
        kill $served
        wait $served 2>/dev/null || true
        ;;
    save)
        img-pull -q "$reference" >/dev/null
        measure "$1" img-save -o "$work/fs/app.tar" "$reference"
        ;;
    skopeo-save) measure "$1" skopeo --insecure-policy copy -q "oci:$app:app" "oci-archive:$work/fs/app.tar:app" ;;
    docker-save)
        with_docker
        docker pull -q "$reference" >/dev/null
        measure "$1" docker save -o "$work/fs/app.tar" "$reference"
        end_daemon "$1"
        ;;
    floor-save) measure "$1" tar -C "$app" -cf "$work/fs/app.tar" . ;;
    load) measure "$1" img-load -i "$work/app.tar" ;;
    podman-load) measure "$1" "${podman_[@]}" load -q -i "$work/app.tar" ;;
    docker-load) with_docker && measure "$1" docker load -q -i "$work/app.tar"; end_daemon "$1" ;;
    floor-load) measure "$1" tar -C "$work/fs/tmp" -xf "$work/app.tar" ;;
    esac
    gone
}
# What processes the tool itself started had; a daemon's time on a processor is not in it.
memory() {
    local name
    printf '\n%-34s %10s %10s %10s\n' "peak memory, MiB" tool daemon 'cpu s'
    for name in "$@"; do
        [ -s "$work/times/$name" ] || continue
        printf '%-34s %10s %10s %10s\n' "$name" "$(awk '{ if ($2 > most) most = $2 } END { printf "%.1f", most / 1024 }' "$work/times/$name")" \
            "$([ ! -s "$work/times/$name.daemon" ] || awk '{ if ($1 > most) most = $1 } END { printf "%.1f", most / 1024 }' "$work/times/$name.daemon")" \
            "$(awk '{ sum += $3 } END { printf "%.2f", sum / NR / 1000000 }' "$work/times/$name")"
    done
}

progress "making an image of $megabytes MB"
make_image
mkdir "$work/storage"
serve 5000 "$work/storage"
reference=127.0.0.1:5000/app:1
skopeo --insecure-policy copy -q --dest-tls-verify=false "oci:$app:app" "docker://$reference"
manifest_text=$(cat "$app/blobs/sha256/$(jq -r '.manifests[0].digest' "$app/index.json" | cut -d: -f2)")
digests=$(blobs | tr '\n' ' ')
echo "$(nproc) processors, $(uname -sr), $rounds rounds; $(blobs | wc -l) layers, \
$(jq '[.layers[].size] | add / 1048576 | floor' <<<"$manifest_text") MiB packed, about $megabytes MiB unpacked"

if wants pull; then
    contenders=(floor-in-a-row pipeline one-process)
    ! command -v igzip >/dev/null || contenders=(floor-in-a-row floor-two-lanes pipeline one-process)
    for name in docker podman containerd; do if has $name; then contenders+=("$name-pull"); fi; done
    ! has skopeo || contenders+=(skopeo-umoci)
    rounds_of "${contenders[@]}"
    table 'pull and unpack' floor-in-a-row "${contenders[@]}"
    memory "${contenders[@]}"
fi
if wants push; then
    contenders=(push)
    ! has skopeo || contenders+=(skopeo-push)
    ! has docker || contenders+=(docker-push)
    rounds_of "${contenders[@]}"
    table 'push' push "${contenders[@]}"
    memory "${contenders[@]}"
fi
if wants save; then
    contenders=(floor-save save)
    ! has skopeo || contenders+=(skopeo-save)
    ! has docker || contenders+=(docker-save)
    rounds_of "${contenders[@]}"
    table 'save to a file' floor-save "${contenders[@]}"
    memory "${contenders[@]}"
fi
if wants load; then
    fresh
    img-pull -q "$reference" >/dev/null
    img-save -o "$work/app.tar" "$reference" >/dev/null
    gone
    contenders=(floor-load load)
    for name in podman docker; do if has $name; then contenders+=("$name-load"); fi; done
    rounds_of "${contenders[@]}"
    table 'load from a file' floor-load "${contenders[@]}"
    memory "${contenders[@]}"
fi
