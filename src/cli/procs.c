/* fork and exec of our own binary. The child dies with us (PR_SET_PDEATHSIG) and sits in a process group of its own, so that
 * Ctrl-C reaches us alone and we take it down in order. */
#define _GNU_SOURCE
#include "cli/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void be_child(const char *log_path, const char *const *argv, dil__lab *lab, uint32_t node, pid_t parent, int out)
{
    dil_err err;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    setpgid(0, 0);
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (log >= 0) dup2(log, STDERR_FILENO);
    if (in >= 0) dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    if (lab && dil__lab_enter(lab, node, &err) != DIL_OK) {
        fprintf(stderr, "%s\n", err.text);
        _exit(1);
    }
    const char *args[64] = {"dilemma"};
    for (size_t i = 0; argv[i] && i < 62; i++) args[i + 1] = argv[i];
    execv("/proc/self/exe", (char *const *)(uintptr_t)args);
    fprintf(stderr, "starting %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static void tail_of_log(const char *path, char *out, size_t cap)
{
    dil_buf b;
    dil_buf_init(&b, 1u << 20);
    out[0] = 0;
    if (dil_file_read(path, &b, NULL) == DIL_OK && b.len > 0) {
        while (b.len > 0 && b.data[b.len - 1] == '\n') b.len--;
        const char *text = dil_buf_str(&b), *line = strrchr(text, '\n');
        snprintf(out, cap, "%s", line ? line + 1 : text);
    }
    dil_buf_fini(&b);
}

/* Reads the first line, "listening on HOST:PORT ...". */
static dil_status await_address(dil_cli_proc *p, int fd, double timeout_sec, dil_err *err)
{
    char line[256];
    size_t n = 0;
    int64_t end = dil_now_ns() + (int64_t)(timeout_sec * 1e9);
    while (n < sizeof line - 1) {
        int64_t left = (end - dil_now_ns()) / 1000000;
        struct pollfd pf = {.fd = fd, .events = POLLIN};
        if (left <= 0) return dil_fail(err, DIL_ETIMEOUT, "node %s did not listen within %.0f s; see %s", p->name, timeout_sec, p->log_path);
        int ready = poll(&pf, 1, (int)left);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) continue;
        ssize_t got = read(fd, line + n, 1);
        if (got == 0) {
            char why[256];
            tail_of_log(p->log_path, why, sizeof why);
            return dil_fail(err, DIL_ENET, "node %s did not start: %s", p->name, why[0] ? why : p->log_path);
        }
        if (got < 0 || line[n] == '\n') break;
        n++;
    }
    line[n] = 0;
    const char *at = strstr(line, "listening on ");
    if (!at) return dil_fail(err, DIL_ENET, "node %s said '%.100s' instead of where it listens", p->name, line);
    snprintf(p->address, sizeof p->address, "%.*s", (int)strcspn(at + 13, " "), at + 13);
    return DIL_OK;
}

dil_status dil_cli_proc_start(dil_cli_proc *p, const char *name, const char *log_path, const char *const *argv, dil__lab *lab,
                              uint32_t node, double timeout_sec, dil_err *err)
{
    *p = (dil_cli_proc){0};
    snprintf(p->name, sizeof p->name, "%s", name);
    snprintf(p->log_path, sizeof p->log_path, "%s", log_path);
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0) return dil_fail_errno(err, "node %s: pipe", name);
    pid_t self = getpid();
    p->pid = fork();
    if (p->pid == 0) be_child(log_path, argv, lab, node, self, out[1]);
    close(out[1]);
    dil_status s = p->pid < 0 ? dil_fail_errno(err, "node %s: fork", name) : await_address(p, out[0], timeout_sec, err);
    close(out[0]);
    if (s != DIL_OK) dil_cli_proc_stop(p);
    return s;
}

bool dil_cli_proc_runs(dil_cli_proc *p)
{
    if (p->pid <= 0) return false;
    if (waitpid(p->pid, NULL, WNOHANG) == 0) return true;
    p->pid = 0;
    return false;
}

void dil_cli_proc_stop(dil_cli_proc *p)
{
    if (p->pid <= 0) return;
    kill(p->pid, SIGTERM);
    for (int i = 0; i < 300 && dil_cli_proc_runs(p); i++) dil_sleep_ns(10000000);
    if (p->pid <= 0) return;
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) {}
    p->pid = 0;
}
