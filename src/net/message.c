/* Encoders and decoders of the control messages. Each decoder reads all its fields in order and asks once at the end whether
 * the bytes sufficed; what ranges mean is checked here, what they mean for a model by the node. */
#include "net/message.h"

#include "base/wire.h"

#include <math.h>
#include <string.h>

static dil_status malformed(dil_err *err, const dil_frame *f, const char *what)
{
    return dil_fail(err, DIL_EFORMAT, "%s: %s", dil_frame_type_name(f->type), what);
}

static dil_status finish(const dil_rd *r, const dil_frame *f, dil_err *err)
{
    if (dil_rd_done(r)) return DIL_OK;
    return malformed(err, f, r->failed ? "a field does not fit or is out of range" : "bytes are left over");
}

static bool is_positive(double v)
{
    return isfinite(v) && v > 0;
}

bool dil__msg_empty(dil_buf *b, dil_frame_type type, uint64_t session, uint64_t id, uint32_t epoch)
{
    dil_frame_begin(b, type, session, id, epoch);
    return dil_frame_end(b);
}

static void put_err(dil_buf *b, const dil_err *e)
{
    dil_put_u16(b, (uint16_t)e->code);
    dil_put_str(b, e->text);
}

static void get_err(dil_rd *r, dil_err *out)
{
    char text[DIL_ERR_TEXT_MAX];
    uint16_t code = dil_get_u16(r);
    dil_get_str(r, text, sizeof text);
    if (code >= DIL_N_STATUS) r->failed = true;
    dil_fail(out, (dil_status)code, "%s", text); /* flattens control characters of the peer's text */
}

bool dil__msg_error(dil_buf *b, dil_frame_type type, uint64_t session, uint64_t id, uint32_t epoch, const dil_err *e)
{
    dil_frame_begin(b, type, session, id, epoch);
    put_err(b, e);
    return dil_frame_end(b);
}

dil_status dil__msg_get_error(const dil_frame *f, dil_err *out)
{
    dil_rd r = dil_frame_body(f);
    get_err(&r, out);
    if (dil_rd_done(&r) && out->code != DIL_OK) return DIL_OK;
    return malformed(out, f, "not an error's code and text");
}

/* --- who are you --------------------------------------------------------------------------------------------------------- */

bool dil__msg_hello(dil_buf *b, uint64_t id, uint64_t run, uint64_t model)
{
    dil_frame_begin(b, DIL_FRAME_HELLO, 0, id, 0);
    dil_put_u64(b, run);
    dil_put_u64(b, model);
    return dil_frame_end(b);
}

dil_status dil__msg_get_hello(const dil_frame *f, bool *named, uint64_t *run, uint64_t *model, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    *named = f->body_bytes > 0;
    *run = *named ? dil_get_u64(&r) : 0;
    *model = *named ? dil_get_u64(&r) : 0;
    return finish(&r, f, err);
}

bool dil__msg_info(dil_buf *b, uint64_t id, const dil_node_info *m)
{
    dil_frame_begin(b, DIL_FRAME_INFO, 0, id, 0);
    dil_put_str(b, m->version);
    dil_put_str(b, m->device);
    dil_put_str(b, m->cpu);
    dil_put_u64(b, m->memory_bytes);
    dil_put_u64(b, m->memory_free);
    dil_put_u32(b, m->threads);
    dil_put_f64(b, m->throttle);
    return dil_frame_end(b);
}

dil_status dil__msg_get_info(const dil_frame *f, dil_node_info *out, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    dil_node_info m = {0};
    dil_get_str(&r, m.version, sizeof m.version);
    dil_get_str(&r, m.device, sizeof m.device);
    dil_get_str(&r, m.cpu, sizeof m.cpu);
    m.memory_bytes = dil_get_u64(&r);
    m.memory_free = dil_get_u64(&r);
    m.threads = dil_get_u32(&r);
    m.throttle = dil_get_f64(&r);
    dil_status s = finish(&r, f, err);
    if (s == DIL_OK && !(isfinite(m.throttle) && m.throttle >= 1)) s = malformed(err, f, "the throttle is below 1");
    if (s == DIL_OK) *out = m;
    return s;
}

