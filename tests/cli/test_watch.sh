#!/usr/bin/env bash
# test_watch.sh BINARY - the page of a run on 127.0.0.1: while it goes on, after it ended, to good clients and bad.
. "$(dirname "$0")/common.sh"
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT

# start: a server on any free port, which is in $port then
start() {
    "$moetune" watch --run run --json >port.txt 2>watch.err &
    server=$!
    for _ in $(seq 100); do
        [ -s port.txt ] && break
        sleep 0.05
    done
    port=$(sed -n 's/.*"port":\([0-9]*\).*/\1/p' port.txt)
    [ -n "$port" ] || complain "no port: $(cat watch.err)"
}

# stop STATUS SIGNAL
stop() {
    kill -"$2" "$server"
    wait "$server"
    local got=$?
    server=
    [ "$got" = "$1" ] || complain "SIG$2: exit $got, expected $1: $(cat watch.err)"
}

# ask REQUEST: the answer is in answer.txt
ask() {
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return
    printf '%b' "$1" >&3
    timeout 20 cat <&3 >answer.txt
    exec 3>&-
}

says() {
    grep -qF -- "$1" answer.txt || complain "'$1' not in: $(head -c 700 answer.txt)"
}

says_not() {
    grep -qF -- "$1" answer.txt && complain "'$1' in the answer"
}

mkdir run
echo '{"model": "m", "data": ["d.jsonl"]}' >run/run.json
line='"stage":0,"loss":2.5,"lr":1e-05,"grad_norm":1,"tokens":64,"tokens_per_second":9,"seconds":0.5,"skipped":0}'
echo "{\"step\":1,$line" >run/metrics.jsonl
get="GET / HTTP/1.1\r\nHost: 127.0.0.1:"

# --- a run that goes on: somebody holds its lock
exec 9>run/.lock
flock 9 || exit 1
start
ask "$get$port\r\n\r\n"
says "HTTP/1.1 200 OK"
says "Content-Security-Policy: default-src 'none'"
says "Cache-Control: no-store"
says 'data-live="yes"'
says '<script>'
says '>running</span>'
says '<noscript><meta http-equiv="refresh" content="5"></noscript>'
[ "$(sed -n 's/^Content-Length: \([0-9]*\).*/\1/p' answer.txt)" = \
    "$(sed '1,/^\r$/d' answer.txt | wc -c)" ] || complain "Content-Length is not the page's length"

# --- new steps come with the next page
for i in 2 3 4 5 6 7; do echo "{\"step\":$i,$line" >>run/metrics.jsonl; done
sleep 1.2
ask "$get$port\r\n\r\n"
says '<b>7</b><span>steps'

# --- bad clients
ask "GET / HTTP/1.1\r\nHost: evil.example:$port\r\n\r\n"
says "403 Forbidden"
says_not "run.json"
ask "GET /../run.json HTTP/1.1\r\nHost: 127.0.0.1:$port\r\n\r\n"
says "404 Not Found"
ask "POST / HTTP/1.1\r\nHost: 127.0.0.1:$port\r\n\r\n"
says "405 Method Not Allowed"
says "Allow: GET"
ask "\x16\x03\x01\r\n\r\n"
says "400 Bad Request"

# Twenty that connect and say nothing, one that reads nothing: others are served meanwhile.
for i in $(seq 10 29); do
    eval "exec $i<>/dev/tcp/127.0.0.1/$port"
done
printf '%b' "$get$port\r\n\r\n" >&29
begin=$(date +%s%N)
ask "$get$port\r\n\r\n"
says "200 OK"
took=$((($(date +%s%N) - begin) / 1000000))
[ "$took" -lt 3000 ] || complain "served after $took ms beside silent clients"
for i in $(seq 10 29); do
    eval "exec $i>&-"
done

# Only this machine's own name for itself listens.
if command -v ss >/dev/null; then
    ss -ltn | grep ":$port " | grep -vq '127.0.0.1:' && complain "listens elsewhere: $(ss -ltn | grep ":$port ")"
fi

# --- one port, one server; a run that goes on is left with 130
"$moetune" watch --run run --port "$port" >out.txt 2>err.txt && complain "two servers on a port"
grep -q "127.0.0.1:$port: cannot listen" err.txt || complain "$(cat err.txt)"
stop 130 INT

# --- a run that has ended: says so, and asks no more
exec 9>&-
echo '{"outcome": "done", "steps": 7}' >run/result.json
start
ask "$get$port\r\n\r\n"
says "This run has ended: the page is complete and asks for news no more."
says_not "<script>"
says_not 'data-live'
says_not 'http-equiv="refresh"'
# ... and one that is removed under the eyes of its readers
rm -r run
sleep 1.2
ask "$get$port\r\n\r\n"
says "200 OK"
says "holds no run"
mkdir run
echo '{}' >run/run.json
echo '{"outcome": "stopped"}' >run/result.json
stop 0 TERM

"$moetune" watch --run nothing >out.txt 2>err.txt && complain "watches a folder that is not there"
grep -q "nothing: holds no run" err.txt || complain "$(cat err.txt)"

[ "$failures" = 0 ] || exit 1
echo "watch: all as expected"
