#!/usr/bin/env python3
"""One end of a measurement over a lab's link; prints one JSON line. Clocks are shared (one machine), so delay is one way.

  sink PORT SECONDS            receives datagrams and one TCP stream at once, says what came
  udp ADDR PORT N GAP_MS SIZE  sends N datagrams that carry their time
  tcp ADDR PORT SECONDS        sends as fast as it goes
  echo PORT / rtt ADDR PORT N  request and answer over TCP
"""
import json, select, socket, struct, sys, time

def now():
    return time.clock_gettime(time.CLOCK_MONOTONIC)

def say(**kv):
    print(json.dumps(kv), flush=True)

def sink(port, seconds):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", port))
    u.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("", port)); l.listen(1)
    print("ready", flush=True)
    delays, got, first, last, socks, streams, idle = [], 0, None, None, [u, l], [], None
    end = now() + seconds
    while now() < end and not (idle and now() > idle):
        for s in select.select(socks, [], [], 0.1)[0]:
            if s is u:
                d = u.recv(65536); delays.append(now() - struct.unpack("d", d[:8])[0]); idle = now() + 0.5
            elif s is l:
                c = l.accept()[0]; socks.append(c)
            else:
                d = s.recv(1 << 20)
                if not d:
                    socks.remove(s); idle = now() + 0.3; continue
                t = now()
                if first is None: first = t
                else: got += len(d)
                last = t
    delays.sort()
    n = len(delays)
    say(n=n, min_ms=delays[0] * 1e3 if n else None, median_ms=delays[n // 2] * 1e3 if n else None,
        p99_ms=delays[min(n - 1, n * 99 // 100)] * 1e3 if n else None,
        mbit=got * 8e-6 / (last - first) if got and last > first else None)

def udp(addr, port, n, gap_ms, size):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    t = now()
    for i in range(n):
        s.sendto(struct.pack("d", now()) + bytes(size - 8), (addr, port))
        t += gap_ms / 1e3
        time.sleep(max(0, t - now()))

def tcp(addr, port, seconds):
    s = socket.create_connection((addr, port), timeout=10)
    end, b = now() + seconds, bytes(1 << 18)
    while now() < end:
        s.sendall(b)
    s.close()

def echo(port):
    l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("", port)); l.listen(1)
    print("ready", flush=True)
    c = l.accept()[0]; c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        d = c.recv(65536)
        if not d: return
        c.sendall(d)

def rtt(addr, port, n):
    s = socket.create_connection((addr, port), timeout=10); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    all = []
    for i in range(n):
        t = now(); s.sendall(b"x" * 64); s.recv(65536); all.append(now() - t)
    all.sort()
    say(median_ms=all[n // 2] * 1e3, p99_ms=all[n * 99 // 100] * 1e3, min_ms=all[0] * 1e3)

what, args = sys.argv[1], [a if "." in a and a.count(".") == 3 else float(a) if "." in a else int(a) for a in sys.argv[2:]]
{"sink": sink, "udp": udp, "tcp": tcp, "echo": echo, "rtt": rtt}[what](*args)
