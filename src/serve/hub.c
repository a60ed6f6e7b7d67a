/* The hub's two answers that we need: what files a revision has (/api/models/NAME/revision/REV), and where one is and what it
 * hashes to (a HEAD of /NAME/resolve/COMMIT/FILE). Names that come from there become paths here, so they are checked first. */
#include <dilemma/hub.h>

#include "base/json.h"
#include "serve/fetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct hub {
    const dil_pull_opts *o;
    char endpoint[1024], token[4096], cache[3000];
    char repo[256], dir[3400]; /* "org/name"; CACHE/models--org--name */
    char commit[64];
    json_t *doc;
    const char **file; /* [n] of the revision, borrowed from doc */
    uint32_t n;
} hub;

/* --- names ------------------------------------------------------------------------------------------------------------------- */

static bool is_plain(const char *s, size_t n)
{
    if (n == 0 || n > 96 || s[0] == '.' || s[0] == '-') return false;
    for (size_t i = 0; i < n; i++) {
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", s[i])) return false;
    }
    return true;
}

static bool is_repo(const char *s, size_t n)
{
    const char *slash = memchr(s, '/', n);
    return slash && is_plain(s, (size_t)(slash - s)) && is_plain(slash + 1, n - (size_t)(slash - s) - 1);
}

/* A path within a repository that stays within a folder here. */
static bool is_safe_path(const char *s)
{
    size_t n = strlen(s);
    if (n == 0 || n > 512 || s[0] == '/') return false;
    for (const char *p = s; *p;) {
        size_t k = strcspn(p, "/");
        if (k == 0 || (k == 1 && p[0] == '.') || (k == 2 && memcmp(p, "..", 2) == 0)) return false;
        for (size_t i = 0; i < k; i++) {
            if ((unsigned char)p[i] < ' ' || p[i] == '\\' || p[i] == 127) return false;
        }
        p += k + (p[k] == '/');
    }
    return s[n - 1] != '/';
}

static bool is_hex(const char *s, size_t n)
{
    return strlen(s) == n && strspn(s, "0123456789abcdefABCDEF") == n;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcasecmp(s + n - k, end) == 0;
}

static bool has_word(const char *s, const char *word)
{
    size_t k = strlen(word);
    for (; *s; s++) {
        if (strncasecmp(s, word, k) == 0) return true;
    }
    return false;
}

/* For an address: everything that may not stand in a path is escaped, '/' stays. */
static bool escape(const char *s, char *out, size_t cap)
{
    size_t n = 0;
    for (; *s; s++) {
        bool plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || strchr("/._-~", *s);
        if (n + 4 > cap) return false;
        n += (size_t)snprintf(out + n, cap - n, plain ? "%c" : "%%%02X", (unsigned char)*s);
    }
    out[n] = 0;
    return true;
}

/* --- settings ------------------------------------------------------------------------------------------------------------------ */

static bool fits(int n, size_t cap)
{
    return n >= 0 && (size_t)n < cap;
}

