/* The gate keeper: one thread that answers ZAP requests. A key is let in when it is an operator's (the allow file) or was
 * admitted for a session; what it may then ask is checked frame by frame in the node, by the same key. Refusals are logged,
 * one line a key in ten seconds, because clients try again many times a second. */
#include "net/gate.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ADMITTED_MAX = 4096, REFUSED_MAX = 64 };
#define REFUSED_QUIET_NS INT64_C(10000000000)

typedef struct admitted {
    char key[DIL_KEY_CHARS + 1];
    uint64_t owner;
    int64_t until_ns;
} admitted;

struct dil__gate {
    void *zap;
    void *stop_in, *stop_out; /* a PAIR whose message ends the thread */
    pthread_t thread;
    pthread_mutex_t lock;
    char *path;
    struct timespec changed;
    dil_keyring file, more;
    admitted peer[ADMITTED_MAX];
    size_t n_peers;
    struct { char key[DIL_KEY_CHARS + 1]; int64_t said_ns; } refused[REFUSED_MAX];
    size_t next_refused;
};

static void reload(dil__gate *g)
{
    struct stat st;
    if (!g->path || stat(g->path, &st) != 0) return;
    if (st.st_mtim.tv_sec == g->changed.tv_sec && st.st_mtim.tv_nsec == g->changed.tv_nsec) return;
    dil_keyring fresh;
    dil_err e;
    g->changed = st.st_mtim;
    if (dil_keyring_read(g->path, &fresh, &e) != DIL_OK) {
        dil_log(DIL_LOG_WARN, "gate", "keeping the keys read before: %s", e.text);
        return;
    }
    dil_keyring_fini(&g->file);
    g->file = fresh;
}

bool dil__gate_is_operator(dil__gate *g, const char *key)
{
    pthread_mutex_lock(&g->lock);
    reload(g);
    bool yes = dil_keyring_has(&g->file, key) || dil_keyring_has(&g->more, key);
    pthread_mutex_unlock(&g->lock);
    return yes;
}

static void forget_expired(dil__gate *g)
{
    int64_t now = dil_now_ns();
    size_t n = 0;
    for (size_t i = 0; i < g->n_peers; i++) {
        if (g->peer[i].until_ns > now) g->peer[n++] = g->peer[i];
    }
    g->n_peers = n;
}

void dil__gate_admit(dil__gate *g, const char *key, uint64_t owner, int64_t until_ns)
{
    pthread_mutex_lock(&g->lock);
    forget_expired(g);
    if (g->n_peers < ADMITTED_MAX) {
        admitted *a = &g->peer[g->n_peers++];
        *a = (admitted){.owner = owner, .until_ns = until_ns};
        snprintf(a->key, sizeof a->key, "%s", key);
    } else {
        dil_log(DIL_LOG_WARN, "gate", "%d keys are admitted already, %s is not", ADMITTED_MAX, key);
    }
    pthread_mutex_unlock(&g->lock);
}

void dil__gate_expel(dil__gate *g, uint64_t owner)
{
    pthread_mutex_lock(&g->lock);
    for (size_t i = 0; i < g->n_peers; i++) {
        if (g->peer[i].owner == owner) g->peer[i].until_ns = 0;
    }
    forget_expired(g);
    pthread_mutex_unlock(&g->lock);
}

static bool is_admitted(dil__gate *g, const char *key)
{
    pthread_mutex_lock(&g->lock);
    forget_expired(g);
    bool yes = false;
    for (size_t i = 0; i < g->n_peers; i++) yes |= dil_key_equal(g->peer[i].key, key);
    pthread_mutex_unlock(&g->lock);
    return yes;
}

static void log_refusal(dil__gate *g, const char *address, const char *key)
{
    int64_t now = dil_now_ns();
    for (size_t i = 0; i < REFUSED_MAX; i++) {
        if (strcmp(g->refused[i].key, key) != 0) continue;
        if (now - g->refused[i].said_ns < REFUSED_QUIET_NS) return;
        g->refused[i].key[0] = 0;
    }
    size_t at = g->next_refused++ % REFUSED_MAX;
    snprintf(g->refused[at].key, sizeof g->refused[at].key, "%s", key);
    g->refused[at].said_ns = now;
    dil_log(DIL_LOG_WARN, "gate", "refused %s: its key %s is not allowed%s%s", address, key, g->path ? " in " : "", g->path ? g->path : "");
}

/* Reads one part as text of at most cap - 1 bytes. */
static bool read_part(void *sock, char *out, size_t cap, size_t *len)
{
    int n = zmq_recv(sock, out, cap - 1, 0);
    if (n < 0) return false;
    *len = (size_t)n < cap - 1 ? (size_t)n : cap - 1;
    out[*len] = 0;
    return true;
}

static bool has_more(void *sock)
{
    int more = 0;
    size_t n = sizeof more;
    return zmq_getsockopt(sock, ZMQ_RCVMORE, &more, &n) == 0 && more;
}