/* --- the architecture ------------------------------------------------------------------------------------------------------ */

/* A new field of dil_arch belongs into both functions; this number is what reminds of it. */
_Static_assert(sizeof(dil_arch) == 164, "dil_arch changed: put_arch and get_arch must follow");

static void put_arch(dil_buf *b, const dil_arch *a)
{
    dil_put_u8(b, (uint8_t)a->family);
    dil_put_str(b, a->name);
    const uint32_t dims[] = {a->n_blocks, a->n_embd, a->n_embd_word, a->n_ff, a->n_head, a->n_head_kv, a->head_dim, a->n_vocab,
                             a->n_ctx_train, a->position_offset, a->rope_dims, a->rope_ctx, a->no_rope_period, a->window, a->window_period};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) dil_put_u32(b, dims[i]);
    dil_put_u8(b, (uint8_t)a->norm);
    dil_put_u8(b, (uint8_t)a->positions);
    dil_put_u8(b, (uint8_t)a->act);
    const float reals[] = {a->norm_eps, a->rope_freq_base, a->rope_scale, a->rope_gain, a->window_rope_base, a->window_rope_scale,
                           a->attn_scale, a->attn_softcap, a->final_softcap, a->embd_scale};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) dil_put_f32(b, reals[i]);
    const bool flags[] = {a->norm_before, a->final_norm, a->post_norms, a->qk_norm, a->rope_freqs, a->rope_long, a->gated_ffn,
                          a->fused_qkv, a->fused_gate_up, a->qkv_bias, a->out_bias, a->ffn_bias, a->tied_head};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) dil_put_u8(b, flags[i]);
}

static uint32_t get_dim(dil_rd *r, uint32_t min, uint32_t max)
{
    uint32_t v = dil_get_u32(r);
    if (v < min || v > max) r->failed = true;
    return v;
}

static uint8_t get_enum(dil_rd *r, unsigned last)
{
    uint8_t v = dil_get_u8(r);
    if (v > last) r->failed = true;
    return v;
}

static float get_finite(dil_rd *r)
{
    float v = dil_get_f32(r);
    if (!isfinite(v) || v < 0) r->failed = true;
    return v;
}

static bool heads_are_consistent(const dil_arch *a)
{
    return a->n_head % a->n_head_kv == 0 && (uint64_t)a->n_head * a->head_dim <= DIL_ARCH_WIDTH_MAX && a->rope_dims <= a->head_dim &&
           a->rope_dims % 2 == 0 && a->norm_eps > 0;
}

