/* A session's way from a LOAD frame to an open stage. The tensors' bytes come from the cache: each tensor is a run of address
 * space into which its chunk files are mapped one behind the other, so the engine reads whole tensors and nothing is copied. What
 * the engine repacked is then dropped from memory; what it uses in place comes back from the page cache by itself. */
#include "net/session.h"

#include "net/part.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const dil__engine dil__engine_real = {dil_stage_open, dil_stage_close, dil_stage_eval, dil_stage_seq_trim, dil_stage_measure, dil_engine_time_layer};

/* --- from the frame ------------------------------------------------------------------------------------------------------- */

const dil_tensor *dil__net_session_tensor(dil__net_session *s, const char *name)
{
    for (uint32_t lo = 0, hi = s->load.n_tensors; lo < hi;) {
        uint32_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, s->load.tensors[mid].name);
        if (c == 0) return &s->load.tensors[mid];
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

static const dil_tensor *find_tensor(void *ctx, const char *name)
{
    return dil__net_session_tensor(ctx, name);
}

static dil_status check_layer(dil__net_session *s, uint32_t layer, dil_err *err)
{
    dil_layer_tensor want[DIL_LAYER_TENSORS_MAX];
    size_t n = dil_arch_layer_tensors(&s->load.arch, layer, want);
    for (size_t i = 0; i < n; i++) {
        const dil_tensor *t = find_tensor(s, want[i].name);
        if (!t) return dil_fail(err, DIL_EFORMAT, "LOAD: layer %u needs tensor %s, which is not announced", layer, want[i].name);
        uint64_t ne1 = want[i].ne[1] ? want[i].ne[1] : 1;
        if (t->ne[0] != want[i].ne[0] || t->ne[1] != ne1 || t->ne[2] != 1 || t->ne[3] != 1)
            return dil_fail(err, DIL_EFORMAT, "LOAD: %s is %llu x %llu, its architecture says %llu x %llu", t->name, (unsigned long long)t->ne[0],
                            (unsigned long long)t->ne[1], (unsigned long long)want[i].ne[0], (unsigned long long)ne1);
    }
    return DIL_OK;
}

static dil_status check_tensors(dil__net_session *s, dil_err *err)
{
    const dil__load *m = &s->load;
    for (uint32_t i = 1; i < m->n_tensors; i++) {
        if (strcmp(m->tensors[i - 1].name, m->tensors[i].name) >= 0)
            return dil_fail(err, DIL_EFORMAT, "LOAD: tensors are not in the order of their names at %s", m->tensors[i].name);
    }
    dil_status st = DIL_OK;
    for (uint32_t p = 0; p < m->n_parts && st == DIL_OK; p++) {
        for (uint32_t l = m->parts[p].first_layer; l <= m->parts[p].last_layer && st == DIL_OK; l++) st = check_layer(s, l, err);
    }
    return st;
}

static dil_status check_keys(const dil__net_session *s, dil_err *err)
{
    for (uint32_t i = 0; s->env->key && i < s->load.n_parts; i++) {
        const dil__load_part *p = &s->load.parts[i];
        if (!p->prev_key[0] || (p->next.address[0] && !p->next.key[0]))
            return dil_fail(err, DIL_EAUTH, "LOAD: stage %u names no keys of its neighbours, and this node is not insecure", p->stage);
    }
    return DIL_OK;
}

static dil_status allocate(dil__net_session *s, dil_err *err)
{
    const dil__load *m = &s->load;
    s->missing = calloc(1, m->n_chunks / 8 + 1);
    s->chunk_tensor = calloc(m->n_tensors + 1, sizeof *s->chunk_tensor);
    s->parts = calloc(m->n_parts, sizeof *s->parts);
    s->spans = calloc(m->n_tensors + 1, sizeof *s->spans);
    if (!s->missing || !s->chunk_tensor || !s->parts || !s->spans) return dil_fail(err, DIL_EMEMORY, "no memory for a session of %u chunks", m->n_chunks);
    for (uint32_t i = 0; i < m->n_tensors; i++)
        s->chunk_tensor[i + 1] = s->chunk_tensor[i] + dil__tensor_chunks(m->tensors[i].bytes, m->chunk_bytes);
    for (uint32_t i = 0; i < m->n_parts; i++) s->parts[i].spec = m->parts[i];
    if (m->wire == DIL_TYPE_F32) return DIL_OK;
    s->wide_in = calloc(m->max_batch, m->arch.n_embd * sizeof *s->wide_in);
    s->wide_out = calloc(m->max_batch, m->arch.n_embd * sizeof *s->wide_out);
    if (!s->wide_in || !s->wide_out) return dil_fail(err, DIL_EMEMORY, "no memory for %u hidden states", m->max_batch);
    return DIL_OK;
}

dil_status dil__net_session_new(const dil__env *env, const dil_frame *f, const char *owner, const dil__id *control, dil__net_session **out, dil_err *err)
{
    dil__net_session *s = calloc(1, sizeof *s);
    if (!s) return dil_fail(err, DIL_EMEMORY, "no memory for a session");
    pthread_mutex_init(&s->lock, NULL);
    dil_buf_init(&s->reply, 1 << 20);
    s->env = env;
    s->id = f->session;
    s->n_refs = 1;
    s->control = *control;
    s->load_hash = dil_hash_of(f->body, f->body_bytes);
    s->state = DIL__SESSION_WAITS;
    if (owner) snprintf(s->owner, sizeof s->owner, "%s", owner);
    s->arena = dil_arena_new((size_t)4 * DIL_FRAME_MAX);
    dil_status st = s->arena ? DIL_OK : dil_fail(err, DIL_EMEMORY, "no memory for a session");
    if (st == DIL_OK) st = dil__msg_get_load(f, s->arena, &s->load, err);
    if (st == DIL_OK) st = check_tensors(s, err);
    if (st == DIL_OK) st = check_keys(s, err);
    if (st == DIL_OK) st = allocate(s, err);
    if (st == DIL_OK) *out = s;
    else dil__net_session_free(s);
    return st;
}

void dil__net_session_free(dil__net_session *s)
{
    if (!s) return;
    for (uint32_t i = 0; s->parts && i < s->load.n_parts; i++) dil__part_close(s, &s->parts[i]);
    for (uint32_t t = 0; s->spans && t < s->load.n_tensors && s->spans[t].at; t++) munmap(s->spans[t].at, s->spans[t].bytes);
    dil__picker_fini(&s->picker);
    dil_buf_fini(&s->reply);
    dil_arena_free(s->arena);
    pthread_mutex_destroy(&s->lock);
    free(s->missing);
    free(s->chunk_tensor);
    free(s->parts);
    free(s->spans);
    free(s->logits);
    free(s->rows);
    free(s->wide_in);
    free(s->wide_out);
    free(s->aligned);
    free(s);
}

/* --- memory ---------------------------------------------------------------------------------------------------------------- */

dil_stage_opts dil__part_opts(const dil__net_session *s, const dil__load_part *p)
{
    const dil__load *m = &s->load;
    return (dil_stage_opts){.device = s->env->device, .n_threads = s->env->n_threads, .first_layer = p->first_layer, .last_layer = p->last_layer,
                            .n_ctx = m->n_ctx, .n_seq = m->n_seq, .max_batch = m->max_batch, .kv_type = m->kv_type, .fixed_shapes = m->fixed_shapes};
}

static uint32_t n_blocks(const dil__net_session *s, const dil__load_part *p)
{
    uint32_t last = s->load.arch.n_blocks; /* block i is layer i + 1 */
    uint32_t from = p->first_layer < 1 ? 1 : p->first_layer, to = p->last_layer > last ? last : p->last_layer;
    return to >= from ? to - from + 1 : 0;
}

/* Buffers count once for the node, as in the plan: its stages compute one after the other. */
dil_status dil__net_session_measure(dil__net_session *s, char text[160], dil_err *err)
{
    uint64_t weights = 0, kv = 0, buffers = 0;
    for (uint32_t i = 0; i < s->load.n_tensors; i++) {
        bool words = strcmp(s->load.tensors[i].name, DIL__WORDS) == 0; /* part of the program's own, as samplers and frames are */
        weights += words ? 0 : s->load.tensors[i].bytes;
    }
    for (uint32_t i = 0; i < s->load.n_parts; i++) {
        const dil__load_part *p = &s->load.parts[i];
        dil_stage_opts o = dil__part_opts(s, p);
        uint64_t per_block, buffer, part_kv;
        dil_status st = s->env->engine->measure(&s->load.arch, &o, &per_block, &buffer, err);
        if (st != DIL_OK) return st;
        uint64_t one = dil_arch_kv_bytes(&s->load.arch, s->load.n_ctx, s->load.kv_type);
        if (!dil_mul_u64(one, (uint64_t)n_blocks(s, p) * s->load.n_seq, &part_kv) || !dil_add_u64(kv, part_kv, &kv))
            return dil_fail(err, DIL_ELIMIT, "the cache of %u sequences of %u tokens has no size", s->load.n_seq, s->load.n_ctx);
        if (buffer > buffers) buffers = buffer;
    }
    uint64_t total;
    if (!dil_add_u64(weights, kv, &total) || !dil_add_u64(total, buffers, &total)) return dil_fail(err, DIL_ELIMIT, "the session has no size");
    s->bytes = total;
    char w[32], k[32], b[32];
    if (text) snprintf(text, 160, "%s of weights, %s of KV cache, %s of buffers", dil_format_bytes(weights, w), dil_format_bytes(kv, k), dil_format_bytes(buffers, b));
    return DIL_OK;
}

/* --- chunks ---------------------------------------------------------------------------------------------------------------- */

static uint32_t tensor_of_chunk(const dil__net_session *s, uint32_t index)
{
    uint32_t lo = 0, hi = s->load.n_tensors - 1;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (s->chunk_tensor[mid] <= index) lo = mid;
        else hi = mid - 1;
    }
    return lo;
}

