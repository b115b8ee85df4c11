# shellcheck shell=bash disable=SC2154,SC2034
# Building, against docker (BuildKit, asked by the API it takes contexts by; and its classic builder) and buildah. Sourced by scripts/bench, whose functions it uses.
#
# BuildKit is asked as the docker command without buildx asked it: one request with a tar of the context, one for the build. The tar is ready before the
# clock starts where nothing in the context has changed; a user's docker walks the context as well, so what it takes there is more.

# Each builder has a file system of its own: ext4 without a journal passes over every inode that was freed a moment ago, for each file that is made,
# so that who comes after one that removes many files would pay for it.
for builder in root docker podman; do
    mkdir -p "$work/$builder"
    truncate -s 16G "$work/disk-$builder"
    mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1 "$work/disk-$builder"
    mount -o loop "$work/disk-$builder" "$work/$builder"
done
# shellcheck source=scripts/lib/bench-peers.sh
. scripts/lib/bench-peers.sh
img-pull -q "$reference" >/dev/null
"${podman_[@]}" --version >/dev/null 2>&1 || true
buildah_=(buildah --root "$work/podman" --runroot "$work/podman-run" --storage-driver overlay)
has_buildah() { case ,$peers, in *,buildah,*) command -v buildah >/dev/null && running podman ;; *) false ;; esac; }

# ---- the projects
mkdir -p "$work/ten" "$work/many/src" "$work/stages"
cat >"$work/ten/Dockerfile" <<END
FROM $reference
ENV A=1
WORKDIR /app
COPY a /app/a
RUN echo one >/one
COPY b /app/b
RUN echo two >/two
LABEL l=v
RUN echo three >/three
CMD ["sh"]
END
echo a >"$work/ten/a"
echo b >"$work/ten/b"
cat >"$work/many/Dockerfile" <<END
FROM $reference
RUN mkdir /deps
COPY src /src
RUN cat /src/0/0 >/built
END
for d in $(seq 0 199); do
    mkdir "$work/many/src/$d"
    for f in $(seq 0 99); do echo "$d $f" >"$work/many/src/$d/$f"; done
done
cat >"$work/stages/Dockerfile" <<END
FROM $reference AS one
RUN dd if=/dev/urandom of=/one bs=1M count=16 2>/dev/null
FROM $reference AS two
RUN dd if=/dev/urandom of=/two bs=1M count=16 2>/dev/null
FROM $reference
COPY --from=one /one /one
COPY --from=two /two /two
RUN cat /one /two | sha256sum >/sum
END

# ---- the builders
# buildkit FOLDER TAG
cat >"$work/buildkit" <<'END'
#!/bin/bash
# DOCKER_HOST's daemon builds the tar $3, or what $1 is now, as $2.
id=$RANDOM$RANDOM$$ socket=${DOCKER_HOST#unix://} tar=$3
[ -n "$tar" ] || { tar=$(mktemp); trap 'rm -f "$tar"' EXIT; tar -C "$1" -cf "$tar" .; }
curl -fsS --unix-socket "$socket" -X POST -H 'Content-Type: application/x-tar' --data-binary "@$tar" \
    "http://d/v1.41/build?version=2&buildid=upload-request:$id" >/dev/null &
curl -fsS --unix-socket "$socket" -X POST "http://d/v1.41/build?version=2&buildid=$id&remote=upload-request&t=$2$4" >"${BUILDKIT_LOG:-/dev/null}"
status=$?
wait
exit $status
END
chmod +x "$work/buildkit"
export BUILDKIT_LOG=$work/buildkit.log
if running docker; then
    tar -C "$work/ten" -cf "$work/ten.tar" .
    if "$work/buildkit" "$work/ten" ten "$work/ten.tar" && docker image inspect ten >/dev/null 2>&1; then
        touch "$work/has-buildkit"
    else
        echo "bench: the daemon's BuildKit does not answer; its classic builder is measured alone" >&2
        tail -c 400 "$work/buildkit.log" >&2 || true
    fi
fi
# builders CASE: those that are here, ours first.
builders() {
    echo "img-build-$1"
    running buildkit && echo "buildkit-$1"
    running docker && echo "docker-classic-$1"
    has_buildah && echo "buildah-$1"
    true
}
build() { # NAME BUILDER FOLDER [TAR]
    case $2 in
    img-build) measure "$1" img-build -q --progress quiet -t "bench:${3##*/}" "$3" ;;
    buildkit) measure "$1" "$work/buildkit" "$3" "${3##*/}" "${4-}" ;;
    docker-classic) measure "$1" env DOCKER_BUILDKIT=0 docker build -q -t "${3##*/}" "$3" ;;
    buildah) measure "$1" "${buildah_[@]}" build -q --layers --isolation oci --tls-verify=false -t "${3##*/}" "$3" ;;
    esac
}
builder_of() { local name=${1%-*}; echo "$name"; }

if wants noop; then
    once() { build "$1" "$(builder_of "$1")" "$work/ten" "$work/ten.tar"; }
    # shellcheck disable=SC2046
    rounds_of $(builders noop)
    # shellcheck disable=SC2046
    table "nothing changed, 10 instructions" img-build-noop $(builders noop)
fi
if wants touch; then
    turn=0
    once() {
        turn=$((turn + 1))
        echo "$turn" >"$work/many/src/7/7"
        # As git does: a file that was changed in this very moment is read again.
        sleep 0.05
        build "$1" "$(builder_of "$1")" "$work/many"
    }
    # shellcheck disable=SC2046
    rounds_of $(builders touch)
    # shellcheck disable=SC2046
    table "one of 20 000 files changed" img-build-touch $(builders touch)
    once() { build "$1" "$(builder_of "$1")" "$work/many"; }
    # shellcheck disable=SC2046
    rounds_of $(builders same)
    # shellcheck disable=SC2046
    table "20 000 files, none changed" img-build-same $(builders same)
fi
if wants cold; then
    once() {
        case $1 in
        img-build-*) measure "$1" img-build -q --progress quiet --no-cache "$work/stages" ;;
        buildkit-*) measure "$1" "$work/buildkit" "$work/stages" cold "" "&nocache=1" ;;
        docker-classic-*) measure "$1" env DOCKER_BUILDKIT=0 docker build -q --no-cache -t cold "$work/stages" ;;
        buildah-*) measure "$1" "${buildah_[@]}" build -q --layers --no-cache --jobs 2 --isolation oci --tls-verify=false -t cold "$work/stages" ;;
        esac
    }
    # shellcheck disable=SC2046
    rounds_of $(builders cold)
    # shellcheck disable=SC2046
    table "everything anew, three stages" img-build-cold $(builders cold)
fi
