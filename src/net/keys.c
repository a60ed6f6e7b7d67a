/* Key files and lists. libsodium makes and compares; the text form is ZeroMQ's Z85, so that keys can be pasted into a shell
 * (in quotes), a JSON file and other ZeroMQ programs. */
#include <dilemma/keys.h>

#include "net/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum { FILE_MAX = 4 << 20 };

bool dil_key_is_valid(const char *z85)
{
    if (!z85 || strlen(z85) != DIL_KEY_CHARS) return false;
    uint8_t raw[32];
    return zmq_z85_decode(raw, z85) != NULL;
}

bool dil_key_equal(const char *a, const char *b)
{
    return strlen(a) == DIL_KEY_CHARS && strlen(b) == DIL_KEY_CHARS && sodium_memcmp(a, b, DIL_KEY_CHARS) == 0;
}

dil_status dil_keypair_new(dil_keypair *out, dil_err *err)
{
    dil_keypair k;
    if (zmq_curve_keypair(k.public_key, k.secret_key) != 0)
        return dil_fail(err, DIL_EUNSUPPORTED, "this libzmq was built without CURVE: install one with libsodium");
    *out = k;
    sodium_memzero(&k, sizeof k);
    return DIL_OK;
}

/* --- lines ------------------------------------------------------------------------------------------------------------ */

static bool is_comment(const char *line)
{
    return line[0] == 0 || (line[0] == '#' && (line[1] == ' ' || line[1] == 0)); /* a key may begin with '#' */
}

static void trim_right(char *s)
{
    size_t n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r')) s[--n] = 0;
}

dil_status dil__each_line(const char *path, dil_status (*fn)(void *ctx, char *line, size_t number, dil_err *err), void *ctx, dil_err *err)
{
    dil_buf text;
    dil_buf_init(&text, FILE_MAX);
    dil_status s = dil_file_read(path, &text, err);
    if (s == DIL_OK && text.len && memchr(text.data, 0, text.len)) s = dil_fail(err, DIL_EFORMAT, "%s: holds a zero byte", path);
    if (s == DIL_OK && !dil_buf_append(&text, "\n", 2)) s = dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    char *p = (char *)text.data;
    for (size_t number = 1; s == DIL_OK && *p; number++) {
        char *end = strchr(p, '\n');
        *end = 0;
        trim_right(p);
        if (!is_comment(p)) s = fn(ctx, p, number, err);
        p = end + 1;
    }
    if (text.data) sodium_memzero(text.data, text.len);
    dil_buf_fini(&text);
    return s;
}

/* --- key pairs -------------------------------------------------------------------------------------------------------- */

typedef struct pair_reader {
    const char *path;
    dil_keypair pair;
} pair_reader;

static dil_status read_pair_line(void *ctx, char *line, size_t number, dil_err *err)
{
    pair_reader *r = ctx;
    char *to = strncmp(line, "public ", 7) == 0 ? r->pair.public_key : strncmp(line, "secret ", 7) == 0 ? r->pair.secret_key : NULL;
    if (!to) return dil_fail(err, DIL_EFORMAT, "%s:%zu: neither \"public KEY\" nor \"secret KEY\"", r->path, number);
    if (!dil_key_is_valid(line + 7)) return dil_fail(err, DIL_EFORMAT, "%s:%zu: not a key of %d Z85 characters", r->path, number, DIL_KEY_CHARS);
    memcpy(to, line + 7, DIL_KEY_CHARS + 1);
    return DIL_OK;
}

static dil_status check_pair(const pair_reader *r, dil_err *err)
{
    if (!r->pair.secret_key[0]) return dil_fail(err, DIL_EFORMAT, "%s: no line \"secret KEY\"", r->path);
    char pub[DIL_KEY_CHARS + 1];
    if (zmq_curve_public(pub, r->pair.secret_key) != 0) return dil_fail(err, DIL_EFORMAT, "%s: the secret key is not usable", r->path);
    if (strcmp(pub, r->pair.public_key) != 0) return dil_fail(err, DIL_EFORMAT, "%s: the public key does not belong to the secret key", r->path);
    return DIL_OK;
}

