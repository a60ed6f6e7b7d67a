/* Distillation's data: the sequences, the teacher's answers to them, and the student's parameters. The teacher runs once, before
 * training, and only what its head multiplies is kept: a sequence's logits would take a hundred times as much. */
#include "quant/distill_int.h"

#include "quant/calib.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { VAL_SHARE = 8, VOCAB_BYTES_MAX = 1 << 30 };

static dil_status no_memory(const char *what, dil_err *err)
{
    return dil_fail(err, DIL_EMEMORY, "out of memory for %s", what);
}

static dil_status check_pair(const dil__distill *r, dil_err *err)
{
    const dil_arch *a = &r->teacher.arch, *b = &r->student.arch;
    const char *ta = dil_gguf_path(r->teacher.gguf), *sb = dil_gguf_path(r->student.gguf);
    if (strcmp(a->name, b->name) != 0 || a->n_blocks != b->n_blocks || a->n_embd != b->n_embd || a->n_ff != b->n_ff || a->n_head != b->n_head ||
        a->n_head_kv != b->n_head_kv || a->n_embd_word != b->n_embd_word || a->tied_head != b->tied_head)
        return dil_fail(err, DIL_EUNSUPPORTED, "%s is no student of %s: %s of %u blocks of %u, the teacher %s of %u of %u", sb, ta, b->name, b->n_blocks,
                        b->n_embd, a->name, a->n_blocks, a->n_embd);
    return dil__session_same_tokens(&r->student, &r->teacher, err);
}

/* --- text ---------------------------------------------------------------------------------------------------------------- */

static dil_status add_sequences(dil__distill *r, const char *path, dil_data_format format, uint32_t most, uint32_t least, uint32_t *n, dil_err *err)
{
    dil_ids ids;
    dil_status st = dil__calib_tokens(r->student.tok, path, format, (size_t)least * r->n_ctx, (size_t)most * r->n_ctx, &ids, err);
    if (st != DIL_OK) return st;
    uint32_t got = (uint32_t)(ids.n / r->n_ctx), before = r->n_train;
    int32_t *more = realloc(r->ids, (size_t)(before + got) * r->n_ctx * sizeof *more);
    if (!more) st = no_memory("the tokens", err);
    else {
        r->ids = more;
        memcpy(more + (size_t)before * r->n_ctx, ids.id, (size_t)got * r->n_ctx * sizeof *more);
        *n = got;
    }
    dil_ids_fini(&ids);
    return st;
}

static void hold_out(dil__distill *r)
{
    r->n_val = r->n_train / VAL_SHARE ? r->n_train / VAL_SHARE : 1;
    if (r->n_val > r->o->val_chunks) r->n_val = r->o->val_chunks;
    r->n_train -= r->n_val;
}

/* Questions: a sequence is a paragraph with some of them. */
static dil_status read_questions(dil__distill *r, dil_err *err)
{
    const dil_distill_opts *o = r->o;
    const dil_tokenizer *tok = r->student.tok;
    r->labels.n_ctx = r->n_ctx;
    dil_status st = dil__tuning_add(&r->labels, tok, o->data, o->format, o->seed, 0, o->chunks + (o->val ? 0 : o->val_chunks), &r->n_train, err);
    if (st == DIL_OK && o->val) st = dil__tuning_add(&r->labels, tok, o->val, o->val_format, o->seed, r->n_train, o->val_chunks, &r->n_val, err);
    r->ids = r->labels.ids;
    if (st != DIL_OK || o->val) return st;
    if (r->n_train < 2) return dil_fail(err, DIL_EDATA, "one paragraph of questions: distilling wants two or more (or --val)");
    hold_out(r);
    return DIL_OK;
}