static uint64_t chunk_bytes(const dil__net_session *s, uint32_t index)
{
    uint32_t t = tensor_of_chunk(s, index);
    uint64_t at = (index - s->chunk_tensor[t]) * s->load.chunk_bytes, left = s->load.tensors[t].bytes - at;
    return left < s->load.chunk_bytes ? left : s->load.chunk_bytes;
}

void dil__net_session_look_up(dil__net_session *s)
{
    for (uint32_t i = 0; i < s->load.n_chunks && !atomic_load(s->env->stopping); i++) {
        bool have = dil__store_check(s->env->store, &s->load.chunks[i], chunk_bytes(s, i));
        pthread_mutex_lock(&s->lock);
        if (!have) {
            s->missing[i / 8] |= (uint8_t)(1u << i % 8);
            s->n_missing++;
        }
        pthread_mutex_unlock(&s->lock);
    }
}

dil_status dil__net_session_chunk(dil__net_session *s, uint32_t index, const void *data, size_t len, uint32_t *n_left, dil_err *err)
{
    if (index >= s->load.n_chunks) return dil_fail(err, DIL_EFORMAT, "CHUNK: number %u of %u", index, s->load.n_chunks);
    if (len != chunk_bytes(s, index))
        return dil_fail(err, DIL_EFORMAT, "CHUNK: number %u has %zu bytes, announced %llu", index, len, (unsigned long long)chunk_bytes(s, index));
    dil_status st = dil__store_put(s->env->store, &s->load.chunks[index], data, len, err);
    if (st != DIL_OK) return st;
    pthread_mutex_lock(&s->lock);
    uint8_t bit = (uint8_t)(1u << index % 8);
    if (s->missing[index / 8] & bit) {
        s->missing[index / 8] &= (uint8_t)~bit;
        s->n_missing--;
    }
    *n_left = s->n_missing;
    pthread_mutex_unlock(&s->lock);
    return DIL_OK;
}

