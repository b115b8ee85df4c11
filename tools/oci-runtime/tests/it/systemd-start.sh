# Starts systemd as process 1 of namespaces of its own, with control groups of its own below this process's hierarchies' roots.
# Arguments: a name for the groups, the target to reach, a directory of units.
set -e
name=$1 target=$2 units=$3
roots=$(awk '$2 ~ "^/sys/fs/cgroup(/|$)" && $3 ~ /^cgroup2?$/ {print $2 " " $3}' /proc/self/mounts)
while read -r root _; do
    mkdir "$root/$name"
    # A cpuset of version 1 is of no use before it has something.
    for file in cpuset.cpus cpuset.mems; do
        if [ -e "$root/$name/$file" ] && [ ! -e "$root/cgroup.controllers" ]; then cat "$root/$file" >"$root/$name/$file"; fi
    done
done <<<"$roots"
export name target units roots
exec unshare --pid --fork --mount --uts --ipc --net --propagation private bash -ec '
while read -r root _; do echo 0 >"$root/$name/cgroup.procs"; done <<<"$roots"
exec unshare --cgroup bash -ec "
    mount -t proc proc /proc
    umount -R /sys/fs/cgroup
    if [ \"\$(wc -l <<<\"\$roots\")\" -gt 1 ]; then mount -t tmpfs -o mode=755 none /sys/fs/cgroup; fi
    while read -r root kind; do
        mkdir -p \$root
        case \$root:\$kind in
        *:cgroup2) mount -t cgroup2 none \$root ;;
        */systemd:*) mount -t cgroup -o none,name=systemd none \$root ;;
        *) mount -t cgroup -o \${root##*/} none \$root ;;
        esac
    done <<<\"\$roots\"
    mount -t tmpfs -o mode=755 none /run
    mkdir -p /run/systemd
    cp -r \$units /run/systemd/system
    # They would look for units of this machine.
    for directory in /usr/lib/systemd/*-generators; do mount -t tmpfs none \$directory; done
    exec env -i PATH=\$PATH container=test /lib/systemd/systemd --system --unit=\$target --log-target=console --show-status=no
"'
