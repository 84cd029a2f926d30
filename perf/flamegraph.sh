#!/usr/bin/env bash
# Flamegraph: where the server's CPU time goes under one workload of loadtest, as perf/out/WORKLOAD.svg.
#
#   build ─▶ fanfare serve, on a free port ◀─ loadtest --workload …
#                   │
#                   └─ perf record ─▶ perf script ─▶ frames.awk ─▶ inferno ─▶ SVG
#
# It profiles the release build, the one that is measured and shipped: its line tables and unwind tables are enough.
# Frame pointers would need another build, and libc, through which every system call goes, has none.
set -euo pipefail

usage() {
    cat << 'END'
Usage: perf/flamegraph.sh [OPTIONS] [WORKLOAD] [-- LOADTEST FLAGS...]

Profiles `fanfare serve` under a workload of loadtest (default: ticker) and writes perf/out/WORKLOAD.svg.

  --seconds N   how long to record, at most; it ends with the load, too (default: 10). Each second of a busy core
                takes 16 MB in the temporary folder. What comes late needs more: storm drops its clients after 15 s
  --from-start  record from the first connection on, and not from the first message (connect, which has no messages,
                is recorded so anyway)
  -h, --help    this text

Further flags go to loadtest:   perf/flamegraph.sh scores -- --connections 10000 --duration 20s
Options of the server are taken from FANFARE_... variables:   FANFARE_WORKERS=1 perf/flamegraph.sh

Exit code: 0 the SVG is written; 1 a step failed, and one line says which; 2 wrong usage, or a program is missing.
END
}

# How long the server may take until it listens.
ready_seconds_max=10
# How long loadtest may take to connect and to hear test messages.
published_seconds_max=120
# Samples per second and thread: not a divisor of what timers use, so that no periodic work hides between samples.
samples_per_second=499
# Of each sample's stack; one that is deeper loses its callers. While 9,000 clients connect, those are 8 of 10 samples
# with the 8 KB that perf takes by default, 1 of 10 with 16 KB, and none with 32 KB.
stack_bytes=32768

say() { printf 'flamegraph: %s\n' "$*" >&2; }
fail() { say "$1"; exit "${2:-1}"; }

workload=ticker
seconds=10
from=published
load_flags=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --seconds) seconds=${2-}; shift ;;
        --from-start) from=start ;;
        --) shift; load_flags=("$@"); break ;;
        -*) fail "'$1' is no option; see perf/flamegraph.sh --help (flags of loadtest go behind --)" 2 ;;
        *) workload=$1 ;;
    esac
    shift || fail '--seconds needs a number' 2
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "--seconds needs a whole number above zero, not '$seconds'" 2
[[ $workload =~ ^[a-z0-9_-]+$ ]] || fail "'$workload' is no name of a workload; see loadtest --help" 2
[ "$workload" != connect ] || from=start

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
out=perf/out
work=

# Ends what this script has started, and nothing else.
stop() {
    for pid in $(jobs -pr); do kill "$pid" 2> /dev/null || true; done
    wait
}
# shellcheck source=perf/started.sh
. perf/started.sh

# Programs, before anything takes long.
perf --version > /dev/null 2>&1 || fail 'perf is missing; install it, on Debian: apt-get install linux-perf' 2
PATH=$PATH:$(realpath -m "$target")/flamegraph/bin
if ! command -v inferno-flamegraph > /dev/null || ! command -v inferno-collapse-perf > /dev/null; then
    say "installing inferno, which draws the graph, into $target/flamegraph; once, some minutes"
    cargo install --quiet --locked inferno --version '^0.12' --root "$target/flamegraph" \
        || fail "inferno could not be installed; 'cargo install --locked inferno' tells why" 2
fi

say 'building the server and loadtest (release)'
cargo build --quiet --release --package fanfare --bin fanfare || fail 'the server does not build'
cargo build --quiet --release --package loadtest || fail 'loadtest does not build'

mkdir -p "$out"
work=$(mktemp -d)

"$target/release/fanfare" serve --listen 127.0.0.1:0 > "$work/server.out" 2> "$work/server.err" &
server=$!
wait_for "$work/server.out" 'listens on' "$server" "$ready_seconds_max" \
    || fail "the server does not listen: $(last_line "$work/server.err")"
url=$(grep -o 'http://[0-9.]*:[0-9]*' "$work/server.out" | head -n 1)

say "load on $url: --workload $workload ${load_flags[*]-}"
"$target/release/loadtest" "$url" --workload "$workload" "${load_flags[@]}" > "$work/load.out" 2> "$work/load.err" &
load=$!
if [ $from = published ]; then
    wait_for "$work/load.out" ' published ' "$load" "$published_seconds_max" \
        || fail "loadtest has published nothing: $(last_line "$work/load.out" "$work/load.err")"
fi

say "recording, $seconds seconds at most"
perf record --quiet --freq "$samples_per_second" --call-graph "dwarf,$stack_bytes" --pid "$server" \
    --output "$work/perf.data" -- sleep "$seconds" 2> "$work/record.err" &
record=$!
while running "$record" && running "$load"; do sleep 0.1; done
running "$load" || wait "$load" || say "loadtest: $(last_line "$work/load.out" "$work/load.err")"
stop

paranoid=$(cat /proc/sys/kernel/perf_event_paranoid)
[ -s "$work/perf.data" ] || fail "perf recorded nothing: $(last_line "$work/record.err") \
(kernel.perf_event_paranoid is $paranoid; with 2 or less everybody may profile own programs)"
user_only=
if perf evlist --input "$work/perf.data" 2> /dev/null | grep -v dummy | grep -q ':.*u'; then
    user_only=', user part only'
    say 'kernel.perf_event_paranoid lets only the user part be profiled: run as root, or set it to 1, for the rest'
fi

mapfile -t sources < <(find src -name '*.rs')
perf script --input "$work/perf.data" -F comm,tid,time,event,ip,sym,dso,srcline 2> "$work/script.err" \
    | awk -f perf/frames.awk "${sources[@]}" - \
    | inferno-collapse-perf > "$work/folded" \
    || fail "the profile cannot be read: $(last_line "$work/script.err")"
[ -s "$work/folded" ] || fail 'no sample was taken: the server had nothing to do; give it more load'
inferno-flamegraph --title "fanfare serve, workload $workload$user_only" \
    --subtitle "$(git describe --always --dirty 2> /dev/null || echo 'no commit') ${load_flags[*]-}" \
    --colors rust --deterministic < "$work/folded" > "$work/graph.svg" || fail 'inferno could not draw the graph'
mv "$work/graph.svg" "$out/$workload.svg"
say "$(awk '{ n += $NF } END { print n }' "$work/folded") samples: $out/$workload.svg"