static dil_status hf_home(char *out, size_t cap, dil_err *err)
{
    const char *hf = getenv("HF_HOME"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = hf && *hf ? snprintf(out, cap, "%s", hf) : xdg && *xdg ? snprintf(out, cap, "%s/huggingface", xdg) : home && *home ? snprintf(out, cap, "%s/.cache/huggingface", home) : -1;
    return fits(n, cap) ? DIL_OK : dil_fail(err, DIL_ENOTFOUND, "no HF_HOME and no HOME is set: name the cache with --cache");
}

static dil_status read_settings(hub *h, dil_err *err)
{
    const char *env = getenv("HF_ENDPOINT"), *token = h->o->token ? h->o->token : getenv("HF_TOKEN"), *cache = h->o->cache ? h->o->cache : getenv("HF_HUB_CACHE");
    char home[2900] = "";
    bool good = fits(snprintf(h->endpoint, sizeof h->endpoint, "%s", h->o->endpoint ? h->o->endpoint : env && *env ? env : "https://huggingface.co"), sizeof h->endpoint);
    for (size_t n = strlen(h->endpoint); n > 0 && h->endpoint[n - 1] == '/'; n--) h->endpoint[n - 1] = 0;
    dil_status s = cache && *cache ? DIL_OK : hf_home(home, sizeof home, err);
    if (s != DIL_OK) return s;
    good = good && fits(cache && *cache ? snprintf(h->cache, sizeof h->cache, "%s", cache) : snprintf(h->cache, sizeof h->cache, "%s/hub", home), sizeof h->cache);
    if (token) good = good && fits(snprintf(h->token, sizeof h->token, "%s", token), sizeof h->token);
    else if (hf_home(home, sizeof home, NULL) == DIL_OK) {
        char path[2920];
        dil_buf b;
        snprintf(path, sizeof path, "%s/token", home);
        dil_buf_init(&b, sizeof h->token - 1);
        if (dil_file_read(path, &b, NULL) == DIL_OK) snprintf(h->token, sizeof h->token, "%s", dil_buf_str(&b));
        dil_buf_fini(&b);
    }
    h->token[strcspn(h->token, "\r\n \t")] = 0;
    return good ? DIL_OK : dil_fail(err, DIL_ELIMIT, "HF_ENDPOINT, HF_TOKEN or the cache's path is too long");
}

/* --- the revision ---------------------------------------------------------------------------------------------------------------- */

static dil_status list_files(hub *h, dil_err *err)
{
    char url[2048], rev[512];
    dil_buf b;
    if (!escape(h->o->revision ? h->o->revision : "main", rev, sizeof rev)) return dil_fail(err, DIL_EUSAGE, "the revision's name is too long");
    snprintf(url, sizeof url, "%s/api/models/%s/revision/%s", h->endpoint, h->repo, rev);
    dil_buf_init(&b, DIL_FETCH_TEXT_MAX);
    dil_status s = dil__fetch_text(url, h->token, &b, err);
    if (s == DIL_OK) s = dil__json_parse(url, dil_buf_str(&b), b.len, &h->doc, err);
    dil_buf_fini(&b);
    if (s != DIL_OK) return s;
    const char *sha = json_string_value(json_object_get(h->doc, "sha"));
    const json_t *list = json_object_get(h->doc, "siblings");
    if (!sha || !is_hex(sha, 40)) return dil_fail(err, DIL_EFORMAT, "%s: the answer names no commit", url);
    if (json_array_size(list) > DIL_HUB_FILES_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu files, at most %d", h->repo, json_array_size(list), DIL_HUB_FILES_MAX);
    snprintf(h->commit, sizeof h->commit, "%s", sha);
    h->file = calloc(json_array_size(list) + 1, sizeof *h->file);
    if (!h->file) return dil_fail(err, DIL_EMEMORY, "no memory for the list of files");
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v) {
        const char *name = json_string_value(json_object_get(v, "rfilename"));
        if (name && is_safe_path(name)) h->file[h->n++] = name;
    }
    return DIL_OK;
}

static bool is_part_of_split(const char *name)
{
    const char *of = strstr(name, "-of-");
    return of && of - name >= 6 && strspn(of - 5, "0123456789") == 5 && strspn(of + 4, "0123456789") >= 5;
}

/* The GGUF files that the word fits; NULL: all. An exact name wins over a word in a name. */
static uint32_t find_gguf(const hub *h, const char *word, const char **found)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < h->n; i++) {
        if (!ends_with(h->file[i], ".gguf")) continue;
        if (word && strcmp(h->file[i], word) == 0) {
            *found = h->file[i];
            return 1;
        }
        if (word && !has_word(h->file[i], word)) continue;
        if (n++ == 0) *found = h->file[i];
    }
    return n;
}

