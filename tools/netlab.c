/* netlab - the command line of src/netlab: makes a lab, changes its links while it runs, runs programs in it, takes it down. */
#define _GNU_SOURCE
#include "base/json.h"
#include "netlab/lab.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char help[] =
    "netlab - network namespaces whose directed links have a delay, rate, loss and outage of their own\n\n"
    "usage: netlab up LAB.json [--lab NAME]        start; prints the lab's name\n"
    "       netlab run LAB.json -- CMD ...         start, run CMD beside it, take down; exits as CMD does\n"
    "       netlab exec [--lab NAME] NODE -- CMD   run CMD in a node's namespace\n"
    "       netlab set [--lab NAME] FROM TO [delay=20ms] [rate=100mbit] [loss=1%] [queue=1MiB] [down|up]\n"
    "       netlab show [--lab NAME]               links, counters and CPU seconds as JSON\n"
    "       netlab down [--lab NAME]               end the lab and what still runs in it\n\n"
    "LAB.json: {\"nodes\": [\"a\", \"b\"], \"default\": {\"delay_ms\": 20, \"rate_mbit\": 100},\n"
    "           \"links\": [{\"from\": \"a\", \"to\": \"b\", \"loss\": 0.01, \"both\": true}], \"mtu\": 1500, \"seed\": 1}\n"
    "Nodes are 10.77.0.1, 10.77.0.2, ... in the order of the list. NAME defaults to $NETLAB, else the one lab that runs.\n"
    "Needs root and /dev/net/tun; exits 77 without.\n";

static const char *lab_name;

static int fail(const dil_err *err)
{
    fprintf(stderr, "netlab: %s\n", strncmp(err->text, "netlab: ", 8) == 0 ? err->text + 8 : err->text);
    return dil_status_exit(err->code);
}

static int usage(void)
{
    fputs(help, stderr);
    return 2;
}

/* The lab's name from --lab, $NETLAB, or the only one. */
static dil_status pick_lab(char out[DIL_LAB_NAME_MAX * 2], dil_err *err)
{
    const char *name = lab_name ? lab_name : getenv("NETLAB");
    if (!name || !*name) return dil__lab_only_name(out, err);
    snprintf(out, DIL_LAB_NAME_MAX * 2, "%s", name);
    return DIL_OK;
}

/* --- processes that were started inside ------------------------------------------------------------------------------------ */

static bool environ_has(const char *pid, const char *mark, size_t len)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%.20s/environ", pid);
    dil_buf b;
    dil_buf_init(&b, 4u << 20);
    bool found = dil_file_read(path, &b, NULL) == DIL_OK && b.len > 0 && memmem(b.data, b.len, mark, len) != NULL;
    dil_buf_fini(&b);
    return found;
}

/* Sends sig to every process that carries the lab's mark in its environment; returns how many. */
static int signal_inside(const char *name, int sig)
{
    char mark[128];
    int len = snprintf(mark, sizeof mark, DIL_LAB_ENV "=%s", name) + 1; /* with the zero: whole values match alone */
    DIR *d = opendir("/proc");
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9') continue;
        int pid = atoi(e->d_name);
        if (pid == getpid() || !environ_has(e->d_name, mark, (size_t)len)) continue;
        if (kill(pid, sig) == 0) n++;
    }
    if (d) closedir(d);
    return n;
}

static void end_inside(const char *name)
{
    int n = signal_inside(name, SIGTERM);
    for (int i = 0; i < 40 && signal_inside(name, 0) > 0; i++) dil_sleep_ns(50000000);
    signal_inside(name, SIGKILL);
    if (n > 0) fprintf(stderr, "netlab: ended %d process%s inside\n", n, n == 1 ? "" : "es");
}

/* --- commands ---------------------------------------------------------------------------------------------------------------- */

static dil_status start(const char *path, bool owned, dil__lab **lab, char name[DIL_LAB_NAME_MAX * 2], dil_err *err)
{
    dil__lab_spec *spec = malloc(sizeof *spec);
    if (!spec) return dil_fail(err, DIL_EMEMORY, "no memory");
    dil_status s = dil__lab_spec_load(path, spec, err);
    if (lab_name) snprintf(name, DIL_LAB_NAME_MAX * 2, "%s", lab_name);
    else snprintf(name, DIL_LAB_NAME_MAX * 2, "lab-%d", (int)getpid());
    if (s == DIL_OK && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != strlen(name))
        s = dil_fail(err, DIL_EUSAGE, "--lab %s: letters, digits, - _ . alone", name);
    if (s == DIL_OK) s = dil__lab_start(spec, name, owned, lab, err);
    free(spec);
    return s;
}

static int cmd_up(char **words, int n)
{
    if (n != 1) return usage();
    dil_err err;
    dil__lab *lab;
    char name[DIL_LAB_NAME_MAX * 2];
    if (start(words[0], false, &lab, name, &err) != DIL_OK) return fail(&err);
    puts(name); /* the daemon outlives us: its handle is not stopped */
    return 0;
}

