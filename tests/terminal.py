"""The program on a pseudo-terminal."""
import fcntl, os, pty, re, select, struct, termios, time

from serving import DILEMMA


class Terminal:
    """say() types; until() reads on to a pattern; screen() reads on until a whole screen satisfies what is asked of it."""
    def __init__(self, env, *args, rows=24, columns=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0: os.execve(DILEMMA, [DILEMMA, *args], {**env, "TERM": "xterm"})
        self.text, self.bytes = "", ""
        self.resize(rows, columns)

    def resize(self, rows, columns): fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def say(self, text): os.write(self.fd, text.encode())

    def more(self):
        """False: the program has ended."""
        if not select.select([self.fd], [], [], 0.2)[0]: return True
        try: data = os.read(self.fd, 65536)
        except OSError: data = b""
        self.text += data.decode(errors="replace")
        self.bytes += data.decode(errors="replace")
        return bool(data)

    def until(self, pattern, sec=90):
        end = time.time() + sec
        while time.time() < end:
            m = re.search(pattern, self.text)
            if m:
                before, self.text = self.text[:m.start()], self.text[m.end():]
                return before
            if not self.more(): break
        raise AssertionError(f"no {pattern!r} in {self.text!r}")

    def screen(self, good, sec=30):
        """Lines of the last whole screen, of a program that begins each at the corner; [] when none was good in time."""
        end, lines = time.time() + sec, []
        while time.time() < end:
            parts = self.text.split("\x1b[H")
            for part in parts[1:-1]:
                lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part).split("\r\n")
                if good(lines):
                    self.text = self.text[self.text.index(part):]
                    return lines
            self.text = "\x1b[H".join(parts[-2:]) if len(parts) > 2 else self.text
            if not self.more(): break
        print("\n".join(lines))
        return []

    def end(self):
        while self.more(): pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