static void get_arch(dil_rd *r, dil_arch *out)
{
    dil_arch a = {.family = (dil_family)get_enum(r, DIL_FAMILY_LAST)};
    dil_get_str(r, a.name, sizeof a.name);
    a.n_blocks = get_dim(r, 1, DIL_ARCH_BLOCKS_MAX);
    a.n_embd = get_dim(r, 1, DIL_ARCH_WIDTH_MAX);
    a.n_embd_word = get_dim(r, 1, DIL_ARCH_WIDTH_MAX);
    a.n_ff = get_dim(r, 1, DIL_ARCH_WIDTH_MAX);
    a.n_head = get_dim(r, 1, DIL_ARCH_HEADS_MAX);
    a.n_head_kv = get_dim(r, 1, DIL_ARCH_HEADS_MAX);
    a.head_dim = get_dim(r, 1, DIL_ARCH_WIDTH_MAX);
    a.n_vocab = get_dim(r, 1, DIL_ARCH_VOCAB_MAX);
    a.n_ctx_train = get_dim(r, 1, DIL_ARCH_CTX_MAX);
    a.position_offset = get_dim(r, 0, 1024);
    a.rope_dims = get_dim(r, 0, DIL_ARCH_WIDTH_MAX);
    a.rope_ctx = get_dim(r, 0, DIL_ARCH_CTX_MAX);
    a.no_rope_period = get_dim(r, 0, DIL_ARCH_BLOCKS_MAX);
    a.window = get_dim(r, 0, DIL_ARCH_CTX_MAX);
    a.window_period = get_dim(r, 0, DIL_ARCH_BLOCKS_MAX);
    a.norm = (dil_norm)get_enum(r, DIL_NORM_LAYER);
    a.positions = (dil_positions)get_enum(r, DIL_POS_LEARNED);
    a.act = (dil_act)get_enum(r, DIL_ACT_GELU_TANH);
    float *reals[] = {&a.norm_eps, &a.rope_freq_base, &a.rope_scale, &a.rope_gain, &a.window_rope_base, &a.window_rope_scale,
                      &a.attn_scale, &a.attn_softcap, &a.final_softcap, &a.embd_scale};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) *reals[i] = get_finite(r);
    bool *flags[] = {&a.norm_before, &a.final_norm, &a.post_norms, &a.qk_norm, &a.rope_freqs, &a.rope_long, &a.gated_ffn,
                     &a.fused_qkv, &a.fused_gate_up, &a.qkv_bias, &a.out_bias, &a.ffn_bias, &a.tied_head};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) *flags[i] = dil_get_bool(r);
    if (!r->failed && !heads_are_consistent(&a)) r->failed = true;
    if (!r->failed) *out = a;
}

/* --- measuring ----------------------------------------------------------------------------------------------------------- */

bool dil__msg_time_layer(dil_buf *b, uint64_t id, const dil__time_layer *m)
{
    dil_frame_begin(b, DIL_FRAME_TIME_LAYER, 0, id, 0);
    put_arch(b, &m->arch);
    dil_put_u32(b, m->layer);
    dil_put_u32(b, m->n_past);
    dil_put_u32(b, m->n_batch);
    dil_put_f64(b, m->limit_sec);
    dil_put_u32(b, m->n_types);
    for (uint32_t i = 0; i < m->n_types; i++) dil_put_i32(b, m->types[i]);
    return dil_frame_end(b);
}

static dil_type get_type(dil_rd *r)
{
    dil_type t = dil_get_i32(r);
    if (!dil_type_get(t)) r->failed = true;
    return t;
}

dil_status dil__msg_get_time_layer(const dil_frame *f, dil__time_layer *out, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    dil__time_layer m = {0};
    get_arch(&r, &m.arch);
    m.layer = dil_get_u32(&r);
    m.n_past = get_dim(&r, 0, 1 << 20);
    m.n_batch = get_dim(&r, 1, DIL__WORK_TOKENS_MAX);
    m.limit_sec = dil_get_f64(&r);
    m.n_types = dil_get_count(&r, DIL_LAYER_TENSORS_MAX, 4);
    for (uint32_t i = 0; i < m.n_types; i++) m.types[i] = get_type(&r);
    dil_status s = finish(&r, f, err);
    if (s == DIL_OK && m.layer >= dil_arch_n_layers(&m.arch)) s = malformed(err, f, "no such layer");
    if (s == DIL_OK && !is_positive(m.limit_sec)) s = malformed(err, f, "the time limit is not positive");
    if (s == DIL_OK) *out = m;
    return s;
}

bool dil__msg_times(dil_buf *b, uint64_t id, const dil_layer_time *m)
{
    dil_frame_begin(b, DIL_FRAME_TIMES, 0, id, 0);
    dil_put_f64(b, m->decode_sec);
    dil_put_f64(b, m->prefill_sec);
    dil_put_f64(b, m->decode_spread);
    dil_put_f64(b, m->prefill_spread);
    return dil_frame_end(b);
}

dil_status dil__msg_get_times(const dil_frame *f, dil_layer_time *out, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    dil_layer_time m = {0};
    m.decode_sec = dil_get_f64(&r);
    m.prefill_sec = dil_get_f64(&r);
    m.decode_spread = dil_get_f64(&r);
    m.prefill_spread = dil_get_f64(&r);
    dil_status s = finish(&r, f, err);
    if (s == DIL_OK && !(is_positive(m.decode_sec) && is_positive(m.prefill_sec))) s = malformed(err, f, "a time is not positive");
    if (s == DIL_OK) *out = m;
    return s;
}

