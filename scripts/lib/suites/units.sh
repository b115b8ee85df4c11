# shellcheck shell=bash
# Sourced by scripts/suites and scripts/lib/suites/unit. For each suite: units_SUITE lists its units (a file, a program, a group), one a
# line; cases_SUITE UNIT STATUS turns a unit's output into lines `case<tab>ok|not ok|skipped`; run_SUITE UNIT RUNTIME runs one. `$cache` is
# the caller's.
cache=${cache-}

# In seconds; a guest without the processor's help is slow.
timeout_of() {
    case $1${VM_RUN+ guest} in
    runc*guest) echo 900 ;;
    contest\ guest) echo 150 ;;
    *guest) echo 300 ;;
    runc*) echo 300 ;;
    crun) echo 180 ;;
    *) echo 90 ;;
    esac
}

# The runc of the sources knows what today's tests ask for; elsewhere the one that is installed is what people have.
peer_of() {
    case $1 in
    runc) echo "$cache/runc/runc" ;;
    *) command -v runc ;;
    esac
}

# cases_tap UNIT STATUS: of TAP. A unit that was ended, or ended in any way but 0 with all its cases well, failed itself as well.
cases_tap() {
    awk -v unit="$1" -v status="$2" '
        function tell(verdict) { sub(/ *#.*$/, ""); gsub(/\t/, " "); print unit ": " $0 "\t" verdict; said++ }
        /^1\.\.[0-9]+/ { plan = substr($1, 4) + 0 }
        /^not ok/ { sub(/^not ok *[0-9]* *(- )?/, ""); bad++; tell("not ok"); next }
        /^ok/ { verdict = /# *(skip|SKIP)/ ? "skipped" : "ok"; sub(/^ok *[0-9]* *(- )?/, ""); tell(verdict) }
        END {
            if (status == 124 || status == 137) print unit ": * ends in time\tnot ok"
            else if (said < plan) print unit ": * runs all its " plan " cases\tnot ok"
            else if (status != 0 && !bad) print unit ": * ends well\tnot ok"
        }'
}

units_bats() {
    (cd "$cache/$1/tests/integration" && printf '%s\n' *.bats)
}
run_bats() {
    cd "$cache/$1/tests/integration" || exit
    export RUNC=$3 BATS_TMPDIR=$ROOM_TMP TMPDIR=$ROOM_TMP
    # Many of its containers have a terminal and are run as if by hand, so there must be one to open.
    "${BASH_SOURCE[0]%/*}/at-terminal" bats --tap "$2"
}
units_runc() { units_bats runc; }
units_runc-1.1() { units_bats runc-1.1; }
cases_runc() { cases_tap "$@"; }
cases_runc-1.1() { cases_tap "$@"; }
run_runc() { run_bats runc "$@"; }
run_runc-1.1() { run_bats runc-1.1 "$@"; }

units_crun() {
    (cd "$cache/crun/tests" && printf '%s\n' test_*.py)
}
cases_crun() { cases_tap "$@"; }
run_crun() {
    export INIT=$cache/crun/tests/init OCI_RUNTIME=$2 TMPDIR=$ROOM_TMP PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
    case ${2##*/} in
    crun*) ;;
    *) export STAVES_CRUN_RUNTIME=$2 OCI_RUNTIME=${BASH_SOURCE[0]%/*}/as-crun ;;
    esac
    # It works in the folder it is in.
    cd "$ROOM_TMP" || exit
    python3 "$cache/crun/tests/$1"
}

units_validation() {
    (cd "$cache/runtime-tools/programs" && printf '%s\n' * | grep -vxE 'util')
}
cases_validation() { cases_tap "$@"; }
run_validation() {
    export RUNTIME=$2 TMPDIR=$ROOM_TMP
    cd "$ROOM_TMP" || exit
    cp "$cache"/runtime-tools/{runtimetest,rootfs-amd64.tar.gz} .
    "$cache/runtime-tools/programs/$1"
}

units_contest() {
    (cd "$cache/youki" && ./contest list 2>/dev/null) | sed 's/^[ -]*//' | awk 'NF { print $1 }'
}
cases_contest() {
    # A group's own name stands in front of its cases; a group may run others.
    sed -nE 's/^([0-9]+) \/ ([0-9]+) : (.+) : (ok|not ok|skipped).*/\3\t\4/p' | awk -v unit="$1" -v status="$2" '
        { print unit ": " $0; said++; bad += /\tnot ok$/ }
        END {
            if (status == 124 || status == 137) print unit ": * ends in time\tnot ok"
            else if (!said || (status != 0 && !bad)) print unit ": * ends well\tnot ok"
        }'
}
run_contest() {
    export TMPDIR=$ROOM_TMP
    cd "$ROOM_TMP" || exit
    cp "$cache/youki/bundle.tar.gz" .
    "$cache/youki/contest" run --runtime "$2" --runtimetest "$cache/youki/runtimetest" -t "$1"
}
