#!/usr/bin/env bash
# Three node processes in three network namespaces with links of 20 ms and 100 Mbit/s say the same as one process, greedily,
# word for word, over HTTP; an outage is told by /health and gets over.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=${DILEMMA_NETLAB_BIN:-tools/netlab}
dilemma=${DILEMMA:-build/release/dilemma}
model=${DILEMMA_TEST_MODEL:-}
[ -f "$model" ] || { echo "SKIPPED: no test model (make model)"; exit 77; }
tmp=$(mktemp -d)
echo '{"nodes": ["a", "b", "c"], "default": {"delay_ms": 20, "rate_mbit": 100}}' >"$tmp/lab.json"
export NETLAB=ring-$$
$lab up "$tmp/lab.json" --lab "$NETLAB" >/dev/null || { s=$?; rm -rf "$tmp"; exit $s; }
finish() { $lab down >/dev/null 2>&1 || true; wait; rm -rf "$tmp"; }
trap finish EXIT

$dilemma keys cluster "$tmp/keys" a b c >/dev/null
i=0
for n in a b c; do
  i=$((i + 1))
  mkfifo "$tmp/$n.out"
  $lab exec $n -- "$dilemma" node --listen 10.77.0.$i:7100 --memory 300M -t 1 --key "$tmp/keys/$n.key" --allow "$tmp/keys/allowed" \
    --cache "$tmp/cache-$n" >"$tmp/$n.out" 2>"$tmp/$n.log" &
  read -r said <"$tmp/$n.out"
  case $said in *"listening on"*) ;; *) echo "FAILED: node $n: $said"; cat "$tmp/$n.log"; exit 1 ;; esac
done
$lab exec a -- "$dilemma" probe --quiet --keys "$tmp/keys" --node a=10.77.0.1:7100 b=10.77.0.2:7100 c=10.77.0.3:7100 -o "$tmp/cluster.json"

python3 - "$tmp" <<'P'
import json, sys
tmp = sys.argv[1]
c = json.load(open(tmp + "/cluster.json"))
for l in c["links"]:
    rtt, mbit = l["rtt_sec"] * 1e3, l["bytes_per_sec"] * 8e-6
    print("link %s -> %s: round trip %.1f ms, %.0f Mbit/s" % (l["from"], l["to"], rtt, mbit))
    assert 40 <= rtt < 60, rtt
cuts = [("a", 0, 10), ("b", 11, 20), ("c", 21, 31)]
layers = [{"layer": l, "name": "embedding" if l == 0 else "head" if l == 31 else "blk.%d" % (l - 1), "node": n, "level": "as is", "types": {}, "bytes": 0}
          for n, first, last in cuts for l in range(first, last + 1)]
json.dump({"version": 1, "model": {"path": "m", "hash": ""}, "entry": "a", "context": 512, "sequences": 1, "tokens_in": 64, "tokens_out": 24,
           "token_sec": 0.07, "prefill_sec": 0.2, "total_sec": 2.0, "bound_sec": 0, "gap": 1, "solver": "by hand", "solve_sec": 0, "ratio_to_fp32": 0.18,
           "predicted_damage": 0, "damage_measure": "kl", "layers": layers,
           "stages": [{"node": n, "first_layer": f, "last_layer": l, "bytes": 0, "compute_sec": 0, "hop_sec": 0.02} for n, f, l in cuts]},
          open(tmp + "/plan.json", "w"))
P

mkfifo "$tmp/serve.out"
$lab exec a -- "$dilemma" serve --quiet --model "$model" --plan "$tmp/plan.json" --cluster "$tmp/cluster.json" --key "$tmp/keys/coordinator.key" \
  --port 0 >"$tmp/serve.out" 2>"$tmp/serve.log" &
read -r url <"$tmp/serve.out" || { echo "FAILED: serve:"; cat "$tmp/serve.log" "$tmp"/?.log; exit 1; }

