#!/usr/bin/env python3
"""Nodes are found by multicast DNS over a bridge between network namespaces, paired on the way, found again where they moved to, and not found
when they do not announce themselves or have said goodbye. Needs root: namespaces, veth pairs and a bridge are made and dropped here."""
import json, os, re, shutil, signal, socket, struct, subprocess, sys, tempfile
from pathlib import Path
sys.path.insert(0, os.path.dirname(__file__))
from serving import DILEMMA, check, done, skip

if os.geteuid() != 0: skip("needs root for network namespaces")
if not shutil.which("ip"): skip("no ip command (iproute2)")
tag = f"dd{os.getpid()}"
spaces = {w: f"{tag}-{w}" for w in ("net", "boss", "a", "b")}
tmp = Path(tempfile.mkdtemp(prefix="dilemma-discover-"))
running = []


def ip(*words): subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
def home(who): return {**{k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "DILEMMA_"))}, "HOME": str(tmp / who), "NO_COLOR": "1"}
def inside(who, *args): return ["ip", "netns", "exec", spaces[who], *args]


def run(who, *args, text=""):
    return subprocess.run(inside(who, DILEMMA, *args), input=text, capture_output=True, text=True, env=home(who), timeout=120)


def start(who, *args):
    (tmp / who).mkdir(exist_ok=True)
    p = subprocess.Popen(inside(who, DILEMMA, "node", "--name", who, "--memory", "50M", "-t", "1", *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=home(who))
    running.append(p)
    return p


def lines_to(p, pattern):
    said = ""
    while not (m := re.search(pattern, said, re.M)):
        line = p.stdout.readline()
        if not line: raise AssertionError(f"no {pattern!r} in {said!r} {p.stderr.read()!r}")
        said += line
    return m


def connect(who, address):
    """A veth from the namespace to the bridge."""
    ip("link", "add", f"{tag}{who}", "type", "veth", "peer", "name", "eth0", "netns", spaces[who])
    ip("link", "set", f"{tag}{who}", "netns", spaces["net"])
    ip("-n", spaces["net"], "link", "set", f"{tag}{who}", "master", "br0", "up")
    ip("-n", spaces[who], "addr", "add", address + "/24", "dev", "eth0")
    for dev in ("eth0", "lo"): ip("-n", spaces[who], "link", "set", dev, "up")


def raw(*args):
    """A datagram from boss's namespace, and what comes back within half a second."""
    code = ("import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.setsockopt(socket.IPPROTO_IP,socket.IP_MULTICAST_IF,socket.inet_aton('10.9.0.1'))\n"
            "n=int(sys.argv[3])\nfor i in range(n): s.sendto(bytes.fromhex(sys.argv[2]),(sys.argv[1],5353))\ns.settimeout(0.5)\ngot=[]\n"
            "try:\n  while True: got.append(s.recv(9000).hex())\nexcept TimeoutError: pass\nprint(len(got), got[0] if got else '')")
    n, _, first = subprocess.run(inside("boss", sys.executable, "-c", code, *args), capture_output=True, text=True, timeout=60, check=True).stdout.strip().partition(" ")
    return int(n), bytes.fromhex(first)


try:
    try:
        for s in spaces.values(): ip("netns", "add", s)
        ip("-n", spaces["net"], "link", "add", "br0", "type", "bridge")
        ip("-n", spaces["net"], "link", "set", "br0", "up")
        for who, address in (("boss", "10.9.0.1"), ("a", "10.9.0.2"), ("b", "10.9.0.3")): connect(who, address)
    except subprocess.CalledProcessError as e: skip(f"cannot make namespaces with a bridge here: {e.stderr.strip()}")
    (tmp / "boss").mkdir()

    r = run("boss", "pair", "--discover")
    check("nobody is there: said, with what to do", r.returncode == 0 and "found     0" in r.stdout and "--announce" in r.stdout, r)
    a, b = start("a", "--pair", "--announce"), start("b", "--pair")
    code_a, code_b = (lines_to(p, r"^ +(\d{4} \d{4})$").group(1) for p in (a, b))
    lines_to(a, "--discover"), lines_to(b, r"dilemma pair 10\.9\.0\.3:7100")
    r = run("boss", "pair", "--discover", text=code_a + "\n")
    check("the one that announces itself is found, and paired by its code", r.returncode == 0 and "found     1" in r.stdout and "a at 10.9.0.2:7100 (shows a code)" in r.stdout
          and "paired" in r.stdout, r)
    lines_to(a, "listening on")
    r = run("boss", "pair", "--code", code_b, "10.9.0.3:7100")
    check("the other one by its address", r.returncode == 0, r)
    lines_to(b, "listening on")
    r = run("boss", "probe", "--json", "--link-time", "0.1", "--kernel-time", "0")
    check("both are used with their keys over the network", r.returncode == 0 and len(json.loads(r.stdout)["links"]) == 2, r)

    r = run("boss", "pair", "--discover")
    check("found as enrolled; who does not announce itself is said", "a at 10.9.0.2:7100 (enrolled)" in r.stdout and "left out  b" in r.stdout, r)
    (tmp / "other").mkdir(); spaces["other"] = spaces["boss"]
    r = run("other", "pair", "--discover")
    check("to another coordinator it is nobody's", "(not enrolled here)" in r.stdout and "code" not in r.stderr, r)

    question = bytes.fromhex("123400000001000000000000") + b"\x08_dilemma\x04_tcp\x05local\0" + bytes.fromhex("000c0001")
    n, answer = raw("224.0.0.251", question.hex(), "1")
    check("a question from another port is answered there, once, with its id and question", n == 1 and answer[:2] == b"\x12\x34" and answer[12:12 + len(question) - 12] == question[12:], n, answer)
    at = answer.find(b"\0\x0c\0\1", 12 + len(question) - 12)
    check("for ten seconds at most, as a direct answer should be", struct.unpack(">I", answer[at + 4:at + 8])[0] == 10, answer[at:at + 8])
    check("a question to the machine itself, as from far away, is not answered", raw("10.9.0.2", question.hex(), "1")[0] == 0)
    check("rubbish is not answered", raw("224.0.0.251", "ff" * 40, "1")[0] == 0 and raw("224.0.0.251", question[:20].hex(), "1")[0] == 0)
    n, _ = raw("224.0.0.251", question.hex(), "500")
    check("five hundred questions do not get five hundred answers", 0 < n <= 40, n)

    a.send_signal(signal.SIGTERM)
    check("it says goodbye and ends", a.wait(30) == 0)
    ip("-n", spaces["a"], "addr", "del", "10.9.0.2/24", "dev", "eth0")
    ip("-n", spaces["a"], "addr", "add", "10.9.0.77/24", "dev", "eth0")
    a = start("a", "--announce")
    lines_to(a, "listening on")
    r = run("boss", "pair", "--discover")
    check("at another address it is found again by its key, and that is kept", "moved" in r.stdout and "10.9.0.77:7100" in run("boss", "pair").stdout, r)
    (tmp / "no.gguf").write_text("not a model")
    r = run("boss", "up", "--discover", "--no-serve", "--dir", str(tmp / "d"), str(tmp / "no.gguf"))
    check("up looks as well, and goes on to the model", "found     1" in r.stdout and "probe     1 nodes" in r.stdout and r.returncode == 3 and "no.gguf" in r.stderr, r)
    r = run("a", "node", "--announce", "--listen", "127.0.0.1:7300")
    check("an address that nobody reaches is not announced: exit 2", r.returncode == 2 and "0.0.0.0" in r.stderr, r)
    r = run("net", "pair", "--discover")
    check("no network with multicast: told", r.returncode == 11 and "multicast" in r.stderr, r)
finally:
    for p in running:
        if p.poll() is None: p.terminate()
    for p in running: p.wait(30)
    for s in set(spaces.values()): subprocess.run(["ip", "netns", "del", s], capture_output=True)
    shutil.rmtree(tmp)
done()
