# shellcheck shell=bash
# Sourced. need_packages COMMAND=PACKAGE…: installs with apt the packages whose command is missing (a word that begins with `/` is
# looked for as a file; a word without `=` is a package). Says what to do when it cannot.
need_packages() {
    local pair probe package missing=()
    for pair in "$@"; do
        probe=${pair%%=*} package=${pair#*=}
        case $probe in
        /*) compgen -G "$probe" >/dev/null || missing+=("$package") ;;
        *)
            # Not every user has the administrator's programs in PATH.
            PATH=$PATH:/usr/sbin:/sbin command -v "$probe" >/dev/null || missing+=("$package")
            ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]}"
        echo "hint: install these packages (on Debian: sudo apt-get install ${missing[*]}) and try again"
        return 1
    fi
    echo "installing: ${missing[*]}"
    install_packages "${missing[@]}" || { apt-get -qq update && install_packages "${missing[@]}"; }
}

# Daemons these packages bring are used by tests on their own terms and must not start by themselves.
install_packages() {
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        made=yes
    fi
    local status=0
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null || status=$?
    [ -z "$made" ] || rm -f $policy
    return $status
}