cat >"$tmp/ask.py" <<'P'
import json, sys, urllib.request
url, prompt = sys.argv[1], sys.argv[2]
body = {"prompt": prompt, "max_tokens": 24, "temperature": 0}
r = json.load(urllib.request.urlopen(urllib.request.Request(url + "/completions", json.dumps(body).encode()), timeout=120))
text, streamed = r["choices"][0]["text"], ""
for line in urllib.request.urlopen(urllib.request.Request(url + "/completions", json.dumps({**body, "stream": True}).encode()), timeout=120):
    if line.startswith(b"data: {"): streamed += json.loads(line[6:])["choices"][0]["text"]
json.dump({"text": text, "same": text == streamed, "ms": 1e3 * r["timings"]["decode_sec"] / max(1, r["usage"]["completion_tokens"] - 1)}, sys.stdout)
P
fail=0
while IFS= read -r prompt; do
  one=$("$dilemma" run "$model" -p "$prompt" -n 24 --temp 0 -t 1 --json)
  three=$($lab exec a -- python3 "$tmp/ask.py" "$url" "$prompt")
  python3 - "$one" "$three" "$prompt" <<'P' || fail=1
import json, sys
one, three = json.loads(sys.argv[1]), json.loads(sys.argv[2])
same = one["text"] == three["text"] and three["same"]
print("%s  %.1f ms a token: %r -> %r" % ("ok    " if same else "FAILED", three["ms"], sys.argv[3][:40], three["text"][:60]))
if not same: print("one process:", repr(one["text"]), "streamed equal:", three["same"])
sys.exit(not same)
P
done <<'P'
The capital of France is
Once upon a time there was a lighthouse keeper who
The three largest planets are
def fibonacci(n):
P

# b's cable is pulled while a text is being written: /health tells it, the client gets the whole text after a pause, from the others.
health() { $lab exec a -- python3 - "$url" "$1" "$2" <<'P'
import json, sys, time, urllib.error, urllib.request
url, want, end = sys.argv[1][:-3] + "/health", int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
while True:
    try: r = urllib.request.urlopen(url, timeout=10); status, text = r.status, r.read().decode()
    except urllib.error.HTTPError as e: status, text = e.code, e.read().decode()
    if status == want or time.monotonic() > end: break
    time.sleep(0.2)
print("%s  /health %d: %s" % ("ok    " if status == want else "FAILED", status, " ".join(text.split())[:300]))
sys.exit(status != want)
P
}
before=$($lab exec a -- python3 "$tmp/ask.py" "$url" "The capital of France is")
cat >"$tmp/long.py" <<'P'
import json, sys, urllib.error, urllib.request
body = {"prompt": "Once upon a time", "max_tokens": 200, "temperature": 0, "stream": True}
n, end, error = 0, None, None
try:
    for line in urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/completions", json.dumps(body).encode()), timeout=120):
        if not line.startswith(b"data: {"): continue
        e = json.loads(line[6:])
        if "error" in e: error = e["error"]["message"]; continue
        n += 1
        end = e["choices"][0]["finish_reason"] or end
except OSError as e: error = str(e)
print("%s  the stream over the outage: %d pieces, finish_reason %s, error %s" % ("ok    " if end and not error else "FAILED", n, end, error))
sys.exit(not end or bool(error))
P
$lab exec a -- python3 "$tmp/long.py" "$url" >"$tmp/long.out" &
long=$!
sleep 1.5
for l in "a b" "b a" "b c" "c b"; do $lab set $l down >/dev/null; done
health 503 10 || fail=1
for l in "a b" "b a" "b c" "c b"; do $lab set $l up >/dev/null; done
health 200 60 || fail=1
wait $long || fail=1
cat "$tmp/long.out"
after=$($lab exec a -- python3 "$tmp/ask.py" "$url" "The capital of France is")
python3 - "$before" "$after" <<'P' || fail=1
import json, sys
a, b = (json.loads(x) for x in sys.argv[1:])
print("ok      the same after the outage" if a["text"] == b["text"] else "FAILED  after the outage: %r, not %r" % (b["text"], a["text"]))
sys.exit(a["text"] != b["text"])
P
exit $fail
