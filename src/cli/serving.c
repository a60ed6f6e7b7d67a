/* The server first, so that /health can tell what is going on while weights travel. */
#include "cli/served.h"

#include "cli/cli.h"

#include "net/draft.h"

#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

void dil_cli_model_name(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/');
    snprintf(out, cap, "%s", slash ? slash + 1 : path);
    size_t n = strlen(out);
    if (n > 5 && strcmp(out + n - 5, ".gguf") == 0) out[n - 5] = 0;
}

bool dil_cli_speculate(const char *text, int *out)
{
    char *end;
    long n = 0;
    bool is_auto = !text || strcmp(text, "auto") == 0, off = text && strcmp(text, "off") == 0;
    if (!is_auto && !off) {
        n = strtol(text, &end, 10);
        if (end == text || *end || n < 0 || n > DIL__DRAFT_MAX) return false;
    }
    *out = is_auto ? DIL_SPECULATE_AUTO : (int)n;
    return true;
}

bool dil_cli_speculate_plan(const char *text, uint32_t *n_guesses, double *acceptance)
{
    char *end;
    if (!text || strcmp(text, "off") == 0) return true;
    if (*text < '0' || *text > '9') return false;
    long d = strtol(text, &end, 10);
    if (d < 1 || d > DIL_PLAN_GUESSES_MAX || *end != ':' || ((end[1] < '0' || end[1] > '9') && end[1] != '.')) return false;
    *n_guesses = (uint32_t)d;
    *acceptance = strtod(end + 1, &end);
    return *end == 0 && *acceptance >= 0 && *acceptance <= 1;
}

#define UNLOAD_GRACE_SEC 30.0

struct dil_cli_served {
    dil_cli_serving how;
    uint64_t run, n_opened;    /* tells our models' sessions on the nodes from each other's, and from those of a process before us */
    dil_cli_one *one[DIL_SERVE_MODELS_MAX];
    uint32_t n;
    atomic_bool up;            /* what was asked for at the start is there: models may come and go */
    dil_server *server;
    dil_buf keys;              /* text that key[] points into */
    const char *key[64];
    size_t n_keys;
};
typedef dil_cli_served loaded;

/* A key a line; empty lines and lines that begin with # do not count. */
static dil_status read_api_keys(const char *path, loaded *m, dil_err *err)
{
    const char *env = getenv("DILEMMA_API_KEY");
    if (!path) {
        if (env && env[0]) m->key[m->n_keys++] = env;
        return DIL_OK;
    }
    dil_status s = dil_file_read(path, &m->keys, err);
    if (s != DIL_OK) return s;
    dil_buf_str(&m->keys);
    char *rest = NULL;
    for (char *p = strtok_r((char *)m->keys.data, "\r\n", &rest); p; p = strtok_r(NULL, "\r\n", &rest)) {
        if (*p == '#') continue;
        if (m->n_keys == sizeof m->key / sizeof m->key[0]) return dil_fail(err, DIL_ELIMIT, "%s: more than %zu keys", path, m->n_keys);
        m->key[m->n_keys++] = p;
    }
    return m->n_keys ? DIL_OK : dil_fail(err, DIL_EFORMAT, "%s: no key in it, one a line is wanted", path);
}

static uint64_t next_number(loaded *m)
{
    return ++m->n_opened;
}

/* Its place among the models; behind the last: not there. */
static uint32_t place_of(const loaded *m, const char *name)
{
    uint32_t i = 0;
    while (i < m->n && strcmp(m->one[i]->name, name) != 0) i++;
    return i;
}

static dil_status open_one(loaded *m, const dil_cli_choice *what, dil_cli_one **out, dil_err *err)
{
    if (m->n == DIL_SERVE_MODELS_MAX) return dil_fail(err, DIL_ELIMIT, "%d models are served already", DIL_SERVE_MODELS_MAX);
    dil_status s = dil_cli_one_open(m->server, &m->how, what, m->run, next_number(m), out, err);
    if (s == DIL_OK) m->one[m->n++] = *out;
    return s;
}

/* A model that is asked for at run time: its plan, on the cluster of the first model where no other is named. */
static dil_status load_one(void *ctx, const dil_serve_load *what, const dil_progress *p, dil_served **out, dil_err *err)
{
    loaded *m = ctx;
    dil_cli_choice w = {.model = what->model, .name = what->name, .cluster = m->how.cluster};
    dil_plan *plan = NULL;
    dil_cluster *cluster = NULL;
    dil_cli_one *one = NULL;
    if (!atomic_load(&m->up)) return dil_fail(err, DIL_ENET, "the models of the start are being loaded");
    dil_status s = what->plan ? dil_plan_read(what->plan, &plan, err) : DIL_OK;
    if (s == DIL_OK && what->cluster) s = dil_cluster_read(what->cluster, &cluster, err);
    if (cluster) w.cluster = cluster;
    w.plan = plan;
    if (s == DIL_OK && plan && !w.cluster) s = dil_fail(err, DIL_EUSAGE, "a plan needs its cluster: name the file");
    if (s == DIL_OK) s = open_one(m, &w, &one, err);
    if (s != DIL_OK) {
        dil_plan_free(plan);
        dil_cluster_free(cluster);
        return s;
    }
    dil_cli_one_own(one, plan, cluster);
    s = dil_cli_one_wait(one, p, err);
    if (s == DIL_OK) {
        dil_log(DIL_LOG_INFO, "serve", "%s is loaded beside %u others", one->name, m->n - 1);
        *out = one->served;
        return s;
    }
    m->n--;
    dil_cli_one_close(one, 0);
    return s;
}

