/* dilemma doctor: whether a machine, and a cluster, can do what is going to be asked of them; for each thing that is wrong, the
 * cure. The exit status is that of the first thing that would fail. */
#include "cli/cli.h"
#include "cli/target.h"

#include "serve/client.h"

#include <dilemma/gguf.h>
#include <dilemma/probe.h>

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static const char about[] =
    "Checks memory, disk, clock, keys and ports of this machine, and the nodes that are enrolled, or named with --node or --cluster: that they\n"
    "answer, their versions, memory, and every link between them. Says what is wrong and the cure; the exit status is that of the first thing that would fail.\n\n"
    "  dilemma doctor\n"
    "  dilemma doctor --model model.gguf --keys keys --node a=10.0.0.1:7100 b=10.0.0.2:7100";

typedef enum grade { GOOD, WARN, BAD } grade;

typedef struct doctor {
    json_t *findings;
    int status;      /* of the first BAD */
    int n_bad, n_warn;
    bool json;
} doctor;

static void say(doctor *d, grade g, dil_status code, const char *what, const char *cure, const char *fmt, ...) DIL_PRINTF(6, 7);
static void say(doctor *d, grade g, dil_status code, const char *what, const char *cure, const char *fmt, ...)
{
    static const char *const word[] = {"ok", "warning", "problem"}, *const colour[] = {"32", "33", "31"};
    char text[700];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    d->n_bad += g == BAD;
    d->n_warn += g == WARN;
    if (g == BAD && !d->status) d->status = dil_status_exit(code);
    json_array_append_new(d->findings, json_pack("{s:s, s:s, s:s, s:s?}", "check", what, "grade", word[g], "text", text, "cure", g == GOOD ? NULL : cure));
    if (d->json || (g == GOOD && dil_cli_quiet)) return;
    bool tty = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    if (tty) printf("\033[%sm%-8s\033[0m %-9s%s\n", colour[g], word[g], what, text);
    else printf("%-8s %-9s%s\n", word[g], what, text);
    if (g != GOOD && cure) printf("%*scure: %s\n", 18, "", cure);
}

/* --- this machine ------------------------------------------------------------------------------------------------------------- */

static void check_memory(doctor *d, const char *model)
{
    uint64_t total, free_bytes;
    char a[32], b[32], c[32];
    dil_memory(&total, &free_bytes);
    if (!total) {
        say(d, WARN, DIL_OK, "memory", "say --memory to dilemma node", "cannot be told on this system");
        return;
    }
    dil_format_bytes(total, a);
    dil_format_bytes(free_bytes, b);
    struct stat st;
    if (model && stat(model, &st) == 0 && (uint64_t)st.st_size > free_bytes)
        say(d, BAD, DIL_ELIMIT, "memory", "end other programs, or let dilemma plan spread the model over several machines",
            "%s of %s are free, %s has %s", b, a, model, dil_format_bytes((uint64_t)st.st_size, c));
    else if (free_bytes < UINT64_C(500000000)) say(d, WARN, DIL_OK, "memory", "end other programs, or take a smaller model", "only %s of %s are free", b, a);
    else say(d, GOOD, DIL_OK, "memory", NULL, "%s of %s are free", b, a);
}

static void check_cpu(doctor *d)
{
    dil_device_info dev[16];
    size_t n = dil_engine_devices(dev, 16);
    int cpus = dil_cpu_count();
    say(d, GOOD, DIL_OK, "compute", NULL, "%d CPU%s may be used; %s", cpus, cpus == 1 ? "" : "s", n ? dev[0].description : "");
    for (size_t i = 1; i < n && i < 16; i++) say(d, GOOD, DIL_OK, "compute", NULL, "%s: %s", dev[i].name, dev[i].description);
}

