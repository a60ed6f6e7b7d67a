/* What a lab is made of: lab.json and the words of `netlab set`. */
#include "netlab/lab.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SPEC_MAX (1u << 20)

void dil__lab_spec_init(dil__lab_spec *s)
{
    memset(s, 0, sizeof *s);
    s->mtu = 1500;
    s->seed = 1;
}

int dil__lab_spec_node(const dil__lab_spec *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        if (strcmp(s->name[i], name) == 0) return (int)i;
    }
    return -1;
}

const char *dil__lab_address(uint32_t node, char out[16])
{
    snprintf(out, 16, "10.77.%u.%u", (node / 250) & 255, node % 250 + 1);
    return out;
}

typedef struct unit {
    const char *name;
    double scale;
} unit;

/* A number >= 0 followed by one of the units; a bare number is taken in the first. */
static bool number_with_unit(const char *text, const unit *units, double *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || !isfinite(v) || v < 0) return false;
    const unit *u = units;
    if (*end) {
        while (u->name && strcasecmp(end, u->name) != 0) u++;
        if (!u->name) return false;
    }
    *out = v * u->scale;
    return true;
}

static const unit time_units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"s", 1}, {NULL, 0}};
static const unit rate_units[] = {{"mbit", 1e6 / 8}, {"kbit", 1e3 / 8}, {"gbit", 1e9 / 8}, {"bit", 1.0 / 8}, {NULL, 0}};
static const unit loss_units[] = {{"", 1}, {"%", 0.01}, {NULL, 0}};

static dil_status check_link(const dil__lab_link *l, const char *where, dil_err *err)
{
    if (!(l->delay_sec >= 0 && l->delay_sec <= DIL_LAB_DELAY_MAX_SEC))
        return dil_fail(err, DIL_ELIMIT, "%s: delay is %g s, at most %g s", where, l->delay_sec, DIL_LAB_DELAY_MAX_SEC);
    if (!(l->loss >= 0 && l->loss <= 1)) return dil_fail(err, DIL_EFORMAT, "%s: loss is %g, within 0 to 1", where, l->loss);
    if (!(l->rate_bytes_per_sec >= 0 && l->rate_bytes_per_sec <= 1e12))
        return dil_fail(err, DIL_ELIMIT, "%s: rate is %g bytes/s", where, l->rate_bytes_per_sec);
    if (l->queue_bytes > DIL_LAB_QUEUE_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: queue is %llu bytes, at most %u", where, (unsigned long long)l->queue_bytes,
                        DIL_LAB_QUEUE_MAX);
    return DIL_OK;
}

dil_status dil__lab_link_word(dil__lab_link *l, const char *word, dil_err *err)
{
    dil__lab_link next = *l;
    const char *eq = strchr(word, '=');
    size_t key = eq ? (size_t)(eq - word) : strlen(word);
    bool good = false;
    if (!eq && strcmp(word, "down") == 0) good = next.down = true;
    else if (!eq && strcmp(word, "up") == 0) good = true, next.down = false;
    else if (eq && key == 5 && memcmp(word, "delay", 5) == 0) good = number_with_unit(eq + 1, time_units, &next.delay_sec);
    else if (eq && key == 4 && memcmp(word, "rate", 4) == 0) good = number_with_unit(eq + 1, rate_units, &next.rate_bytes_per_sec);
    else if (eq && key == 4 && memcmp(word, "loss", 4) == 0) good = number_with_unit(eq + 1, loss_units, &next.loss);
    else if (eq && key == 5 && memcmp(word, "queue", 5) == 0) good = dil_parse_bytes(eq + 1, &next.queue_bytes);
    if (!good)
        return dil_fail(err, DIL_EUSAGE, "'%.60s': expected delay=20ms rate=100mbit loss=1%% queue=1MiB down or up", word);
    dil_status s = check_link(&next, word, err);
    if (s == DIL_OK) *l = next;
    return s;
}

static dil_status read_link(const json_t *o, const char *where, dil__lab_link *l, dil_err *err)
{
    double delay_ms, rate_mbit;
    int64_t queue;
    dil__lab_link next = *l;
    dil_status s = dil__json_num_or(o, "delay_ms", where, l->delay_sec * 1e3, &delay_ms, err);
    if (s == DIL_OK) s = dil__json_num_or(o, "rate_mbit", where, l->rate_bytes_per_sec * 8e-6, &rate_mbit, err);
    if (s == DIL_OK) s = dil__json_num_or(o, "loss", where, l->loss, &next.loss, err);
    if (s == DIL_OK) s = dil__json_bool_or(o, "down", where, l->down, &next.down, err);
    if (s == DIL_OK) s = dil__json_int_or(o, "queue_bytes", where, 0, DIL_LAB_QUEUE_MAX, (int64_t)l->queue_bytes, &queue, err);
    if (s != DIL_OK) return s;
    next.delay_sec = delay_ms * 1e-3;
    next.rate_bytes_per_sec = rate_mbit * 1e6 / 8;
    next.queue_bytes = (uint64_t)queue;
    s = check_link(&next, where, err);
    if (s == DIL_OK) *l = next;
    return s;
}