static int exit_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int cmd_run(char **words, int n)
{
    if (n < 2) return usage();
    dil_err err;
    dil__lab *lab;
    char name[DIL_LAB_NAME_MAX * 2];
    if (start(words[0], true, &lab, name, &err) != DIL_OK) return fail(&err);
    setenv("NETLAB", name, 1);
    signal(SIGINT, SIG_IGN);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGINT, SIG_DFL);
        execvp(words[1], words + 1);
        fprintf(stderr, "netlab: %s: %s\n", words[1], strerror(errno));
        _exit(127);
    }
    int status = 127 << 8;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    end_inside(name);
    dil__lab_stop(lab);
    return exit_of(status);
}

static dil_status find_ns(const char *name, const char *node, char path[64], dil_err *err)
{
    dil_buf b;
    dil_buf_init(&b, 1u << 20);
    json_t *doc = NULL;
    dil_status s = dil__lab_command(name, "show", &b, err);
    if (s == DIL_OK) s = dil__json_parse("netlab", dil_buf_str(&b), b.len, &doc, err);
    if (s == DIL_OK) {
        size_t i;
        json_t *o;
        bool found = false;
        json_array_foreach(json_object_get(doc, "nodes"), i, o) {
            if (strcmp(json_string_value(json_object_get(o, "name")), node) != 0) continue;
            found = true;
            snprintf(path, 64, "/proc/%d/fd/%d", (int)json_integer_value(json_object_get(doc, "pid")),
                     (int)json_integer_value(json_object_get(o, "ns_fd")));
        }
        if (!found) s = dil_fail(err, DIL_ENOTFOUND, "lab %s has no node '%s'", name, node);
    }
    json_decref(doc);
    dil_buf_fini(&b);
    return s;
}

static int cmd_exec(char **words, int n)
{
    if (n < 2) return usage();
    dil_err err;
    char name[DIL_LAB_NAME_MAX * 2], path[64];
    dil_status s = pick_lab(name, &err);
    if (s == DIL_OK) s = find_ns(name, words[0], path, &err);
    if (s != DIL_OK) return fail(&err);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) {
        dil_fail_errno(&err, "%s", path);
        return fail(&err);
    }
    setenv("NETLAB", name, 1);
    setenv(DIL_LAB_ENV, name, 1);
    execvp(words[1], words + 1);
    fprintf(stderr, "netlab: %s: %s\n", words[1], strerror(errno));
    return 127;
}

static int send_command(const char *command, bool print)
{
    dil_err err;
    char name[DIL_LAB_NAME_MAX * 2];
    dil_buf out;
    dil_buf_init(&out, 1u << 20);
    dil_status s = pick_lab(name, &err);
    if (s == DIL_OK) s = dil__lab_command(name, command, &out, &err);
    if (s == DIL_OK && print) fputs(dil_buf_str(&out), stdout);
    dil_buf_fini(&out);
    return s == DIL_OK ? 0 : fail(&err);
}

static int cmd_set(char **words, int n)
{
    if (n < 3) return usage();
    dil_buf b;
    dil_buf_init(&b, DIL_LAB_COMMAND_MAX);
    dil_buf_printf(&b, "set");
    for (int i = 0; i < n; i++) dil_buf_printf(&b, " %s", words[i]);
    int status = b.failed ? usage() : send_command(dil_buf_str(&b), false);
    dil_buf_fini(&b);
    return status;
}

static int cmd_down(int n)
{
    if (n != 0) return usage();
    dil_err err;
    char name[DIL_LAB_NAME_MAX * 2];
    dil_status s = pick_lab(name, &err);
    if (s == DIL_ENOTFOUND && !lab_name) return fail(&err);
    if (s != DIL_OK) return fail(&err);
    end_inside(name);
    s = dil__lab_command(name, "quit", NULL, &err);
    return s == DIL_OK ? 0 : fail(&err);
}

int main(int argc, char **argv)
{
    char *words[256];
    int n = 0, i = 2;
    if (argc < 2) return usage();
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return fputs(help, stdout) < 0;
    for (; i < argc && strcmp(argv[i], "--") != 0 && n < 200; i++) {
        if (strcmp(argv[i], "--lab") == 0 && i + 1 < argc) lab_name = argv[++i];
        else words[n++] = argv[i];
    }
    if (i < argc && strcmp(argv[i], "--") == 0) i++;
    if (lab_name && strlen(lab_name) >= DIL_LAB_NAME_MAX * 2) return usage();
    for (; i < argc && n < 255; i++) words[n++] = argv[i];
    words[n] = NULL;
    dil_err why;
    const char *verb = argv[1];
    bool makes = strcmp(verb, "up") == 0 || strcmp(verb, "run") == 0;
    if (makes && !dil__lab_available(&why)) {
        fprintf(stderr, "netlab: SKIPPED: not possible here: %s\n", why.text);
        return 77;
    }
    if (strcmp(verb, "up") == 0) return cmd_up(words, n);
    if (strcmp(verb, "run") == 0) return cmd_run(words, n);
    if (strcmp(verb, "exec") == 0) return cmd_exec(words, n);
    if (strcmp(verb, "set") == 0) return cmd_set(words, n);
    if (strcmp(verb, "show") == 0) return n ? usage() : send_command("show", true);
    if (strcmp(verb, "down") == 0) return cmd_down(n);
    return usage();
}