static void check_disk(doctor *d)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char path[4096], a[32];
    struct statvfs v;
    if ((!xdg || !*xdg) && (!home || !*home)) {
        say(d, BAD, DIL_ENOTFOUND, "disk", "set HOME or XDG_CACHE_HOME", "there is no place for the cache");
        return;
    }
    snprintf(path, sizeof path, "%s%s/dilemma", xdg && *xdg ? xdg : home, xdg && *xdg ? "" : "/.cache");
    dil_err err;
    if (dil_mkdirs(path, &err) != DIL_OK || access(path, W_OK) != 0) {
        say(d, BAD, DIL_EIO, "disk", "make it writable for this user, or set XDG_CACHE_HOME", "%s: cannot be written", path);
        return;
    }
    if (statvfs(path, &v) != 0) return;
    uint64_t free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    dil_format_bytes(free_bytes, a);
    if (free_bytes < UINT64_C(2000000000)) say(d, WARN, DIL_OK, "disk", "make room, or point XDG_CACHE_HOME at another disk", "%s free for %s", a, path);
    else say(d, GOOD, DIL_OK, "disk", NULL, "%s free for %s", a, path);
}

static void check_clock(doctor *d)
{
    struct timex t = {0};
    int state = adjtimex(&t);
    if (dil_wall_ms() / 1000 < 1735689600) say(d, BAD, DIL_EDATA, "clock", "set it (timedatectl set-ntp true): certificates are not valid yet", "it says that this is before 2025");
    else if (state < 0 || state == TIME_ERROR || (t.status & STA_UNSYNC))
        say(d, WARN, DIL_OK, "clock", "timedatectl set-ntp true; only logs and certificates mind, delays are measured by round trips", "it is not kept by a time server");
    else say(d, GOOD, DIL_OK, "clock", NULL, "kept by a time server");
}

static void check_own_keys(doctor *d)
{
    char path[4096];
    dil_err err;
    dil_keypair k;
    dil_keyring ring;
    if (dil_keys_path("key", path, sizeof path, &err) != DIL_OK) {
        say(d, WARN, DIL_OK, "keys", "set HOME or DILEMMA_HOME", "%s", err.text);
        return;
    }
    dil_status s = dil_keypair_read(path, &k, &err);
    if (s == DIL_ENOTFOUND) say(d, WARN, DIL_OK, "keys", "none is needed alone; for several machines dilemma node --pair and dilemma pair make them (by hand: dilemma keys)", "%s: no key pair yet", path);
    else if (s != DIL_OK) say(d, BAD, s, "keys", s == DIL_EAUTH ? "chmod 600 the file" : "remove the file and make another with dilemma keys new", "%s", err.text);
    else say(d, GOOD, DIL_OK, "keys", NULL, "%s: public key %s", path, k.public_key);
    if (dil_keys_path("allowed", path, sizeof path, &err) != DIL_OK) return;
    s = dil_keyring_read(path, &ring, &err);
    if (s == DIL_OK) {
        say(d, GOOD, DIL_OK, "keys", NULL, "%s: %zu may use a node here", path, ring.n);
        dil_keyring_fini(&ring);
    } else if (s != DIL_ENOTFOUND) say(d, BAD, s, "keys", "correct the line", "%s", err.text);
}

static void check_port(doctor *d, uint16_t port, const char *what)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_ANY)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) return;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int e = bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0 ? 0 : errno;
    close(fd);
    if (e == EADDRINUSE) say(d, WARN, DIL_OK, "ports", "if that is no dilemma of yours, choose another with --port or --listen", "%u, for %s, is in use", port, what);
    else if (e) say(d, BAD, DIL_EIO, "ports", "choose another above 1023", "%u, for %s: %s", port, what, strerror(e));
    else say(d, GOOD, DIL_OK, "ports", NULL, "%u is free for %s", port, what);
}

/* --- the nodes ---------------------------------------------------------------------------------------------------------------- */

static void check_links(doctor *d, const dil_cli_target *t, uint32_t n, const dil_keypair *me, double link_sec)
{
    dil_probe_node nodes[64];
    dil_cluster *c = NULL;
    dil_err err;
    for (uint32_t i = 0; i < n; i++) nodes[i] = (dil_probe_node){t[i].name, t[i].address, t[i].key};
    dil_probe_opts o = {.key = me, .link_sec = link_sec, .progress = dil_cli_progress()};
    dil_status s = dil_probe(nodes, n, &o, &c, &err);
    dil_cli_progress_done();
    if (s != DIL_OK) {
        say(d, BAD, s, "links", "each node's address must work from every other node: open its port between them, and give addresses, not names that differ", "%s", err.text);
        return;
    }
    for (uint32_t i = 0; i < c->n_links; i++) {
        const dil_cluster_link *l = &c->links[i];
        double ms = l->rtt_sec * 1e3, mbit = l->bytes_per_sec * 8e-6;
        const char *from = c->nodes[l->from].name, *to = c->nodes[l->to].name;
        if (ms > 20) say(d, WARN, DIL_OK, "links", "a cable instead of wireless; a node this far off will hardly be used", "%s to %s: %.1f ms there and back, %.0f Mbit/s", from, to, ms, mbit);
        else if (mbit < 20) say(d, WARN, DIL_OK, "links", "weights travel once, prompts suffer: a cable instead of wireless", "%s to %s: only %.1f Mbit/s, %.2f ms", from, to, mbit, ms);
        else say(d, GOOD, DIL_OK, "links", NULL, "%s to %s: %.2f ms there and back, %.0f Mbit/s", from, to, ms, mbit);
    }
    dil_cluster_free(c);
}