/* --- opening --------------------------------------------------------------------------------------------------------------- */

static dil_status map_chunk(const dil__net_session *s, uint32_t index, uint8_t *at, size_t bytes, dil_err *err)
{
    char path[4096];
    dil__store_path(s->env->store, &s->load.chunks[index], path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return dil_fail_errno(err, "%s", path);
    off_t size = lseek(fd, 0, SEEK_END);
    dil_status st = DIL_OK;
    if (size != (off_t)bytes) st = dil_fail(err, DIL_EIO, "%s: %lld bytes, not %zu: the cache changed under the node", path, (long long)size, bytes);
    else if (mmap(at, bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED) st = dil_fail_errno(err, "%s: mapping %zu bytes", path, bytes);
    close(fd);
    return st;
}

static dil_status map_tensor(dil__net_session *s, uint32_t t, dil__span *out, dil_err *err)
{
    dil_tensor *tensor = &s->load.tensors[t];
    void *base = mmap(NULL, tensor->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return dil_fail_errno(err, "%s: reserving %llu bytes", tensor->name, (unsigned long long)tensor->bytes);
    *out = (dil__span){base, tensor->bytes};
    dil_status st = DIL_OK;
    uint64_t at = 0;
    for (uint64_t c = s->chunk_tensor[t]; c < s->chunk_tensor[t + 1] && st == DIL_OK; c++) {
        uint64_t n = chunk_bytes(s, (uint32_t)c);
        st = map_chunk(s, (uint32_t)c, (uint8_t *)base + at, n, err);
        at += n;
    }
    tensor->data = base;
    return st;
}

static bool go_on(void *ctx, const char *what, double done, double total)
{
    (void)what, (void)done, (void)total;
    return !atomic_load(((dil__net_session *)ctx)->env->stopping);
}

static dil_status open_parts(dil__net_session *s, dil_err *err)
{
    dil_weights w = {find_tensor, s};
    dil_progress p = {go_on, s};
    dil_status st = DIL_OK;
    for (uint32_t i = 0; i < s->load.n_parts && st == DIL_OK; i++) {
        dil_stage_opts o = dil__part_opts(s, &s->parts[i].spec);
        st = s->env->engine->open(&s->load.arch, &w, &o, &p, &s->parts[i].stage, err);
        bool last = s->parts[i].spec.next.address[0] == 0;
        if (st == DIL_OK && last) st = dil__part_open_head(s, err);
    }
    return st;
}

dil_status dil__net_session_open(dil__net_session *s, dil_err *err)
{
    dil_status st = DIL_OK;
    for (uint32_t t = 0; t < s->load.n_tensors && st == DIL_OK; t++) st = map_tensor(s, t, &s->spans[t], err);
    if (st == DIL_OK) st = open_parts(s, err);
    for (uint32_t t = 0; t < s->load.n_tensors && s->spans[t].at; t++) madvise(s->spans[t].at, s->spans[t].bytes, MADV_DONTNEED);
    return st;
}

/* --- state ----------------------------------------------------------------------------------------------------------------- */

void dil__net_session_set_state(dil__net_session *s, dil__net_session_state state, const dil_err *err)
{
    pthread_mutex_lock(&s->lock);
    s->state = state;
    s->err = err ? *err : (dil_err){0};
    pthread_mutex_unlock(&s->lock);
}

void dil__net_session_status(dil__net_session *s, dil__node_status *out)
{
    pthread_mutex_lock(&s->lock);
    out->state = s->state;
    out->chunks_left = s->n_missing;
    out->busy = s->busy;
    out->last_work = s->last_work;
    out->tempo = s->tempo;
    out->err = s->err;
    pthread_mutex_unlock(&s->lock);
}