dil_status dil_keypair_read(const char *path, dil_keypair *out, dil_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) return dil_fail_errno(err, "%s", path);
    if (st.st_mode & 077)
        return dil_fail(err, DIL_EAUTH, "%s: mode %03o lets others read the secret key; chmod 600 it", path, (unsigned)st.st_mode & 0777);
    pair_reader r = {.path = path};
    dil_status s = dil__each_line(path, read_pair_line, &r, err);
    if (s == DIL_OK) s = check_pair(&r, err);
    if (s == DIL_OK) *out = r.pair;
    sodium_memzero(&r, sizeof r);
    return s;
}

dil_status dil__make_folder_of(const char *path, dil_err *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path) return DIL_OK;
    char *dir = strndup(path, (size_t)(slash - path));
    if (!dir) return dil_fail(err, DIL_EMEMORY, "%s: no memory", path);
    dil_status s = DIL_OK;
    if (!dil_file_exists(dir)) {
        mode_t old = umask(077);
        s = dil_mkdirs(dir, err);
        umask(old);
    }
    free(dir);
    return s;
}

dil_status dil_keypair_write(const char *path, const dil_keypair *k, dil_err *err)
{
    dil_status s = dil__make_folder_of(path, err);
    if (s != DIL_OK) return s;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST) return dil_fail(err, DIL_EBUSY, "%s: exists, and a key is never overwritten", path);
    if (fd < 0) return dil_fail_errno(err, "%s", path);
    char text[256];
    int n = snprintf(text, sizeof text, "# dilemma key pair: keep the secret line to yourself\npublic %s\nsecret %s\n", k->public_key, k->secret_key);
    bool ok = write(fd, text, (size_t)n) == n && fsync(fd) == 0;
    if (!ok) s = dil_fail_errno(err, "%s: writing", path);
    close(fd);
    if (!ok) unlink(path);
    sodium_memzero(text, sizeof text);
    return s;
}

/* --- lists ------------------------------------------------------------------------------------------------------------ */

typedef struct ring_reader {
    const char *path;
    dil_keyring *ring;
    size_t cap;
} ring_reader;

static dil_status push_entry(ring_reader *r, const char *key, const char *name, dil_err *err)
{
    dil_keyring *ring = r->ring;
    if (ring->n == DIL_KEYRING_MAX) return dil_fail(err, DIL_ELIMIT, "%s: more than %d keys", r->path, DIL_KEYRING_MAX);
    if (ring->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 16;
        void *p = realloc(ring->entry, cap * sizeof *ring->entry);
        if (!p) return dil_fail(err, DIL_EMEMORY, "%s: no memory for %zu keys", r->path, cap);
        ring->entry = p;
        r->cap = cap;
    }
    dil_keyring_entry *e = &ring->entry[ring->n++];
    memcpy(e->key, key, DIL_KEY_CHARS);
    e->key[DIL_KEY_CHARS] = 0;
    snprintf(e->name, sizeof e->name, "%s", name);
    return DIL_OK;
}

static dil_status read_ring_line(void *ctx, char *line, size_t number, dil_err *err)
{
    ring_reader *r = ctx;
    size_t n = strcspn(line, " \t");
    char *name = line + n;
    if (*name) *name++ = 0;
    name += strspn(name, " \t");
    if (!dil_key_is_valid(line)) return dil_fail(err, DIL_EFORMAT, "%s:%zu: not a key of %d Z85 characters", r->path, number, DIL_KEY_CHARS);
    return push_entry(r, line, name, err);
}

dil_status dil_keyring_read(const char *path, dil_keyring *out, dil_err *err)
{
    dil_keyring ring = {0};
    ring_reader r = {.path = path, .ring = &ring};
    dil_status s = dil__each_line(path, read_ring_line, &r, err);
    if (s == DIL_OK) *out = ring;
    else dil_keyring_fini(&ring);
    return s;
}

void dil_keyring_fini(dil_keyring *ring)
{
    free(ring->entry);
    *ring = (dil_keyring){0};
}

bool dil_keyring_has(const dil_keyring *ring, const char *key)
{
    bool found = false;
    for (size_t i = 0; i < ring->n; i++) found |= dil_key_equal(ring->entry[i].key, key);
    return found;
}

