# What the scripts here start: how it is waited for, and cleaned up. To be sourced, after `work=`; the script
# defines stop(), which ends what it has started and nothing else.

clean() {
    stop
    [ -z "$work" ] || rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

running() { kill -0 "$1" 2> /dev/null; }

# wait_for FILE TEXT PID SECONDS: until the text is in the file; fails when the process has ended or time is over.
wait_for() {
    for _ in $(seq $(($4 * 10))); do
        if grep -qs -- "$2" "$1"; then return; fi
        running "$3" || break
        sleep 0.1
    done
    grep -qs -- "$2" "$1"
}

last_line() { grep -v '^$' "$@" -h | tail -n 1 || true; }
