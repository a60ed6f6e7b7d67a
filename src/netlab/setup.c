/* Making a lab and taking it down: namespaces, devices, addresses, the switch's process and its control socket.
 *
 * Namespaces are unnamed and held by descriptors alone, so that a crash of any kind leaves none behind; others reach them as
 * /proc/PID/fd/N of the switch. Rejected: `ip netns add` (bind mounts outlive their maker). */
#define _GNU_SOURCE
#include "netlab/lab.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEVICE "lab0"
#define DEVICE_QUEUE 4096

struct dil__lab {
    pid_t pid;
    int home;                      /* the namespace in which the lab was started */
    uint32_t n_nodes;
    int ns[DIL_LAB_NODES_MAX];
    char name[DIL_LAB_NAME_MAX * 2];
};

bool dil__lab_tun_offload(int tun, bool on)
{
    unsigned flags = on ? TUN_F_CSUM | TUN_F_TSO4 : 0;
    return ioctl(tun, TUNSETOFFLOAD, (unsigned long)flags) == 0;
}

static dil_status bring_up(int sock, const char *device, const char *address, uint32_t mtu, dil_err *err)
{
    struct ifreq r = {0};
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", device);
    if (address) {
        struct sockaddr_in a = {.sin_family = AF_INET};
        inet_pton(AF_INET, address, &a.sin_addr);
        memcpy(&r.ifr_addr, &a, sizeof a);
        if (ioctl(sock, SIOCSIFADDR, &r) != 0) return dil_fail_errno(err, "netlab: address %s", address);
        inet_pton(AF_INET, "255.255.0.0", &a.sin_addr);
        memcpy(&r.ifr_netmask, &a, sizeof a);
        if (ioctl(sock, SIOCSIFNETMASK, &r) != 0) return dil_fail_errno(err, "netlab: netmask of %s", address);
        r.ifr_mtu = (int)mtu;
        if (ioctl(sock, SIOCSIFMTU, &r) != 0) return dil_fail_errno(err, "netlab: mtu %u", mtu);
        r.ifr_qlen = DEVICE_QUEUE;
        if (ioctl(sock, SIOCSIFTXQLEN, &r) != 0) return dil_fail_errno(err, "netlab: queue length");
    }
    if (ioctl(sock, SIOCGIFFLAGS, &r) != 0) return dil_fail_errno(err, "netlab: %s", device);
    r.ifr_flags |= IFF_UP | IFF_RUNNING;
    if (ioctl(sock, SIOCSIFFLAGS, &r) != 0) return dil_fail_errno(err, "netlab: %s up", device);
    return DIL_OK;
}

static void no_ipv6(void)
{
    int fd = open("/proc/sys/net/ipv6/conf/all/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, "1", 1) != 1) dil_log(DIL_LOG_DEBUG, "netlab", "IPv6 stays on: %s", strerror(errno));
    close(fd);
}

/* Called inside the fresh namespace. */
static dil_status furnish(uint32_t node, uint32_t mtu, int *tun, dil_err *err)
{
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return dil_fail_errno(err, "netlab: /dev/net/tun");
    struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    snprintf(r.ifr_name, sizeof r.ifr_name, DEVICE);
    dil_status s = DIL_OK;
    if (ioctl(fd, TUNSETIFF, &r) != 0) s = dil_fail_errno(err, "netlab: making a TUN device");
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s == DIL_OK && sock < 0) s = dil_fail_errno(err, "netlab: socket");
    char address[16];
    no_ipv6();
    if (s == DIL_OK) s = bring_up(sock, DEVICE, dil__lab_address(node, address), mtu, err);
    if (s == DIL_OK) s = bring_up(sock, "lo", NULL, 0, err);
    if (sock >= 0) close(sock);
    if (s == DIL_OK) *tun = fd;
    else close(fd);
    return s;
}