static void put_zeros(dil_buf *b, uint32_t n)
{
    static const uint8_t zeros[4096];
    for (uint32_t left = n; left;) {
        uint32_t now = left < sizeof zeros ? left : (uint32_t)sizeof zeros;
        dil_put_bytes(b, zeros, now);
        left -= now;
    }
}

bool dil__msg_echo(dil_buf *b, uint64_t id, uint32_t reply_bytes, uint32_t payload_bytes)
{
    dil_frame_begin(b, DIL_FRAME_ECHO, 0, id, 0);
    dil_put_u32(b, reply_bytes);
    put_zeros(b, payload_bytes);
    return dil_frame_end(b);
}

dil_status dil__msg_get_echo(const dil_frame *f, uint32_t *reply_bytes, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    uint32_t n = dil_get_u32(&r);
    if (n > DIL__ECHO_MAX && n != UINT32_MAX) r.failed = true;
    dil_get_bytes(&r, r.left);
    dil_status s = finish(&r, f, err);
    if (s == DIL_OK) *reply_bytes = n;
    return s;
}

bool dil__msg_echo_reply(dil_buf *b, uint64_t id, uint32_t payload_bytes)
{
    dil_frame_begin(b, DIL_FRAME_ECHO_REPLY, 0, id, 0);
    put_zeros(b, payload_bytes);
    return dil_frame_end(b);
}

/* A key is empty or valid. */
static void get_key(dil_rd *r, char out[DIL_KEY_CHARS + 1], bool may_be_empty)
{
    dil_get_str(r, out, DIL_KEY_CHARS + 1);
    if (!(out[0] == 0 && may_be_empty) && !dil_key_is_valid(out)) r->failed = true;
}

bool dil__msg_admit(dil_buf *b, uint64_t id, uint32_t seconds, const char (*keys)[DIL_KEY_CHARS + 1], uint32_t n)
{
    dil_frame_begin(b, DIL_FRAME_ADMIT, 0, id, 0);
    dil_put_u32(b, seconds);
    dil_put_u32(b, n);
    for (uint32_t i = 0; i < n; i++) dil_put_str(b, keys[i]);
    return dil_frame_end(b);
}

dil_status dil__msg_get_admit(const dil_frame *f, dil_arena *a, uint32_t *seconds, char (**keys)[DIL_KEY_CHARS + 1], uint32_t *n, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    uint32_t sec = get_dim(&r, 1, 86400), count = dil_get_count(&r, DIL__ADMIT_MAX, 2 + DIL_KEY_CHARS);
    char (*k)[DIL_KEY_CHARS + 1] = dil_arena_push(a, count + 1, sizeof *k);
    if (!k) return dil_fail(err, DIL_EMEMORY, "ADMIT: no memory for %u keys", count);
    for (uint32_t i = 0; i < count; i++) get_key(&r, k[i], false);
    dil_status s = finish(&r, f, err);
    if (s != DIL_OK) return s;
    *seconds = sec;
    *keys = k;
    *n = count;
    return DIL_OK;
}

static void put_peer(dil_buf *b, const dil__peer *p)
{
    dil_put_str(b, p->address);
    dil_put_str(b, p->key);
}

static void get_peer(dil_rd *r, dil__peer *p)
{
    dil_get_str(r, p->address, sizeof p->address);
    get_key(r, p->key, true);
}

bool dil__msg_probe_link(dil_buf *b, uint64_t id, const dil__peer *peer, double limit_sec)
{
    dil_frame_begin(b, DIL_FRAME_PROBE_LINK, 0, id, 0);
    put_peer(b, peer);
    dil_put_f64(b, limit_sec);
    return dil_frame_end(b);
}