static void answer(dil__gate *g)
{
    enum { VERSION, REQUEST, DOMAIN_, ADDRESS, IDENTITY, MECHANISM, CREDENTIAL, PARTS };
    char part[PARTS][256] = {{0}};
    size_t len[PARTS] = {0};
    int n = 0;
    for (bool more = true; more; n++) {
        char spare[8];
        size_t spare_len;
        bool ok = n < PARTS ? read_part(g->zap, part[n], sizeof part[n], &len[n]) : read_part(g->zap, spare, sizeof spare, &spare_len);
        if (!ok) return;
        more = has_more(g->zap);
    }
    char key[DIL_KEY_CHARS + 1] = "";
    bool ok = n == PARTS && strcmp(part[VERSION], "1.0") == 0 && strcmp(part[MECHANISM], "CURVE") == 0 && len[CREDENTIAL] == 32;
    if (ok) zmq_z85_encode(key, (const uint8_t *)part[CREDENTIAL], 32);
    ok = ok && (dil__gate_is_operator(g, key) || is_admitted(g, key));
    if (!ok) log_refusal(g, part[ADDRESS], key);
    zmq_send(g->zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(g->zap, part[REQUEST], len[REQUEST], ZMQ_SNDMORE);
    zmq_send(g->zap, ok ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(g->zap, ok ? "OK" : "no", 2, ZMQ_SNDMORE);
    zmq_send(g->zap, key, ok ? DIL_KEY_CHARS : 0, ZMQ_SNDMORE); /* the user id that every message of the peer then carries */
    zmq_send(g->zap, "", 0, 0);
}

static void *keep(void *arg)
{
    dil__gate *g = arg;
    zmq_pollitem_t item[2] = {{.socket = g->zap, .events = ZMQ_POLLIN}, {.socket = g->stop_out, .events = ZMQ_POLLIN}};
    for (;;) {
        if (zmq_poll(item, 2, -1) < 0 && errno != EINTR) return NULL;
        if (item[1].revents) return NULL;
        if (item[0].revents) answer(g);
    }
}

static dil_status copy_ring(const dil_keyring *from, dil_keyring *to, dil_err *err)
{
    if (!from || !from->n) return DIL_OK;
    to->entry = malloc(from->n * sizeof *to->entry);
    if (!to->entry) return dil_fail(err, DIL_EMEMORY, "no memory for %zu keys", from->n);
    memcpy(to->entry, from->entry, from->n * sizeof *to->entry);
    to->n = from->n;
    return DIL_OK;
}

static dil_status open_sockets(dil__gate *g, void *ctx, dil_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "inproc://gate-%p", (void *)g);
    g->zap = zmq_socket(ctx, ZMQ_REP);
    g->stop_out = zmq_socket(ctx, ZMQ_PAIR);
    g->stop_in = zmq_socket(ctx, ZMQ_PAIR);
    bool ok = g->zap && g->stop_out && g->stop_in && zmq_bind(g->zap, "inproc://zeromq.zap.01") == 0 && zmq_bind(g->stop_out, name) == 0 &&
              zmq_connect(g->stop_in, name) == 0;
    return ok ? DIL_OK : dil_fail(err, DIL_EMEMORY, "no authentication socket: %s", zmq_strerror(errno));
}

dil_status dil__gate_open(void *ctx, const char *allow_path, const dil_keyring *more, dil__gate **out, dil_err *err)
{
    dil__gate *g = calloc(1, sizeof *g);
    if (!g) return dil_fail(err, DIL_EMEMORY, "no memory for the list of keys");
    pthread_mutex_init(&g->lock, NULL);
    dil_status s = copy_ring(more, &g->more, err);
    if (s == DIL_OK && allow_path) {
        s = dil_keyring_read(allow_path, &g->file, err);
        g->path = strdup(allow_path);
        if (s == DIL_OK && !g->path) s = dil_fail(err, DIL_EMEMORY, "%s: no memory", allow_path);
    }
    if (s == DIL_OK) s = open_sockets(g, ctx, err);
    if (s == DIL_OK && pthread_create(&g->thread, NULL, keep, g) != 0) s = dil_fail(err, DIL_EMEMORY, "no thread for authentication");
    if (s == DIL_OK) {
        *out = g;
        return DIL_OK;
    }
    void *const socks[] = {g->zap, g->stop_out, g->stop_in};
    for (int i = 0; i < 3; i++) {
        if (socks[i]) zmq_close(socks[i]);
    }
    g->zap = NULL;
    dil__gate_close(g);
    return s;
}

void dil__gate_close(dil__gate *g)
{
    if (!g) return;
    if (g->zap) {
        zmq_send(g->stop_in, "", 0, 0);
        pthread_join(g->thread, NULL);
        int zero = 0;
        zmq_setsockopt(g->zap, ZMQ_LINGER, &zero, sizeof zero);
        zmq_close(g->zap);
        zmq_close(g->stop_in);
        zmq_close(g->stop_out);
    }
    dil_keyring_fini(&g->file);
    dil_keyring_fini(&g->more);
    pthread_mutex_destroy(&g->lock);
    free(g->path);
    free(g);
}