static dil_status read_text(dil__distill *r, dil_err *err)
{
    const dil_distill_opts *o = r->o;
    dil_status st = add_sequences(r, o->data, o->format, o->chunks + (o->val ? 0 : o->val_chunks), 2, &r->n_train, err);
    if (st != DIL_OK) return st;
    if (o->val) {
        st = add_sequences(r, o->val, o->val_format, o->val_chunks, 1, &r->n_val, err);
        if (st != DIL_OK) return st;
    } else {
        hold_out(r);
    }
    dil_tokenizer *tok = r->student.tok;
    for (uint32_t i = 0; dil_tokenizer_adds_bos(tok) && i < r->n_train + r->n_val; i++) r->ids[(size_t)i * r->n_ctx] = dil_tokenizer_bos(tok);
    return DIL_OK;
}

/* --- teacher --------------------------------------------------------------------------------------------------------------- */

static dil_status count_rows(dil__distill *r, dil_err *err)
{
    uint32_t n = r->n_train + r->n_val;
    r->first_row = calloc((size_t)n + 1, sizeof *r->first_row);
    if (!r->first_row) return no_memory("the sequences", err);
    for (uint32_t i = 0; i < n; i++) r->first_row[i + 1] = r->first_row[i] + dil__train_count(r, i);
    return DIL_OK;
}

/* The rows of a sequence that count, of what the teacher's head multiplies. */
static void keep_targets(dil__distill *r, uint32_t sequence)
{
    uint32_t row[DIL__DISTILL_ROWS], at = 0, n;
    float *to = r->target + r->first_row[sequence] * r->word;
    while ((n = dil__train_rows(r, sequence, &at, row, NULL)) > 0)
        for (uint32_t i = 0; i < n; i++, to += r->word) memcpy(to, r->out + row[i] * r->word, r->word * sizeof *to);
}

static dil_status ask_teacher(dil__distill *r, dil_err *err)
{
    uint32_t n = r->n_train + r->n_val, blocks = r->student.arch.n_blocks;
    size_t rows = r->n_ctx;
    for (uint32_t k = 0; k < DIL__DISTILL_TAPS; k++) r->tap[k] = 1 + blocks * (k + 1) / (DIL__DISTILL_TAPS + 1);
    dil_status st = count_rows(r, err);
    if (st != DIL_OK) return st;
    r->target = malloc(r->first_row[n] * r->word * sizeof *r->target);
    if (r->o->beta > 0) r->hidden = malloc((size_t)r->n_train * DIL__DISTILL_TAPS * rows * r->width * sizeof *r->hidden);
    r->table = malloc(r->n_vocab * r->word * sizeof *r->table);
    if (!r->target || (r->o->beta > 0 && !r->hidden) || !r->table) return no_memory("the teacher's answers", err);
    st = dil__decoder_load(r->d, &r->teacher.weights, err);
    if (st != DIL_OK) return st;
    memcpy(r->table, dil__decoder_table(r->d), r->n_vocab * r->word * sizeof *r->table);
    for (uint32_t i = 0; i < n; i++) {
        if (!dil_progress_step(r->progress, "asking the teacher", i, n)) return dil_fail(err, DIL_ECANCELED, "canceled before training");
        dil__train_forward(r, i);
        keep_targets(r, i);
        for (uint32_t k = 0; r->hidden && i < r->n_train && k < DIL__DISTILL_TAPS; k++)
            memcpy(r->hidden + ((size_t)i * DIL__DISTILL_TAPS + k) * rows * r->width, dil__decoder_hidden(r->d, r->tap[k]), rows * r->width * sizeof *r->hidden);
    }
    dil_progress_step(r->progress, "asking the teacher", n, n);
    return DIL_OK;
}

/* --- student --------------------------------------------------------------------------------------------------------------- */