dil_status dil__msg_get_probe_link(const dil_frame *f, dil__peer *peer, double *limit_sec, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    dil__peer p = {0};
    get_peer(&r, &p);
    double limit = dil_get_f64(&r);
    dil_status s = finish(&r, f, err);
    if (s == DIL_OK && (!p.address[0] || !(is_positive(limit) && limit <= 600))) s = malformed(err, f, "no address, or a limit outside 0 to 600 s");
    if (s != DIL_OK) return s;
    *peer = p;
    *limit_sec = limit;
    return DIL_OK;
}

bool dil__msg_link(dil_buf *b, uint64_t id, const dil_node_link *m)
{
    dil_frame_begin(b, DIL_FRAME_LINK, 0, id, 0);
    dil_put_f64(b, m->rtt_sec);
    dil_put_f64(b, m->bytes_per_sec);
    dil_put_f64(b, m->rtt_spread);
    dil_put_u32(b, m->n_echoes);
    return dil_frame_end(b);
}

dil_status dil__msg_get_link(const dil_frame *f, dil_node_link *out, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    dil_node_link m = {0};
    m.rtt_sec = dil_get_f64(&r);
    m.bytes_per_sec = dil_get_f64(&r);
    m.rtt_spread = dil_get_f64(&r);
    m.n_echoes = dil_get_u32(&r);
    dil_status s = finish(&r, f, err);
    if (s == DIL_OK && !(is_positive(m.rtt_sec) && is_positive(m.bytes_per_sec))) s = malformed(err, f, "a speed is not positive");
    if (s == DIL_OK) *out = m;
    return s;
}

/* --- loading --------------------------------------------------------------------------------------------------------------- */

uint32_t dil__tensor_chunks(uint64_t tensor_bytes, uint32_t chunk_bytes)
{
    uint64_t n = tensor_bytes / chunk_bytes + (tensor_bytes % chunk_bytes != 0);
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void put_part(dil_buf *b, const dil__load_part *p)
{
    dil_put_u32(b, p->stage);
    dil_put_u32(b, p->first_layer);
    dil_put_u32(b, p->last_layer);
    dil_put_str(b, p->prev_key);
    put_peer(b, &p->next);
}

static void put_tensor(dil_buf *b, const dil_tensor *t)
{
    dil_put_str(b, t->name);
    dil_put_i32(b, t->type);
    dil_put_u8(b, (uint8_t)t->n_dims);
    for (uint32_t i = 0; i < t->n_dims; i++) dil_put_u64(b, t->ne[i]);
}

bool dil__msg_load(dil_buf *b, uint64_t session, uint64_t id, const dil__load *m)
{
    dil_frame_begin(b, DIL_FRAME_LOAD, session, id, 0);
    put_arch(b, &m->arch);
    dil_put_u32(b, m->n_ctx);
    dil_put_u32(b, m->n_seq);
    dil_put_u32(b, m->max_batch);
    dil_put_u32(b, m->n_stages);
    dil_put_i32(b, m->kv_type);
    dil_put_u8(b, m->fixed_shapes);
    dil_put_i32(b, m->wire);
    dil_put_u8(b, m->replace);
    dil_put_u64(b, m->run);
    dil_put_u64(b, m->model);
    dil_put_u8(b, m->fetch_only);
    dil_put_u32(b, m->chunk_bytes);
    dil_put_u32(b, m->n_parts);
    for (uint32_t i = 0; i < m->n_parts; i++) put_part(b, &m->parts[i]);
    dil_put_u32(b, m->n_tensors);
    for (uint32_t i = 0; i < m->n_tensors; i++) put_tensor(b, &m->tensors[i]);
    dil_put_u32(b, m->n_chunks);
    for (uint32_t i = 0; i < m->n_chunks; i++) dil_put_bytes(b, m->chunks[i].bytes, DIL_HASH_BYTES);
    return dil_frame_end(b);
}

static void get_part(dil_rd *r, const dil__load *m, dil__load_part *p)
{
    p->stage = get_dim(r, 0, m->n_stages ? m->n_stages - 1 : 0);
    p->first_layer = get_dim(r, 0, dil_arch_n_layers(&m->arch) - 1);
    p->last_layer = get_dim(r, p->first_layer, dil_arch_n_layers(&m->arch) - 1);
    get_key(r, p->prev_key, true);
    get_peer(r, &p->next);
    bool last = p->last_layer == dil_arch_n_layers(&m->arch) - 1;
    if (last != (p->stage + 1 == m->n_stages) || last != (p->next.address[0] == 0)) r->failed = true;
    if ((p->stage == 0) != (p->first_layer == 0)) r->failed = true;
}

static bool tensor_size(dil_tensor *t)
{
    uint64_t rows = 1, row;
    if (t->ne[0] == 0 || !dil_type_row_bytes(t->type, t->ne[0], &row)) return false;
    for (uint32_t i = 1; i < DIL_TENSOR_DIMS; i++) {
        if (t->ne[i] == 0 || !dil_mul_u64(rows, t->ne[i], &rows)) return false;
    }
    return dil_mul_u64(rows, row, &t->bytes) && t->bytes > 0 && t->bytes <= (UINT64_C(1) << 44);
}

static void get_tensor(dil_rd *r, dil_tensor *t)
{
    dil_get_str(r, t->name, sizeof t->name);
    t->type = get_type(r);
    t->n_dims = dil_get_u8(r);
    if (t->n_dims < 1 || t->n_dims > DIL_TENSOR_DIMS) {
        r->failed = true;
        return;
    }
    for (uint32_t i = 0; i < DIL_TENSOR_DIMS; i++) t->ne[i] = i < t->n_dims ? dil_get_u64(r) : 1;
    if (!r->failed && !tensor_size(t)) r->failed = true;
}

static dil_status check_chunk_count(const dil_frame *f, const dil__load *m, dil_err *err)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) n += dil__tensor_chunks(m->tensors[i].bytes, m->chunk_bytes);
    return n == m->n_chunks ? DIL_OK : malformed(err, f, "the hashes do not cover the tensors");
}