static dil_status say_which(const hub *h, const char *word, dil_status code, dil_err *err)
{
    char list[360] = "";
    size_t n = 0;
    for (uint32_t i = 0; i < h->n && n < sizeof list - 1; i++) {
        if (!ends_with(h->file[i], ".gguf") || (code == DIL_EUSAGE && word && !has_word(h->file[i], word))) continue;
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", h->file[i]);
    }
    if (code == DIL_EUSAGE) return dil_fail(err, code, "%s has several: name one, %s:FILE, of %s", h->repo, h->repo, list);
    return dil_fail(err, code, "%s has no GGUF file '%s'%s%s", h->repo, word, list[0] ? "; it has " : "", list);
}

static bool belongs_to_checkpoint(const char *name, bool safetensors)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
                                        "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json"};
    if (strchr(name, '/')) return false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) return true;
    }
    if (safetensors) return ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json");
    return strncmp(name, "pytorch_model", 13) == 0;
}

/* --- one file ---------------------------------------------------------------------------------------------------------------------- */

static dil_status make_parent(const char *path, dil_err *err)
{
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash) *slash = 0;
    return slash ? dil_mkdirs(dir, err) : DIL_OK;
}

/* snapshots/COMMIT/a/b.gguf -> ../../../blobs/HASH; replaced in one step. */
static dil_status link_snapshot(const hub *h, const char *name, const char *etag, const char *path, dil_err *err)
{
    char target[512], fresh[4200];
    size_t n = 0;
    for (const char *p = name; *p; p++) {
        if (*p == '/' && n + 4 < sizeof target) n += (size_t)snprintf(target + n, sizeof target - n, "../");
    }
    snprintf(target + n, sizeof target - n, "../../blobs/%s", etag);
    snprintf(fresh, sizeof fresh, "%s.%ld", path, (long)getpid());
    (void)h;
    dil_status s = make_parent(path, err);
    if (s != DIL_OK) return s;
    unlink(fresh);
    if (symlink(target, fresh) != 0 || rename(fresh, path) != 0) return dil_fail_errno(err, "%s", path);
    return DIL_OK;
}

static dil_status pull_file(hub *h, const char *name, dil_pulled *out, dil_err *err)
{
    char escaped[2048], url[4000], path[4096], blob[4096];
    dil__fetch_head head;
    if (!escape(name, escaped, sizeof escaped) || !fits(snprintf(path, sizeof path, "%s/snapshots/%s/%s", h->dir, h->commit, name), sizeof path))
        return dil_fail(err, DIL_ELIMIT, "%s: the name is too long", name);
    out->n_files++;
    if (access(path, R_OK) == 0) return DIL_OK; /* a link to a whole blob: they get their names when they are whole */
    snprintf(url, sizeof url, "%s/%s/resolve/%s/%s", h->endpoint, h->repo, h->commit, escaped);
    dil_status s = dil__fetch_head_of(url, h->token, true, &head, err);
    if (s != DIL_OK) return s;
    const char *etag = head.linked_etag[0] ? head.linked_etag : head.etag;
    bool hashed = is_hex(etag, 64) || is_hex(etag, 40);
    if (!hashed && !is_plain(etag, strlen(etag))) return dil_fail(err, DIL_EFORMAT, "%s: the hub names no hash for it (ETag '%.40s')", name, etag);
    if (!hashed) dil_log(DIL_LOG_WARN, "pull", "%s: the hub tells no hash of it; it is not checked", name);
    snprintf(blob, sizeof blob, "%s/blobs/%s", h->dir, etag);
    if (access(blob, R_OK) != 0) {
        s = make_parent(blob, err);
        dil__fetch_opts f = {.url = url, .token = h->token, .path = blob, .size = head.size, .etag = etag, .hash = hashed ? etag : NULL,
                             .n_connections = h->o->n_connections, .chunk_bytes = h->o->chunk_bytes, .progress = h->o->progress, .what = name};
        if (s == DIL_OK) s = dil__fetch(&f, err);
        struct stat st;
        if (s == DIL_OK && stat(blob, &st) == 0) out->n_bytes += (uint64_t)st.st_size;
        out->n_fetched += s == DIL_OK;
    }
    return s == DIL_OK ? link_snapshot(h, name, etag, path, err) : s;
}