static bool check_node(doctor *d, const dil_cli_target *t, const dil_keypair *me)
{
    dil_node_conn *c = NULL;
    dil_node_info i;
    dil_err err;
    char a[32];
    dil_status s = dil_node_connect(t->address, me ? t->key : NULL, me, 5, &c, &err);
    if (s == DIL_OK) s = dil_node_get_info(c, &i, &err);
    dil_node_disconnect(c);
    if (s != DIL_OK) {
        const char *cure = s == DIL_EAUTH ? "pair it again: dilemma node --pair there, dilemma pair here" : s == DIL_EUNSUPPORTED ? "the same dilemma on both" :
                           "start it there: dilemma node --listen ADDRESS:PORT; and open the port";
        say(d, BAD, s, "nodes", cure, "%s: %s", t->name, err.text);
        return false;
    }
    if (strcmp(i.version, DILEMMA_VERSION) != 0)
        say(d, WARN, DIL_OK, "versions", "install the same version everywhere", "%s has %s, this is " DILEMMA_VERSION, t->name, i.version);
    if (i.memory_free < UINT64_C(200000000)) say(d, WARN, DIL_OK, "nodes", "end what it holds, or --memory", "%s: only %s free", t->name, dil_format_bytes(i.memory_free, a));
    else say(d, GOOD, DIL_OK, "nodes", NULL, "%s: %s, version %s, %u threads, %s free, %s", t->name, t->address, i.version, i.threads, dil_format_bytes(i.memory_free, a), i.cpu);
    return true;
}

static void check_nodes(doctor *d, const dil_cli_list *words, const char *cluster, const char *dir, const char *key, bool insecure, double link_sec)
{
    static dil_cli_target t[64];
    dil_keypair me;
    dil_cluster *c = NULL;
    dil_err err;
    dil_status s = cluster ? dil_cluster_read(cluster, &c, &err) : DIL_OK;
    size_t n = c ? c->n_nodes : 0, reached = 0;
    if (s == DIL_OK && n > 64) s = dil_fail(&err, DIL_ELIMIT, "%zu nodes, at most 64 at once", n);
    if (s == DIL_OK && !cluster) s = dil_cli_targets(words, dir, insecure, t, 64, &n, &err);
    for (size_t i = 0; s == DIL_OK && c && i < n; i++) {
        snprintf(t[i].name, sizeof t[i].name, "%s", c->nodes[i].name);
        snprintf(t[i].address, sizeof t[i].address, "%s", c->nodes[i].address);
        snprintf(t[i].key, sizeof t[i].key, "%s", c->nodes[i].public_key);
    }
    dil_cluster_free(c);
    if (s == DIL_OK && !insecure) s = dil_cli_own_key(key, dir, &me, &err);
    if (s != DIL_OK) {
        say(d, BAD, s, "nodes", "dilemma pair --help tells how machines are enrolled", "%s", err.text);
        return;
    }
    for (size_t i = 0; i < n && !dil_cli_interrupted(); i++) reached += check_node(d, &t[i], insecure ? NULL : &me);
    if (reached == n && n > 1 && link_sec > 0) check_links(d, t, (uint32_t)n, insecure ? NULL : &me, link_sec);
}

static bool any_enrolled(const char *dir)
{
    char folder[4096], path[4096];
    return dil_cli_key_folder(dir, folder, NULL) == DIL_OK && snprintf(path, sizeof path, "%s/nodes", folder) < (int)sizeof path && dil_file_exists(path);
}