static dil_status list_parameters(dil__distill *r, dil_err *err)
{
    uint32_t n_layers = dil_arch_n_layers(&r->student.arch);
    size_t most_bytes = 1, most_elems = 1;
    r->of = calloc(n_layers, sizeof *r->of);
    r->t = calloc((size_t)n_layers * DIL_LAYER_TENSORS_MAX, sizeof *r->t);
    if (!r->of || !r->t) return no_memory("the parameters", err);
    for (uint32_t l = 0; l < n_layers; l++) {
        dil_layer_tensor lt[DIL_LAYER_TENSORS_MAX];
        size_t n = dil_arch_layer_tensors(&r->student.arch, l, lt);
        for (size_t i = 0; i < n; i++) {
            const dil_tensor *src = dil_weights_find(&r->student.weights, lt[i].name);
            if (lt[i].shared || strcmp(lt[i].role, "rope_freqs") == 0 || !dil__trainable_can(src)) continue;
            dil_status st = dil__trainable_init(&r->t[r->n_t], src, err);
            if (st != DIL_OK) return st;
            if (r->t[r->n_t].m_at >= 0) {
                most_bytes = src->bytes > most_bytes ? src->bytes : most_bytes;
                most_elems = dil_tensor_elems(src) > most_elems ? dil_tensor_elems(src) : most_elems;
            }
            r->n_params += r->t[r->n_t].n;
            r->of[l][i] = ++r->n_t;
        }
    }
    r->scratch = malloc(most_elems * sizeof *r->scratch);
    r->scratch_bytes = malloc(most_bytes);
    return r->scratch && r->scratch_bytes ? DIL_OK : no_memory("a tensor's minima", err);
}

dil_status dil__train_allocate(dil__distill *r, dil_err *err)
{
    size_t rows = r->n_ctx;
    r->out = malloc(rows * r->word * sizeof(float));
    r->dout = malloc(rows * r->word * sizeof(float));
    r->p = malloc(DIL__DISTILL_ROWS * r->n_vocab * sizeof(float));
    r->q = malloc(DIL__DISTILL_ROWS * r->n_vocab * sizeof(float));
    r->dtable = malloc(r->n_vocab * r->word * sizeof(float));
    r->x = malloc(DIL__DISTILL_ROWS * r->word * sizeof(float));
    r->dx = malloc(DIL__DISTILL_ROWS * r->word * sizeof(float));
    r->row = calloc(DIL__DISTILL_ROWS, sizeof *r->row);
    return r->out && r->dout && r->p && r->q && r->dtable && r->x && r->dx && r->row ? DIL_OK : no_memory("the logits", err);
}

dil_status dil__distill_open(dil__distill *r, dil_err *err)
{
    const dil_distill_opts *o = r->o;
    dil_status st = dil__session_open(&r->teacher, o->teacher, err);
    if (st == DIL_OK) st = dil__session_open(&r->student, o->student, err);
    if (st == DIL_OK) st = check_pair(r, err);
    if (st != DIL_OK) return st;
    const dil_arch *a = &r->student.arch;
    r->n_ctx = o->n_ctx < a->n_ctx_train ? o->n_ctx : a->n_ctx_train;
    r->word = a->n_embd_word;
    r->width = a->n_embd;
    r->n_vocab = a->n_vocab;
    r->n_threads = o->n_threads > 0 ? o->n_threads : dil_cpu_count();
    st = list_parameters(r, err);
    if (st == DIL_OK && r->n_params == 0) st = dil_fail(err, DIL_EUNSUPPORTED, "%s holds nothing that trains", o->student);
    if (st == DIL_OK) st = o->answers ? read_questions(r, err) : read_text(r, err);
    if (st == DIL_OK) st = dil__decoder_open(a, r->n_ctx, r->n_threads, true, &r->d, err);
    if (st == DIL_OK) st = dil__train_allocate(r, err);
    if (st == DIL_OK) st = ask_teacher(r, err);
    if (st == DIL_OK) st = dil__decoder_load(r->d, &r->student.weights, err);
    return st;
}

void dil__distill_close(dil__distill *r)
{
    for (size_t i = 0; i < r->n_t; i++) dil__trainable_fini(&r->t[i]);
    if (r->labels.ids) r->ids = NULL;
    dil__tuning_fini(&r->labels);
    void *all[] = {r->t, r->of, r->ids, r->first_row, r->x, r->dx, r->target, r->hidden, r->table, r->out, r->dout, r->p, r->q, r->dtable, r->row, r->scratch, r->scratch_bytes};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    dil__decoder_free(r->d);
    dil__session_close(&r->teacher);
    dil__session_close(&r->student);
}