static dil_status write_ref(const hub *h, dil_err *err)
{
    char path[4096];
    const char *rev = h->o->revision ? h->o->revision : "main";
    if (is_hex(rev, 40) || !is_safe_path(rev)) return DIL_OK;
    snprintf(path, sizeof path, "%s/refs/%s", h->dir, rev);
    dil_status s = make_parent(path, err);
    return s == DIL_OK ? dil_file_write(path, h->commit, strlen(h->commit), err) : s;
}

/* --- what there is to pull --------------------------------------------------------------------------------------------------------- */

static dil_status pull_checkpoint(hub *h, dil_pulled *out, dil_err *err)
{
    bool safetensors = false, weights = false, config = false;
    for (uint32_t i = 0; i < h->n; i++) safetensors |= !strchr(h->file[i], '/') && ends_with(h->file[i], ".safetensors");
    for (uint32_t i = 0; i < h->n; i++) {
        weights |= safetensors || strncmp(h->file[i], "pytorch_model", 13) == 0;
        config |= strcmp(h->file[i], "config.json") == 0;
    }
    if (!weights || !config) return dil_fail(err, DIL_ENOTFOUND, "%s has no GGUF file, and no config.json with weights to convert", h->repo);
    dil_status s = DIL_OK;
    for (uint32_t i = 0; s == DIL_OK && i < h->n; i++) {
        if (belongs_to_checkpoint(h->file[i], safetensors)) s = pull_file(h, h->file[i], out, err);
    }
    out->is_checkpoint = true;
    snprintf(out->path, sizeof out->path, "%s/snapshots/%s", h->dir, h->commit);
    return s;
}

static dil_status pull_repo(hub *h, const char *word, dil_pulled *out, dil_err *err)
{
    const char *name = NULL;
    char mangled[256];
    snprintf(mangled, sizeof mangled, "%s", h->repo);
    char *slash = strchr(mangled, '/');
    *slash = 0;
    if (!fits(snprintf(h->dir, sizeof h->dir, "%s/models--%s--%s", h->cache, mangled, slash + 1), sizeof h->dir)) return dil_fail(err, DIL_ELIMIT, "the cache's path is too long");
    dil_status s = list_files(h, err);
    if (s != DIL_OK) return s;
    uint32_t n = find_gguf(h, word, &name);
    if (n == 0 && word) return say_which(h, word, DIL_ENOTFOUND, err);
    if (n > 0 && is_part_of_split(name)) return dil_fail(err, DIL_EUNSUPPORTED, "%s: a model split over several GGUF files is not supported; merge it with llama.cpp's llama-gguf-split", name);
    if (n > 1) return say_which(h, word, DIL_EUSAGE, err);
    if (n == 1) {
        s = pull_file(h, name, out, err);
        snprintf(out->path, sizeof out->path, "%s/snapshots/%s/%s", h->dir, h->commit, name);
    } else s = pull_checkpoint(h, out, err);
    if (s == DIL_OK) s = write_ref(h, err);
    snprintf(out->commit, sizeof out->commit, "%s", h->commit);
    return s;
}