dil_status dil__msg_get_load(const dil_frame *f, dil_arena *a, dil__load *out, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    dil__load m = {0};
    get_arch(&r, &m.arch);
    if (r.failed) return malformed(err, f, "the architecture is malformed or out of range");
    m.n_ctx = get_dim(&r, 1, DIL_ARCH_CTX_MAX);
    m.n_seq = get_dim(&r, 1, DIL__SLOTS_MAX);
    m.max_batch = get_dim(&r, 1, DIL__WORK_TOKENS_MAX);
    m.n_stages = get_dim(&r, 1, DIL_ARCH_BLOCKS_MAX + 2);
    m.kv_type = get_type(&r);
    m.fixed_shapes = dil_get_bool(&r);
    m.wire = get_type(&r);
    if (!dil__wire_ok(m.wire)) r.failed = true;
    m.replace = dil_get_bool(&r);
    m.run = dil_get_u64(&r);
    m.model = dil_get_u64(&r);
    m.fetch_only = dil_get_bool(&r);
    m.chunk_bytes = get_dim(&r, DIL__CHUNK_BYTES_MIN, DIL__CHUNK_BYTES_MAX);
    if (m.chunk_bytes % DIL__CHUNK_BYTES_MIN != 0) r.failed = true;
    m.n_parts = dil_get_count(&r, DIL__PARTS_MAX, 16);
    m.parts = dil_arena_push(a, m.n_parts + 1, sizeof *m.parts);
    for (uint32_t i = 0; m.parts && i < m.n_parts && !r.failed; i++) get_part(&r, &m, &m.parts[i]);
    m.n_tensors = dil_get_count(&r, DIL__TENSORS_MAX, 15);
    m.tensors = dil_arena_push(a, m.n_tensors + 1, sizeof *m.tensors);
    for (uint32_t i = 0; m.tensors && i < m.n_tensors && !r.failed; i++) get_tensor(&r, &m.tensors[i]);
    m.n_chunks = dil_get_count(&r, DIL__CHUNKS_MAX, DIL_HASH_BYTES);
    m.chunks = dil_arena_push(a, m.n_chunks + 1, sizeof *m.chunks);
    if (!m.parts || !m.tensors || !m.chunks) return dil_fail(err, DIL_EMEMORY, "LOAD: no memory for its lists");
    const void *hashes = dil_get_bytes(&r, (size_t)m.n_chunks * DIL_HASH_BYTES);
    if (hashes && m.n_chunks) memcpy(m.chunks, hashes, (size_t)m.n_chunks * DIL_HASH_BYTES);
    dil_status s = finish(&r, f, err);
    if (s == DIL_OK && m.n_parts == 0) s = malformed(err, f, "no stage");
    if (s == DIL_OK) s = check_chunk_count(f, &m, err);
    if (s == DIL_OK) *out = m;
    return s;
}

