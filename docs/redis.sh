#!/bin/sh
# Produce the output in docs/redis.md: start and stop a Redis master and its replica on one host, and
# trace them. Everything runs in a network namespace of its own. As root:
#
#     docs/redis.sh DIRECTORY          # writes a file for each command there
#
# SSTRACE is the sstrace to run, by default ./sstrace. redis-server may be redis-check-rdb, which is the
# same program (Debian's redis-tools).
set -eu
if [ "${REDIS_SH_INSIDE:-}" = "" ]; then
	exec unshare --net env REDIS_SH_INSIDE=1 "$0" "$@"
fi
out=${1:?usage: docs/redis.sh DIRECTORY}
sstrace=${SSTRACE:-./sstrace}
mkdir -p "$out/run"
ip link set lo up
netns=$(stat -L -c %i /proc/self/ns/net)
server=$out/run/redis-server
ln -sf "$(command -v redis-server || command -v redis-check-rdb)" "$server"

# waits PATTERN FILE: wait until a line of the file matches. There is no timeout; that is up to the caller.
waits() { until grep -q "$1" "$2" 2>/dev/null; do sleep 0.05; done; }

# serve NAME OPTION...: start a server. Its log shows when it is ready; asking it would make connections
# that the trace would show.
serve() {
	name=$1
	shift
	"$server" --bind 127.0.0.1 --save '' --appendonly no --dir "$out/run" --logfile "$out/run/$name.log" "$@" &
}

# ends PID: stop a process and wait until it has exited.
ends() { kill -TERM "$1" && wait "$1" || true; }

"$sstrace" --netns "$netns" -p 6379,6389 -o ndjson -w "$out/trace.ndjson" 2>"$out/run/sstrace.log" &
trace=$!
waits 'tracing, to' "$out/run/sstrace.log"

serve master --port 6379
master=$!
waits 'Ready to accept connections' "$out/run/master.log"
serve replica --port 6389 --replicaof 127.0.0.1 6379
replica=$!
waits 'MASTER <-> REPLICA sync: Finished with success' "$out/run/replica.log"
"$sstrace" ls --netns "$netns" -p 6379,6389 >"$out/ls.txt"
ends "$replica"
# The connection is over when both of its ends are; the trace shows it.
waits '"new":"TIME_WAIT"' "$out/trace.ndjson"
waits '"old":"LAST_ACK","new":"CLOSE"' "$out/trace.ndjson"
"$sstrace" ls --netns "$netns" -p 6379,6389 >"$out/ls-after.txt"
ends "$master"
ends "$trace"

# All of these are from the recording, so that their times agree.
"$sstrace" -r "$out/trace.ndjson" >"$out/trace.txt" 2>/dev/null
"$sstrace" conns --timeline -r "$out/trace.ndjson" >"$out/timeline.txt" 2>/dev/null
"$sstrace" conns -r "$out/trace.ndjson" >"$out/conns.txt" 2>/dev/null
"$sstrace" handshakes -r "$out/trace.ndjson" >"$out/handshakes.txt" 2>/dev/null
"$sstrace" diagram -o text -r "$out/trace.ndjson" >"$out/diagram.txt" 2>/dev/null
"$sstrace" diagram -r "$out/trace.ndjson" >"$out/diagram.svg" 2>/dev/null
