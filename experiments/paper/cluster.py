"""Writes cluster.json: four unlike servers, played by this machine. usage: cluster.py FILE [TIMES], TIMES as much memory"""
import json
import sys

SERVERS = [("server0", 80e6, 1.0), ("server1", 70e6, 1.8), ("server2", 60e6, 1.3), ("server3", 90e6, 2.2)]
times = float(sys.argv[2]) if len(sys.argv) > 2 else 1
names = [n for n, _, _ in SERVERS]
doc = {"version": 1, "entry": names[0],
       "nodes": [{"name": n, "address": "127.0.0.1:1", "memory_bytes": int(m * times), "throttle": t, "threads": 1} for n, m, t in SERVERS],
       "links": [{"from": a, "to": b, "latency_sec": 2e-3, "bytes_per_sec": 1.25e7} for a in names for b in names if a != b]}
with open(sys.argv[1], "w") as f:
    json.dump(doc, f, indent=1)