static dil_status write_ring(const char *path, const dil_keyring *ring, dil_err *err)
{
    dil_status s = dil__make_folder_of(path, err);
    if (s != DIL_OK) return s;
    dil_outfile o;
    mode_t old = umask(077);
    s = dil_outfile_open(&o, path, err);
    umask(old);
    if (s != DIL_OK) return s;
    fputs("# dilemma: public keys that are let in, one \"KEY NAME\" a line\n", o.stream);
    for (size_t i = 0; i < ring->n; i++) fprintf(o.stream, "%s%s%s\n", ring->entry[i].key, ring->entry[i].name[0] ? " " : "", ring->entry[i].name);
    return dil_outfile_commit(&o, err);
}

static dil_status read_or_empty(const char *path, dil_keyring *out, dil_err *err)
{
    *out = (dil_keyring){0};
    return dil_file_exists(path) ? dil_keyring_read(path, out, err) : DIL_OK;
}

dil_status dil_keyring_add(const char *path, const char *key, const char *name, dil_err *err)
{
    if (!dil_key_is_valid(key)) return dil_fail(err, DIL_EFORMAT, "'%s' is not a key of %d Z85 characters", key, DIL_KEY_CHARS);
    if (strpbrk(name, "\n\r") || strlen(name) >= DIL_KEY_NAME_MAX) return dil_fail(err, DIL_EUSAGE, "a key's name is one line of fewer than %d bytes", DIL_KEY_NAME_MAX);
    dil_keyring ring;
    dil_status s = read_or_empty(path, &ring, err);
    if (s != DIL_OK) return s;
    ring_reader r = {.path = path, .ring = &ring, .cap = ring.n};
    bool found = false;
    for (size_t i = 0; i < ring.n; i++) {
        if (!dil_key_equal(ring.entry[i].key, key)) continue;
        snprintf(ring.entry[i].name, sizeof ring.entry[i].name, "%s", name);
        found = true;
    }
    if (!found) s = push_entry(&r, key, name, err);
    if (s == DIL_OK) s = write_ring(path, &ring, err);
    dil_keyring_fini(&ring);
    return s;
}

dil_status dil_keyring_remove(const char *path, const char *key_or_name, dil_err *err)
{
    dil_keyring ring;
    dil_status s = dil_keyring_read(path, &ring, err);
    if (s != DIL_OK) return s;
    size_t n = 0;
    for (size_t i = 0; i < ring.n; i++) {
        const dil_keyring_entry *e = &ring.entry[i];
        if (strcmp(e->key, key_or_name) != 0 && (!e->name[0] || strcmp(e->name, key_or_name) != 0)) ring.entry[n++] = *e;
    }
    if (n == ring.n) s = dil_fail(err, DIL_ENOTFOUND, "%s: no key or name '%s'", path, key_or_name);
    ring.n = n;
    if (s == DIL_OK) s = write_ring(path, &ring, err);
    dil_keyring_fini(&ring);
    return s;
}

/* --- places ------------------------------------------------------------------------------------------------------------ */

dil_status dil_keys_path(const char *file, char *out, size_t cap, dil_err *err)
{
    const char *home = getenv("DILEMMA_HOME"), *xdg = getenv("XDG_CONFIG_HOME"), *user = getenv("HOME");
    int n = -1;
    if (home && *home) n = snprintf(out, cap, "%s/%s", home, file);
    else if (xdg && *xdg) n = snprintf(out, cap, "%s/dilemma/%s", xdg, file);
    else if (user && *user) n = snprintf(out, cap, "%s/.config/dilemma/%s", user, file);
    if (n < 0) return dil_fail(err, DIL_ENOTFOUND, "no folder for keys: HOME, XDG_CONFIG_HOME and DILEMMA_HOME are unset");
    if ((size_t)n >= cap) return dil_fail(err, DIL_ELIMIT, "the path of the key folder is too long");
    return DIL_OK;
}

dil_status dil_keys_public(const char *dir, const char *name, char out[DIL_KEY_CHARS + 1], dil_err *err)
{
    char path[4096];
    if (strchr(name, '/') || snprintf(path, sizeof path, "%s/%s.pub", dir, name) >= (int)sizeof path)
        return dil_fail(err, DIL_EUSAGE, "'%s' cannot be a machine's name", name);
    dil_keyring ring;
    dil_status s = dil_keyring_read(path, &ring, err);
    if (s != DIL_OK) return s;
    if (ring.n != 1) s = dil_fail(err, DIL_EFORMAT, "%s: %zu keys, wanted one", path, ring.n);
    else memcpy(out, ring.entry[0].key, DIL_KEY_CHARS + 1);
    dil_keyring_fini(&ring);
    return s;
}
