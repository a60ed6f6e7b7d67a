#!/usr/bin/env python3
"""Two machines are enrolled by their codes, on a terminal and by a script, and then used with their keys and without a word more;
wrong codes, a code whose time is over, and a node that does not pair."""
import json, os, pty, re, select, shutil, signal, subprocess, sys, tempfile, time
from pathlib import Path
sys.path.insert(0, os.path.dirname(__file__))
from serving import DILEMMA, check, done

tmp = Path(tempfile.mkdtemp(prefix="dilemma-pair-"))
running = []


def home(who): return {**{k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "DILEMMA_"))}, "HOME": str(tmp / who), "NO_COLOR": "1"}


def run(who, *args, text=""): return subprocess.run([DILEMMA, *args], input=text, capture_output=True, text=True, env=home(who), timeout=120)


def node(who, *args, listen="127.0.0.1:0"):
    """A node that shows a code; its process, address and code."""
    (tmp / who).mkdir(exist_ok=True)
    p = subprocess.Popen([DILEMMA, "node", "--pair", "--name", who, "--listen", listen, "--memory", "50M", "-t", "1", *args], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=home(who))
    running.append(p)
    said = ""
    while "dilemma pair" not in said:
        line = p.stdout.readline()
        if not line: raise AssertionError(said + p.stderr.read())
        said += line
    return p, re.search(r"dilemma pair (127\.0\.0\.1:\d+)", said).group(1), re.search(r"^ +(\d{4} \d{4})$", said, re.M).group(1)


try:
    (tmp / "boss").mkdir()
    r = run("boss", "pair")
    check("nobody is enrolled yet, and what to do", r.returncode == 0 and "node --pair" in r.stdout, r)
    r = run("boss", "probe")
    check("probe without nodes says how to get some", r.returncode == 2 and "dilemma pair" in r.stderr, r)

    b, at_b, code_b = node("b")
    wrong = "0000 0000" if code_b != "0000 0000" else "1111 1111"
    pid, fd = pty.fork()
    if pid == 0: os.execve(DILEMMA, [DILEMMA, "pair", at_b], home("boss"))
    text = ""
    def until(what, sec=60):
        global text
        end = time.monotonic() + sec
        while what not in text:
            if time.monotonic() > end: raise AssertionError(f"no {what!r} in {text!r}")
            if select.select([fd], [], [], 0.5)[0]:
                try: text += os.read(fd, 4096).decode()
                except OSError: break
        at = text.find(what)
        before, text = text[:at], text[at + len(what):]
        return before
    until("the code that")
    os.write(fd, (wrong + "\n").encode())
    check("a wrong code is told, and asked again", "not the one" in until("the code that"), text)
    os.write(fd, (code_b + "\n").encode())
    until("next:")
    check("then the right one enrols", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0)
    said = "".join(b.stdout.readline() for _ in range(3))
    check("the node says with whom, how to start it next, and goes on as a node at the same address", "paired with" in said and f"dilemma node --listen {at_b}\n" in said
          and f"\nlistening on {at_b}" in said, said)

    c, at_c, code_c = node("c")
    r = run("boss", "pair", "--code", code_c, "second=" + at_c)
    check("by a script, under a name of ours", r.returncode == 0 and "second" in r.stdout, r)
    for _ in range(3): c.stdout.readline()
    r = run("boss", "pair")
    check("who is enrolled", [l.split()[:2] for l in r.stdout.splitlines()] == [["b", at_b], ["second", at_c]], r.stdout)
    r = run("boss", "probe", "--json", "--link-time", "0.5", "--kernel-time", "0")
    check("probe knows them, with their keys, and they let each other in", r.returncode == 0 and [n["name"] for n in json.loads(r.stdout)["nodes"]] == ["b", "second"]
          and len(json.loads(r.stdout)["links"]) == 2, r)
    (tmp / "other").mkdir()
    run("other", "keys", "new")
    key_b = run("b", "keys", "show").stdout.strip()
    r = run("other", "probe", "--kernel-time", "0", "--node", f"b={at_b},{key_b}")
    check("another machine is not let in", r.returncode == 12, r)
    check("keys and lists are for nobody else", all((tmp / w / ".config/dilemma" / f).stat().st_mode & 0o77 == 0 for w, f in (("b", "key"), ("b", "allowed"), ("boss", "key"))))

    r = run("boss", "pair", "--code", code_b, at_b)
    check("a node that runs already does not pair, and that is told", r.returncode == 11 and "--pair" in r.stderr, r)
    b.terminate(); b.wait(30)
    again = subprocess.Popen([DILEMMA, "node", "--listen", at_b, "--memory", "50M", "-t", "1"], stdout=subprocess.PIPE, text=True, env=home("b"))
    running.append(again)
    check("from then on it starts without --pair", "listening" in again.stdout.readline())

    d, at_d, code_d = node("d")
    for i in range(5):
        r = run("boss", "pair", "--code", f"{(int(code_d.replace(' ', '')) + 1 + i) % 10**8:08d}", at_d)
        if r.returncode != 12: check("a wrong code: exit 12", False, r)
    check("five wrong codes end the pairing: exit 12", d.wait(60) == 12 and "wrong codes" in d.stderr.read())
    e, at_e, code_e = node("e", "--pair-for", "0.2")
    check("a code whose time is over: exit 10", e.wait(60) == 10, e.returncode)
    r = run("boss", "pair", "--code", code_e, at_e)
    check("and nobody is there", r.returncode == 11, r)
    r = run("boss", "pai", at_e)
    check("a mistyped command is guessed", r.returncode == 2 and "did you mean pair" in r.stderr, r)
    r = run("boss", "pair", "--cod", "123", at_e)
    check("and an option", r.returncode == 2 and "did you mean --code" in r.stderr, r)
    r = run("boss", "pair", "--code", "123", at_e)
    check("three digits are no code", r.returncode == 2, r)
    f, at_f, code_f = node("f")
    f.send_signal(signal.SIGINT)
    check("Ctrl-C ends the waiting", f.wait(30) == 0)
finally:
    for p in running:
        if p.poll() is None: p.terminate()
    for p in running: p.wait(30)
    shutil.rmtree(tmp)
done()
