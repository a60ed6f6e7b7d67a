/* Who is enrolled: names, their keys beside, and the address where each was last. An address is a hint alone; the key decides. */
#include <dilemma/pair.h>

#include "net/lines.h"
#include "net/sock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool dil_pair_name_ok(const char *name)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t n = strspn(name, good);
    return n > 0 && n < DIL_PAIR_NAME_MAX && !name[n] && name[0] != '.' && name[0] != '-';
}

void dil_pair_own_name(char out[DIL_PAIR_NAME_MAX])
{
    char host[256] = "";
    if (gethostname(host, sizeof host - 1) != 0) host[0] = 0;
    host[strcspn(host, ".")] = 0;
    host[DIL_PAIR_NAME_MAX - 1] = 0;
    const char *name = dil_pair_name_ok(host) ? host : "node";
    memcpy(out, name, strlen(name) + 1);
}

bool dil_pair_code_read(const char *typed, char out[DIL_PAIR_DIGITS + 1])
{
    size_t n = 0;
    for (const char *p = typed; *p; p++) {
        if (*p == ' ' || *p == '-' || *p == '\t' || *p == '\r' || *p == '\n') continue;
        if (*p < '0' || *p > '9' || n == DIL_PAIR_DIGITS) return false;
        out[n++] = *p;
    }
    out[n] = 0;
    return n == DIL_PAIR_DIGITS;
}

typedef struct book {
    const char *path;
    dil_pair_peer *node;
    size_t n, cap;
} book;

static dil_status read_line(void *ctx, char *line, size_t number, dil_err *err)
{
    book *b = ctx;
    char *address = line + strcspn(line, " \t");
    if (*address) *address++ = 0;
    address += strspn(address, " \t");
    if (!dil_pair_name_ok(line) || !dil__address_ok(address) || strlen(address) >= DIL_PAIR_ADDRESS_MAX)
        return dil_fail(err, DIL_EFORMAT, "%s:%zu: not \"NAME HOST:PORT\"", b->path, number);
    if (b->n == b->cap) return dil_fail(err, DIL_ELIMIT, "%s: more than %zu nodes", b->path, b->cap);
    dil_pair_peer *p = &b->node[b->n++];
    *p = (dil_pair_peer){0};
    snprintf(p->name, sizeof p->name, "%s", line);
    snprintf(p->address, sizeof p->address, "%s", address);
    return DIL_OK;
}

static dil_status path_in(const char *dir, const char *name, const char *end, char path[4096], dil_err *err)
{
    return snprintf(path, 4096, "%s/%s%s", dir, name, end) < 4096 ? DIL_OK : dil_fail(err, DIL_ELIMIT, "the path is too long");
}

dil_status dil_pair_nodes(const char *dir, dil_pair_peer *out, size_t cap, size_t *n, dil_err *err)
{
    char path[4096];
    dil_status s = path_in(dir, "nodes", "", path, err);
    if (s != DIL_OK) return s;
    book b = {.path = path, .node = out, .cap = cap};
    if (dil_file_exists(path)) s = dil__each_line(path, read_line, &b, err);
    for (size_t i = 0; s == DIL_OK && i < b.n; i++) s = dil_keys_public(dir, b.node[i].name, b.node[i].key, err);
    if (s == DIL_OK) *n = b.n;
    return s;
}

static dil_status write_book(const char *path, const book *b, dil_err *err)
{
    dil_outfile o;
    dil_status s = dil_outfile_open(&o, path, err);
    if (s != DIL_OK) return s;
    fputs("# dilemma: nodes that were paired, one \"NAME HOST:PORT\" a line; their keys are in NAME.pub\n", o.stream);
    for (size_t i = 0; i < b->n; i++) fprintf(o.stream, "%s %s\n", b->node[i].name, b->node[i].address);
    return dil_outfile_commit(&o, err);
}

static dil_status keep_address(const char *dir, const dil_pair_peer *node, dil_err *err)
{
    char path[4096];
    dil_status s = path_in(dir, "nodes", "", path, err);
    if (s != DIL_OK) return s;
    book b = {.path = path, .cap = DIL_PAIR_NODES_MAX};
    b.node = calloc(b.cap, sizeof *b.node);
    if (!b.node) return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    if (dil_file_exists(path)) s = dil__each_line(path, read_line, &b, err);
    size_t at = 0;
    while (at < b.n && strcmp(b.node[at].name, node->name) != 0) at++;
    if (s == DIL_OK && at == b.cap) s = dil_fail(err, DIL_ELIMIT, "%s: %zu nodes are the most", path, b.cap);
    if (s == DIL_OK) {
        b.node[at] = *node;
        b.n += at == b.n;
        s = write_book(path, &b, err);
    }
    free(b.node);
    return s;
}

dil_status dil_pair_keep(const char *dir, const dil_pair_peer *node, dil_err *err)
{
    char path[4096], old[DIL_KEY_CHARS + 1];
    if (!dil_pair_name_ok(node->name)) return dil_fail(err, DIL_EUSAGE, "'%.80s' cannot be a machine's name: letters, digits, '-', '_' and '.'", node->name);
    if (!dil__address_ok(node->address)) return dil_fail(err, DIL_EUSAGE, "'%s' is not HOST:PORT", node->address);
    dil_status s = path_in(dir, node->name, ".pub", path, err);
    if (s == DIL_OK && dil_file_exists(path)) {
        s = dil_keys_public(dir, node->name, old, err);
        if (s == DIL_OK && !dil_key_equal(old, node->key))
            return dil_fail(err, DIL_EBUSY, "%s is another machine's key: pair this one under another name (NAME=HOST:PORT), or remove that file if it is the same machine with a new key",
                            path);
    } else if (s == DIL_OK) {
        s = dil_keyring_add(path, node->key, node->name, err);
    }
    return s == DIL_OK ? keep_address(dir, node, err) : s;
}