static int open_own_ns(void)
{
    return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static dil_status make_node(uint32_t node, uint32_t mtu, int home, int *ns, int *tun, dil_err *err)
{
    if (unshare(CLONE_NEWNET) != 0) return dil_fail_errno(err, "netlab: a new network namespace (root is needed)");
    dil_status s = furnish(node, mtu, tun, err);
    if (s == DIL_OK && (*ns = open_own_ns()) < 0) {
        s = dil_fail_errno(err, "netlab: /proc/thread-self/ns/net");
        close(*tun);
    }
    if (setns(home, CLONE_NEWNET) != 0) s = dil_fail_errno(err, "netlab: back to the first namespace");
    return s;
}

bool dil__lab_available(dil_err *why)
{
    if (geteuid() != 0) {
        dil_fail(why, DIL_EAUTH, "network namespaces need root");
        return false;
    }
    int home = open_own_ns(), ns = -1, tun = -1;
    if (home < 0) {
        dil_fail_errno(why, "/proc/thread-self/ns/net");
        return false;
    }
    bool good = make_node(0, 1500, home, &ns, &tun, why) == DIL_OK;
    if (good) {
        close(ns);
        close(tun);
    }
    close(home);
    return good;
}

/* --- control socket --------------------------------------------------------------------------------------------------------- */

const char *dil__lab_socket_path(const char *name, char out[108])
{
    snprintf(out, 108, "%s/%.64s.sock", DIL_LAB_DIR, name);
    return out;
}

static int connect_lab(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    dil__lab_socket_path(name, a.sun_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    int e = errno;
    if (e == ECONNREFUSED) unlink(a.sun_path); /* its switch is gone */
    close(fd);
    errno = e;
    return -1;
}

static dil_status listen_control(const char *name, int *out, dil_err *err)
{
    dil_status s = dil_mkdirs(DIL_LAB_DIR, err);
    if (s != DIL_OK) return s;
    if (chmod(DIL_LAB_DIR, 0700) != 0) return dil_fail_errno(err, "%s", DIL_LAB_DIR);
    int other = connect_lab(name);
    if (other >= 0) {
        close(other);
        return dil_fail(err, DIL_EBUSY, "netlab: a lab named %s runs already", name);
    }
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    dil__lab_socket_path(name, a.sun_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 8) != 0) {
        s = dil_fail_errno(err, "netlab: %s", a.sun_path);
        if (fd >= 0) close(fd);
        return s;
    }
    *out = fd;
    return DIL_OK;
}

dil_status dil__lab_command(const char *name, const char *command, dil_buf *out, dil_err *err)
{
    int fd = connect_lab(name);
    if (fd < 0) return dil_fail(err, DIL_ENOTFOUND, "netlab: no lab named %s runs (%s)", name, strerror(errno));
    dil_status s = DIL_OK;
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    const size_t cap = 1u << 20;
    char *answer = malloc(cap);
    ssize_t n = -1;
    if (!answer) s = dil_fail(err, DIL_EMEMORY, "netlab: no memory");
    else if (strlen(command) >= DIL_LAB_COMMAND_MAX) s = dil_fail(err, DIL_ELIMIT, "netlab: command too long");
    else if (send(fd, command, strlen(command), MSG_NOSIGNAL) < 0 || (n = recv(fd, answer, cap - 1, 0)) <= 0)
        s = dil_fail_errno(err, "netlab: lab %s does not answer", name);
    if (s == DIL_OK) {
        answer[n] = 0;
        int code = 0, at = 0;
        if (sscanf(answer, "error %d %n", &code, &at) == 1 && at > 0) s = dil_fail(err, (dil_status)code, "%s", answer + at);
        else if (n >= 3 && out) dil_buf_append(out, answer + 3, (size_t)n - 3);
    }
    free(answer);
    close(fd);
    return s;
}

dil_status dil__lab_only_name(char out[DIL_LAB_NAME_MAX * 2], dil_err *err)
{
    DIR *d = opendir(DIL_LAB_DIR);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        char *dot = strstr(e->d_name, ".sock");
        if (!dot || dot[5] || dot - e->d_name >= DIL_LAB_NAME_MAX * 2) continue;
        *dot = 0;
        int fd = connect_lab(e->d_name);
        if (fd < 0) continue;
        close(fd);
        n++;
        snprintf(out, DIL_LAB_NAME_MAX * 2, "%.63s", e->d_name);
    }
    if (d) closedir(d);
    if (n == 1) return DIL_OK;
    return dil_fail(err, DIL_ENOTFOUND, n ? "netlab: %d labs run: name one with --lab" : "netlab: no lab runs", n);
}

/* --- start and stop ----------------------------------------------------------------------------------------------------------- */

static void quiet_stdio(void)
{
    int fd = open("/dev/null", O_RDWR);
    for (int i = 0; fd >= 0 && i < 3; i++) dup2(fd, i);
    if (fd > 2) close(fd);
}

static void be_prompt(void)
{
    struct sched_param p = {.sched_priority = 5}; /* a packet's time is exact to microseconds only if we run when it comes */
    if (sched_setscheduler(0, SCHED_FIFO, &p) != 0) dil_log(DIL_LOG_DEBUG, "netlab", "no real-time priority: %s", strerror(errno));
    prctl(PR_SET_TIMERSLACK, 1ul);
}