static dil_status pull_address(hub *h, const char *url, dil_pulled *out, dil_err *err)
{
    char name[256];
    size_t end = strcspn(url, "?#"), start = end;
    while (start > 0 && url[start - 1] != '/') start--;
    snprintf(name, sizeof name, "%.*s", (int)(end - start), url + start);
    if (!h->o->out && !is_plain(name, strlen(name))) return dil_fail(err, DIL_EUSAGE, "%.200s: no file name to take from it; say one with -o", url);
    snprintf(out->path, sizeof out->path, "%s", h->o->out ? h->o->out : name);
    out->n_files = 1;
    if (!h->o->sha256 && access(out->path, F_OK) == 0) return dil_fail(err, DIL_EUSAGE, "%s: exists; say another name with -o", out->path);
    char hex[65];
    if (h->o->sha256 && !is_hex(h->o->sha256, 64)) return dil_fail(err, DIL_EUSAGE, "'%.80s' is no SHA-256: 64 hex digits", h->o->sha256);
    if (h->o->sha256 && dil__file_sha256(out->path, NULL, hex, NULL) == DIL_OK && strcasecmp(hex, h->o->sha256) == 0) return DIL_OK;
    dil__fetch_head head;
    const char *token = strncmp(url, h->endpoint, strlen(h->endpoint)) == 0 && url[strlen(h->endpoint)] == '/' ? h->token : NULL; /* the hub's alone */
    dil_status s = dil__fetch_head_of(url, token, false, &head, err);
    if (s == DIL_ENET && head.status >= 400) { /* some servers have no HEAD */
        head = (dil__fetch_head){.size = DIL_FETCH_UNKNOWN};
        s = DIL_OK;
    }
    if (s != DIL_OK) return s;
    dil__fetch_opts f = {.url = url, .token = token, .path = out->path, .size = head.size, .etag = head.etag, .hash = h->o->sha256,
                         .n_connections = h->o->n_connections, .chunk_bytes = h->o->chunk_bytes, .progress = h->o->progress, .what = name};
    s = dil__fetch(&f, err);
    struct stat st;
    if (s == DIL_OK && stat(out->path, &st) == 0) out->n_bytes = (uint64_t)st.st_size;
    out->n_fetched = s == DIL_OK;
    return s;
}

/* ENDPOINT/org/name/resolve/REV/FILE, or "blob" or "raw" in its place: a page's address copied from a browser. */
static bool is_hub_address(hub *h, const char *url, char rev[256], char file[1024])
{
    size_t n = strlen(h->endpoint);
    if (strncmp(url, h->endpoint, n) != 0 || url[n] != '/') return false;
    const char *p = url + n + 1, *slash = strchr(p, '/'), *end = slash ? strchr(slash + 1, '/') : NULL;
    size_t repo = end ? (size_t)(end - p) : strcspn(p, "?#");
    if (!slash || !is_repo(p, repo) || repo >= sizeof h->repo) return false;
    snprintf(h->repo, sizeof h->repo, "%.*s", (int)repo, p);
    rev[0] = file[0] = 0;
    if (!end || !end[1]) return true;
    return sscanf(end + 1, "resolve/%255[^/]/%1023[^?#]", rev, file) == 2 || sscanf(end + 1, "blob/%255[^/]/%1023[^?#]", rev, file) == 2 ||
           sscanf(end + 1, "raw/%255[^/]/%1023[^?#]", rev, file) == 2 || sscanf(end + 1, "tree/%255[^/?#]", rev) == 1;
}

dil_status dil_pull(const char *what, const dil_pull_opts *o, dil_pulled *out, dil_err *err)
{
    static const dil_pull_opts none = {0};
    hub *h = calloc(1, sizeof *h);
    if (!h) return dil_fail(err, DIL_EMEMORY, "no memory");
    h->o = o ? o : &none;
    dil_pull_opts with_rev = *h->o;
    dil_pulled got = {0};
    char rev[256], file[1024];
    const char *word = strchr(what, ':');
    size_t n = word ? (size_t)(word - what) : strlen(what);
    dil_status s = read_settings(h, err);
    if (s != DIL_OK) {
        free(h);
        return s;
    }
    if (strstr(what, "://")) {
        if (is_hub_address(h, what, rev, file) && !h->o->out) {
            if (rev[0]) with_rev.revision = rev;
            h->o = &with_rev;
            s = pull_repo(h, file[0] ? file : NULL, &got, err);
        } else s = pull_address(h, what, &got, err);
    } else if (is_repo(what, n) && n < sizeof h->repo && (!word || word[1])) {
        snprintf(h->repo, sizeof h->repo, "%.*s", (int)n, what);
        s = pull_repo(h, word ? word + 1 : NULL, &got, err);
    } else s = dil_fail(err, DIL_EUSAGE, "'%.200s' is neither ORG/NAME[:FILE] nor an address", what);
    json_decref(h->doc);
    free(h->file);
    free(h);
    if (s == DIL_OK) *out = got;
    return s;
}