static dil_status unload_one(void *ctx, const char *name, dil_err *err)
{
    loaded *m = ctx;
    if (!atomic_load(&m->up)) return dil_fail(err, DIL_ENET, "the models of the start are being loaded");
    uint32_t i = place_of(m, name);
    if (i == m->n) return dil_fail(err, DIL_ENOTFOUND, "the model '%.64s' is not served here", name);
    dil_cli_one *one = m->one[i];
    memmove(&m->one[i], &m->one[i + 1], (m->n - i - 1) * sizeof *m->one);
    m->n--;
    dil_cli_one_close(one, UNLOAD_GRACE_SEC);
    dil_log(DIL_LOG_INFO, "serve", "%s is unloaded", name);
    return DIL_OK;
}

static dil_status load_all(loaded *m, dil_err *err)
{
    const dil_cli_serving *v = &m->how;
    dil_cli_choice first = {v->model, v->name, v->plan_path, v->plan, v->cluster, v->profile};
    dil_cli_one *one;
    dil_status s = open_one(m, &first, &one, err);
    for (uint32_t i = 0; i < v->n_more && s == DIL_OK; i++) s = open_one(m, &v->more[i], &one, err);
    for (uint32_t i = 0; i < m->n && s == DIL_OK; i++) s = dil_cli_one_wait(m->one[i], dil_cli_progress(), err);
    dil_cli_progress_done();
    atomic_store(&m->up, s == DIL_OK);
    return s;
}

dil_status dil_cli_serving_open(const dil_cli_serving *v, loaded **out, dil_err *err)
{
    loaded *m = calloc(1, sizeof *m);
    if (!m) return dil_fail(err, DIL_EMEMORY, "no memory for a server");
    m->how = *v;
    randombytes_buf(&m->run, sizeof m->run);
    dil_buf_init(&m->keys, 64u << 10);
    dil_status s = DIL_OK;
    if (v->api_key) m->key[m->n_keys++] = v->api_key;
    else s = read_api_keys(v->api_key_file, m, err);
    char retry_path[4096];
    snprintf(retry_path, sizeof retry_path, "%.4000s/requests.journal", v->state_dir ? v->state_dir : "");
    dil_serve_opts so = {.bind = v->bind, .port = v->port, .host = {m, load_one, unload_one}, .api_keys = m->key, .n_api_keys = m->n_keys,
                         .tls_cert_file = v->tls_cert_file, .tls_key_file = v->tls_key_file, .retry_path = v->state_dir ? retry_path : NULL};
    if (s == DIL_OK && v->state_dir) s = dil_mkdirs(v->state_dir, err);
    if (s == DIL_OK) s = dil_server_open(&so, &m->server, err);
    if (m->keys.len) sodium_memzero(m->keys.data, m->keys.len);
    dil_buf_fini(&m->keys);
    if (s == DIL_OK && v->announce && !dil_cli_quiet)
        fprintf(stderr, "serve: loading %s; %s://%s:%u/health tells how far\n", v->name ? v->name : v->model, v->tls_cert_file ? "https" : "http", v->bind, dil_server_port(m->server));
    if (s == DIL_OK && v->key && v->keys_dir) s = dil_server_set_enrol(m->server, v->keys_dir, v->key, v->find, err);
    if (s == DIL_OK) s = load_all(m, err);
    if (s == DIL_OK) *out = m;
    else dil_cli_serving_close(m);
    return s;
}

uint16_t dil_cli_serving_port(const loaded *m)
{
    return dil_server_port(m->server);
}

void dil_cli_serving_close(loaded *m)
{
    if (!m) return;
    dil_server_close(m->server); /* frees what it served, so that no model is used any more */
    for (uint32_t i = 0; i < m->n; i++) {
        m->one[i]->served = NULL;
        dil_cli_one_close(m->one[i], 0);
    }
    free(m);
}

dil_status dil_cli_serving_run(const dil_cli_serving *v, dil_err *err)
{
    loaded *m = NULL;
    dil_cli_serving with = *v;
    dil_cli_progress(); /* Ctrl-C ends us in order */
    with.announce = true;
    dil_status s = dil_cli_serving_open(&with, &m, err);
    if (s == DIL_OK) {
        char address[256];
        bool v6 = strchr(v->bind, ':') != NULL;
        snprintf(address, sizeof address, "%s://%s%s%s:%u", v->tls_cert_file ? "https" : "http", v6 ? "[" : "", strcmp(v->bind, "0.0.0.0") == 0 ? "localhost" : v->bind, v6 ? "]" : "",
                 dil_cli_serving_port(m));
        printf("%s/v1\n", address);
        fflush(stdout);
        if (!dil_cli_quiet) fprintf(stderr, "serve: ready. The page: %s/ To talk: dilemma chat --url %s (Ctrl-C here ends the server)\n", address, address);
        while (!dil_cli_interrupted()) dil_sleep_ns(100000000);
        if (!dil_cli_quiet) fputs("serve: ending\n", stderr);
    }
    dil_cli_serving_close(m);
    return s == DIL_ECANCELED && dil_cli_interrupted() ? DIL_OK : s;
}