/* The child: reports through `ready` ("" when it carries packets, else the reason), then switches until told to end. */
static _Noreturn void switch_process(const dil__lab_spec *spec, const char *name, bool owned, pid_t parent, const int *tun,
                                     const int *ns, int ready)
{
    prctl(PR_SET_NAME, "netlab-switch");
    dil_err err = {0};
    sigset_t quits;
    sigemptyset(&quits);
    sigaddset(&quits, SIGTERM);
    sigaddset(&quits, SIGINT);
    if (owned) { /* the terminal's Ctrl-C is the owner's business */
        sigdelset(&quits, SIGINT);
        signal(SIGINT, SIG_IGN);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) _exit(0);
    } else setsid();
    sigprocmask(SIG_BLOCK, &quits, NULL);
    int signals = signalfd(-1, &quits, SFD_CLOEXEC), control = -1;
    dil_status s = listen_control(name, &control, &err);
    if (s == DIL_OK && signals < 0) s = dil_fail_errno(&err, "netlab: signalfd");
    be_prompt();
    if (write(ready, err.text, strlen(err.text) + 1) < 0) _exit(1);
    close(ready);
    if (!owned) quiet_stdio();
    if (s == DIL_OK) s = dil__lab_switch(spec, tun, ns, control, signals, &err);
    char path[108];
    if (control >= 0) unlink(dil__lab_socket_path(name, path));
    _exit(s == DIL_OK ? 0 : 1);
}

static dil_status await_ready(int ready, dil_err *err)
{
    char text[DIL_ERR_TEXT_MAX];
    size_t n = 0;
    for (ssize_t got; n < sizeof text && (got = read(ready, text + n, sizeof text - n)) > 0;) n += (size_t)got;
    if (n == 0) return dil_fail(err, DIL_EINTERNAL, "netlab: the switch ended before it was ready");
    text[n - 1] = 0;
    return text[0] ? dil_fail(err, DIL_EIO, "%s", text) : DIL_OK;
}

static void close_all(const int *fds, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) close(fds[i]);
}

dil_status dil__lab_start(const dil__lab_spec *spec, const char *name, bool owned, dil__lab **out, dil_err *err)
{
    if (geteuid() != 0) return dil_fail(err, DIL_EAUTH, "netlab: network namespaces need root");
    dil__lab *lab = calloc(1, sizeof *lab);
    if (!lab) return dil_fail(err, DIL_EMEMORY, "netlab: no memory");
    int tun[DIL_LAB_NODES_MAX], pipe_fd[2] = {-1, -1};
    uint32_t made = 0;
    snprintf(lab->name, sizeof lab->name, "%s", name);
    lab->home = open_own_ns();
    dil_status s = lab->home < 0 ? dil_fail_errno(err, "/proc/thread-self/ns/net") : DIL_OK;
    while (s == DIL_OK && made < spec->n_nodes) {
        s = make_node(made, spec->mtu, lab->home, &lab->ns[made], &tun[made], err);
        if (s == DIL_OK) made++;
    }
    lab->n_nodes = made;
    if (s == DIL_OK && pipe2(pipe_fd, O_CLOEXEC) != 0) s = dil_fail_errno(err, "netlab: pipe");
    if (s == DIL_OK) {
        pid_t self = getpid();
        lab->pid = fork();
        if (lab->pid == 0) {
            close(pipe_fd[0]);
            switch_process(spec, lab->name, owned, self, tun, lab->ns, pipe_fd[1]);
        }
        if (lab->pid < 0) s = dil_fail_errno(err, "netlab: fork");
    }
    if (pipe_fd[1] >= 0) close(pipe_fd[1]);
    if (s == DIL_OK) s = await_ready(pipe_fd[0], err);
    if (pipe_fd[0] >= 0) close(pipe_fd[0]);
    close_all(tun, made);
    if (s == DIL_OK) *out = lab;
    else dil__lab_stop(lab);
    return s;
}

void dil__lab_stop(dil__lab *lab)
{
    if (!lab) return;
    if (lab->pid > 0) {
        kill(lab->pid, SIGTERM);
        while (waitpid(lab->pid, NULL, 0) < 0 && errno == EINTR) {}
    }
    close_all(lab->ns, lab->n_nodes);
    if (lab->home >= 0) close(lab->home);
    free(lab);
}

static dil_status move_to(int ns, const char *what, dil_err *err)
{
    return setns(ns, CLONE_NEWNET) == 0 ? DIL_OK : dil_fail_errno(err, "netlab: entering %s", what);
}

dil_status dil__lab_enter(dil__lab *lab, uint32_t node, dil_err *err)
{
    if (node >= lab->n_nodes) return dil_fail(err, DIL_EUSAGE, "netlab: node %u of %u", node, lab->n_nodes);
    return move_to(lab->ns[node], "a namespace", err);
}

dil_status dil__lab_leave(dil__lab *lab, dil_err *err)
{
    return move_to(lab->home, "the first namespace", err);
}

int dil__lab_pid(const dil__lab *lab)
{
    return (int)lab->pid;
}
