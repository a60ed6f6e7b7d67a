#!/usr/bin/env bash
# netlab keeps what it promises on each directed link (delay, rate, loss, outage), changes while it runs, leaves nothing behind.
# Tolerances allow for a busy machine; the figures are printed.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=${DILEMMA_NETLAB_BIN:-tools/netlab}
peer="python3 tests/netlab_peer.py"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/lab.json" <<'J'
{"nodes": ["a", "b", "c"],
 "links": [{"from": "a", "to": "b", "delay_ms": 20, "rate_mbit": 100}, {"from": "b", "to": "a", "delay_ms": 5},
           {"from": "a", "to": "c", "loss": 0.1}]}
J
name=nltest-$$
started=$($lab up "$tmp/lab.json" --lab "$name") || { s=$?; [ $s = 77 ] && echo "SKIPPED: network namespaces are not possible here"; exit $s; }
[ "$started" = "$name" ]
export NETLAB=$name
trap '$lab down >/dev/null 2>&1 || true; rm -rf "$tmp"' EXIT
fail=0
check() { # what JSON-line python-condition over d
  echo "$1: $2"
  python3 -c "import json,sys; d=json.loads(sys.argv[1]); sys.exit(0 if ($3) else 1)" "$2" || { echo "FAILED: $1: wanted $3" >&2; fail=1; }
}
measure() { # node-of-sink command...: the sink's line
  local node=$1; shift
  rm -f "$tmp/sink"; mkfifo "$tmp/ready"
  { $lab exec "$node" -- $peer sink 9000 30 | tee "$tmp/ready" >"$tmp/sink"; } &
  local pid=$!
  read -r _ <"$tmp/ready"
  "$@"
  wait $pid
  rm "$tmp/ready"
  tail -n 1 "$tmp/sink"
}
udp() { $lab exec "$1" -- $peer udp "$2" 9000 "$3" 2 "${4:-100}"; }

# Upper bounds of delay and lower ones of rate leave room for a busy machine; a wrong unit or a link mixed up is far outside.
check "delay a->b 20 ms" "$(measure b udp a 10.77.0.2 250)" 'd["n"] == 250 and 20.0 <= d["min_ms"] and d["median_ms"] < 30'
check "delay b->a 5 ms" "$(measure a udp b 10.77.0.1 250)" 'd["n"] == 250 and 5.0 <= d["min_ms"] and d["median_ms"] < 15'
check "delay b->c none" "$(measure c udp b 10.77.0.3 250)" 'd["n"] == 250 and d["median_ms"] < 10'
check "rate a->b 100 Mbit/s" "$(measure b $lab exec a -- $peer tcp 10.77.0.2 9000 2.0)" '50 <= d["mbit"] <= 101'
check "loss a->c 10 %" "$(measure c udp a 10.77.0.3 1000)" '800 <= d["n"] <= 950'
$lab set a b delay=1ms rate=20mbit
check "changed to 1 ms" "$(measure b udp a 10.77.0.2 250)" 'd["n"] == 250 and 1.0 <= d["min_ms"] and d["median_ms"] < 13'
check "changed to 20 Mbit/s" "$(measure b $lab exec a -- $peer tcp 10.77.0.2 9000 1.5)" '10 <= d["mbit"] <= 20.5'
$lab set a b rate=1gbit
check "changed to 1 Gbit/s" "$(measure b $lab exec a -- $peer tcp 10.77.0.2 9000 1.5)" '100 <= d["mbit"] <= 1010'
$lab set c b down
check "outage c->b" "$(timeout 20 $lab exec b -- $peer sink 9000 1.2 >"$tmp/out" & sleep 0.5; udp c 10.77.0.2 20; wait; tail -n 1 "$tmp/out")" 'd["n"] == 0'
$lab set c b up
check "outage over" "$(measure b udp c 10.77.0.2 50)" 'd["n"] == 50'

! $lab set a b delay=banana 2>"$tmp/err" || { echo "FAILED: a wrong word was taken"; fail=1; }
grep -q banana "$tmp/err"
! $lab up "$tmp/lab.json" --lab "$name" 2>"$tmp/err" || { echo "FAILED: two labs of one name"; fail=1; }
grep -q "runs already" "$tmp/err"

# What still runs inside ends with the lab, and nothing is left.
$lab exec c -- sleep 1000 &
inside=$!
pid=$($lab show | python3 -c 'import json,sys; print(json.load(sys.stdin)["pid"])')
until [ "$(readlink /proc/$inside/exe)" != "$(readlink /proc/$$/exe)" ]; do :; done
$lab down
wait $inside || true
[ ! -e /run/dilemma-netlab/$name.sock ] || { echo "FAILED: the socket is left"; fail=1; }
for _ in $(seq 100); do [ -d /proc/$pid ] || break; sleep 0.05; done
[ ! -d /proc/$pid ] || { echo "FAILED: the switch is left"; fail=1; }

# A switch that is killed leaves a dead socket at most, and the name is free again.
$lab up "$tmp/lab.json" --lab "$name" >/dev/null
pid=$($lab show | python3 -c 'import json,sys; print(json.load(sys.stdin)["pid"])')
kill -9 "$pid"
for _ in $(seq 100); do [ -d /proc/$pid ] || break; sleep 0.05; done
! $lab show 2>/dev/null || fail=1
$lab run "$tmp/lab.json" --lab "$name" -- bash -c "$lab exec a -- true; exit 7" && fail=1 || [ $? = 7 ] || { echo "FAILED: run's exit status"; fail=1; }
[ ! -e /run/dilemma-netlab/$name.sock ] || { echo "FAILED: the socket is left"; fail=1; }
[ $fail = 0 ] && echo "netlab: ok"
exit $fail