static void check_server(doctor *d, const char *url)
{
    dil__client c = {.base = url, .api_key = getenv("DILEMMA_API_KEY"), .timeout_sec = 5};
    dil_buf b;
    dil_err err;
    long http = 0;
    dil_buf_init(&b, 1u << 16);
    dil_status s = dil__client_get(&c, "/health", &http, &b, &err);
    if (s != DIL_OK) say(d, BAD, s, "server", "start it: dilemma serve --model FILE", "%s", err.text);
    else if (dil_buf_str(&b)[0] != '{') say(d, BAD, DIL_ENET, "server", "the address of dilemma serve or dilemma up, http://HOST:8080 where nothing else was said", "%s answers (%ld), but not as a dilemma server", url, http);
    else if (http != 200) say(d, BAD, DIL_ENET, "server", "wait, or see its log", "%s: %.*s", url, (int)strcspn(dil_buf_str(&b), "\n"), dil_buf_str(&b));
    else say(d, GOOD, DIL_OK, "server", NULL, "%s answers", url);
    dil_buf_fini(&b);
}

static int run(int argc, char **argv)
{
    dil_cli_list words = {0};
    const char *model = NULL, *cluster = NULL, *dir = NULL, *key = NULL, *url = NULL;
    double link_sec = 0.5;
    bool insecure = false;
    doctor d = {0};
    const dil_cli_opt opts[] = {
        {.name = "--model", .letter = 'm', .kind = DIL_CLI_STR, .out = &model, .arg = "FILE", .help = "that is to run here"},
        {.name = "--node", .kind = DIL_CLI_LIST, .out = &words, .arg = "NODE...", .help = "[NAME=]HOST:PORT[,KEY]"},
        {.name = "--cluster", .kind = DIL_CLI_STR, .out = &cluster, .arg = "FILE", .help = "or the nodes of this cluster.json"},
        {.name = "--keys", .kind = DIL_CLI_STR, .out = &dir, .arg = "DIR", .help = "a cluster's folder: coordinator.key and NAME.pub"},
        {.name = "--key", .kind = DIL_CLI_STR, .out = &key, .arg = "FILE", .help = "our key pair (DIR/coordinator.key, or ~/.config/dilemma/key)"},
        {.name = "--insecure", .kind = DIL_CLI_FLAG, .out = &insecure, .help = "nodes without keys"},
        {.name = "--link-time", .kind = DIL_CLI_NUM, .out = &link_sec, .arg = "SEC", .help = "at most, for a link (0.5); 0: links are not measured", .min = 0, .max = 60},
        {.name = "--url", .kind = DIL_CLI_STR, .out = &url, .arg = "URL", .help = "a server that should answer"},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &d.json, .help = "the findings as JSON"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "[--node NODE... | --cluster FILE] [options]", about, opts, NULL, 0, 0);
    if (status >= 0) return status;
    if (words.n && cluster) return dil_cli_usage("doctor: --node or --cluster, not both");
    d.findings = json_array();
    check_cpu(&d);
    check_memory(&d, model);
    check_disk(&d);
    check_clock(&d);
    dil_err err;
    dil_gguf *g = NULL;
    dil_status s = model ? dil_gguf_open(model, &g, &err) : DIL_OK;
    if (s != DIL_OK) say(&d, BAD, s, "model", "dilemma pull fetches one; dilemma import converts a folder", "%s", err.text);
    else if (model) say(&d, GOOD, DIL_OK, "model", NULL, "%s: %zu tensors", model, dil_gguf_n_tensors(g));
    dil_gguf_close(g);
    check_own_keys(&d);
    check_port(&d, 7100, "dilemma node");
    check_port(&d, 8080, "dilemma serve");
    if (words.n || cluster || (!insecure && any_enrolled(dir))) check_nodes(&d, &words, cluster, dir, key, insecure, link_sec);
    if (url) check_server(&d, url);
    if (d.json) {
        char *text = json_dumps(d.findings, JSON_INDENT(2));
        puts(text ? text : "[]");
        free(text);
    } else printf("%d problem%s, %d warning%s\n", d.n_bad, d.n_bad == 1 ? "" : "s", d.n_warn, d.n_warn == 1 ? "" : "s");
    json_decref(d.findings);
    return d.status;
}

const dil_cli_cmd dil_cli_doctor = {"doctor", "check machines, links and keys, and say the cure", run};
