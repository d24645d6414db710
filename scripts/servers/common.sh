# Sourced by the start scripts. Each is `start-NAME PORT [DIRECTORY] …`, prints one line `ready …`, binds to loopback,
# keeps all its files in the directory and its process id in DIRECTORY/pid. Port 0 takes a free one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# needs COMMAND PACKAGE: a server that is missing is said so by name, not by the shell's "not found".
needs() {
    command -v "$1" >/dev/null 2>&1 || fail "$1 is missing; install the package $2"
}

# python_package MODULE PACKAGE: the same for a server that comes from PyPI.
python_package() {
    "${PYTHON:-python3}" -c "import $1" 2>/dev/null || fail "the Python module $1 is missing; pip install $2 (PYTHON names another interpreter)"
}

listening() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# port_and_directory NAME ARGUMENTS…: sets port and directory.
port_and_directory() {
    [ $# -ge 2 ] || fail "usage: $(basename "$0") PORT [DIRECTORY]"
    port=$2
    while [ "$port" = 0 ] || { [ "$2" = 0 ] && listening "$port"; }; do port=$((RANDOM % 10000 + 20000)); done
    directory=${3:-$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")}
    mkdir -p "$directory"
    directory=$(cd "$directory" && pwd)
}

# wait_until SECONDS LOG CHECK…: until the check succeeds; fails with the end of the log when the time is over or the process gone.
wait_until() {
    local rounds=$(($1 * 20)) log=$2
    shift 2
    for ((round = 0; round < rounds; round++)); do
        "$@" >/dev/null 2>&1 && return
        if [ -n "${process:-}" ] && ! kill -0 "$process" 2>/dev/null; then break; fi
        sleep 0.05
    done
    echo "$(basename "$0"): not ready; the end of $log:" >&2
    tail -n 20 "$log" >&2 || true
    if [ -n "${process:-}" ]; then kill "$process" 2>/dev/null || true; fi
    exit 1
}