static bool name_is_plain(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n < DIL_LAB_NAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n && name[0] != '.';
}

static dil_status read_nodes(const json_t *doc, const char *what, dil__lab_spec *s, dil_err *err)
{
    json_t *nodes;
    dil_status st = dil__json_arr(doc, "nodes", what, &nodes, err);
    if (st != DIL_OK) return st;
    if (json_array_size(nodes) < 1 || json_array_size(nodes) > DIL_LAB_NODES_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: %zu nodes, 1 to %d are possible", what, json_array_size(nodes), DIL_LAB_NODES_MAX);
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const char *name = json_string_value(json_array_get(nodes, i));
        if (!name || !name_is_plain(name))
            return dil_fail(err, DIL_EFORMAT, "%s: nodes[%zu] is no name of 1 to %d letters, digits, - _ .", what, i, DIL_LAB_NAME_MAX - 1);
        if (dil__lab_spec_node(s, name) >= 0) return dil_fail(err, DIL_EFORMAT, "%s: node %s is listed twice", what, name);
        snprintf(s->name[s->n_nodes++], DIL_LAB_NAME_MAX, "%s", name);
    }
    return DIL_OK;
}

static dil_status read_links(const json_t *doc, const char *what, dil__lab_spec *s, dil_err *err)
{
    const json_t *list = json_object_get(doc, "links");
    if (list && !json_is_array(list)) return dil_fail(err, DIL_EFORMAT, "%s: links is no list", what);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char where[96];
        snprintf(where, sizeof where, "%.64s: links[%zu]", what, i);
        const json_t *o = json_array_get(list, i);
        if (!json_is_object(o)) return dil_fail(err, DIL_EFORMAT, "%s is no object", where);
        const char *from, *to;
        bool both;
        dil_status st = dil__json_str(o, "from", where, &from, err);
        if (st == DIL_OK) st = dil__json_str(o, "to", where, &to, err);
        if (st == DIL_OK) st = dil__json_bool_or(o, "both", where, false, &both, err);
        if (st != DIL_OK) return st;
        int a = dil__lab_spec_node(s, from), b = dil__lab_spec_node(s, to);
        if (a < 0 || b < 0 || a == b)
            return dil_fail(err, DIL_EFORMAT, "%s: no link from '%.31s' to '%.31s' is possible", where, from, to);
        st = read_link(o, where, &s->link[a][b], err);
        if (st == DIL_OK && both) st = read_link(o, where, &s->link[b][a], err);
        if (st != DIL_OK) return st;
    }
    return DIL_OK;
}

static dil_status read_spec(const json_t *doc, const char *what, dil__lab_spec *s, dil_err *err)
{
    if (!json_is_object(doc)) return dil_fail(err, DIL_EFORMAT, "%s: no object", what);
    dil_status st = read_nodes(doc, what, s, err);
    int64_t mtu = 1500, seed = 1;
    if (st == DIL_OK) st = dil__json_int_or(doc, "mtu", what, 576, 65000, 1500, &mtu, err);
    if (st == DIL_OK) st = dil__json_int_or(doc, "seed", what, 0, INT64_MAX, 1, &seed, err);
    if (st != DIL_OK) return st;
    s->mtu = (uint32_t)mtu;
    s->seed = (uint64_t)seed;
    const json_t *dflt = json_object_get(doc, "default");
    if (dflt && !json_is_object(dflt)) return dil_fail(err, DIL_EFORMAT, "%s: default is no object", what);
    dil__lab_link l = {0};
    if (dflt) st = read_link(dflt, "default", &l, err);
    if (st != DIL_OK) return st;
    for (uint32_t a = 0; a < s->n_nodes; a++) {
        for (uint32_t b = 0; b < s->n_nodes; b++) s->link[a][b] = l;
    }
    return read_links(doc, what, s, err);
}

dil_status dil__lab_spec_parse(const char *what, const char *text, size_t len, dil__lab_spec *out, dil_err *err)
{
    json_t *doc;
    dil_status st = dil__json_parse(what, text, len, &doc, err);
    if (st != DIL_OK) return st;
    dil__lab_spec *s = malloc(sizeof *s);
    if (s) {
        dil__lab_spec_init(s);
        st = read_spec(doc, what, s, err);
        if (st == DIL_OK) *out = *s;
        free(s);
    } else st = dil_fail(err, DIL_EMEMORY, "%s: no memory", what);
    json_decref(doc);
    return st;
}

dil_status dil__lab_spec_load(const char *path, dil__lab_spec *out, dil_err *err)
{
    dil_buf b;
    dil_buf_init(&b, SPEC_MAX);
    dil_status st = dil_file_read(path, &b, err);
    if (st == DIL_OK) st = dil__lab_spec_parse(path, dil_buf_str(&b), b.len, out, err);
    dil_buf_fini(&b);
    return st;
}