bool dil__msg_need(dil_buf *b, uint64_t session, uint64_t id, const uint8_t *bits, uint32_t n_chunks)
{
    dil_frame_begin(b, DIL_FRAME_NEED, session, id, 0);
    dil_put_bytes(b, bits, (n_chunks + 7) / 8);
    return dil_frame_end(b);
}

dil_status dil__msg_get_need(const dil_frame *f, uint32_t n_chunks, const uint8_t **bits, dil_err *err)
{
    if (f->body_bytes != (n_chunks + 7) / 8) return malformed(err, f, "not one bit for each chunk");
    *bits = f->body;
    return DIL_OK;
}

bool dil__msg_chunk(dil_buf *b, uint64_t session, uint64_t id, uint32_t index, const void *data, size_t len)
{
    dil_frame_begin(b, DIL_FRAME_CHUNK, session, id, 0);
    dil_put_u32(b, index);
    dil_put_bytes(b, data, len);
    return dil_frame_end(b);
}

dil_status dil__msg_get_chunk(const dil_frame *f, uint32_t *index, const void **data, size_t *len, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    uint32_t i = dil_get_u32(&r);
    if (r.failed || r.left == 0 || r.left > DIL__CHUNK_BYTES_MAX) return malformed(err, f, "no data, or too much");
    *index = i;
    *data = r.p;
    *len = r.left;
    return DIL_OK;
}

bool dil__msg_status(dil_buf *b, uint64_t session, uint64_t id, const dil__node_status *m)
{
    dil_frame_begin(b, DIL_FRAME_STATUS, session, id, 0);
    dil_put_u8(b, (uint8_t)m->state);
    dil_put_u32(b, m->chunks_left);
    dil_put_u32(b, m->n_queued);
    dil_put_u8(b, m->busy);
    dil_put_u64(b, m->last_work);
    dil_put_u64(b, m->rss_bytes);
    dil_put_u64(b, m->memory_free);
    for (int i = 0; i < DIL__TEMPO_SIZES; i++) {
        dil_put_u32(b, m->tempo.n[i]);
        dil_put_u64(b, m->tempo.ns[i]);
    }
    put_err(b, &m->err);
    return dil_frame_end(b);
}

dil_status dil__msg_get_status(const dil_frame *f, dil__node_status *out, dil_err *err)
{
    dil_rd r = dil_frame_body(f);
    dil__node_status m = {.state = (dil__net_session_state)get_enum(&r, DIL__SESSION_FAILED)};
    m.chunks_left = dil_get_u32(&r);
    m.n_queued = dil_get_u32(&r);
    m.busy = dil_get_bool(&r);
    m.last_work = dil_get_u64(&r);
    m.rss_bytes = dil_get_u64(&r);
    m.memory_free = dil_get_u64(&r);
    for (int i = 0; i < DIL__TEMPO_SIZES; i++) {
        m.tempo.n[i] = dil_get_u32(&r);
        m.tempo.ns[i] = dil_get_u64(&r);
    }
    get_err(&r, &m.err);
    dil_status s = finish(&r, f, err);
    if (s == DIL_OK) *out = m;
    return s;
}
