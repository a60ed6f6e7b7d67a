/* SentencePiece vocabularies of a Hugging Face folder: byte pairs and unigram, from tokenizer.json or from tokenizer.model itself. */
#include "model/import_vocab.h"

#include "model/spm.h"

#include <sodium.h>

/* --- byte pairs in tokenizer.json --------------------------------------------------------------------------------------- */

/* SentencePiece's spaces as tokenizer.json says them: put one first and spell all as U+2581 by a normalizer, or by Metaspace. */
static bool is_escape_of_spaces(const json_t *o)
{
    return strcmp(dil__hf_str(o, "type"), "Replace") == 0 && strcmp(dil__hf_str(json_object_get(o, "pattern"), "String"), " ") == 0 &&
           strcmp(dil__hf_str(o, "content"), "\xE2\x96\x81") == 0;
}

dil_status dil__hf_read_piece_rules(dil__hf_vocab *v, const json_t *doc)
{
    const json_t *norm = json_object_get(doc, "normalizer"), *pre = json_object_get(doc, "pre_tokenizer");
    const json_t *list = json_object_get(norm, "normalizers"), *first = json_array_get(list, 0);
    bool no_norm = !norm || json_is_null(norm), no_pre = !pre || json_is_null(pre);
    v->pre = "default";
    if (no_pre && strcmp(dil__hf_str(norm, "type"), "Sequence") == 0 && json_array_size(list) == 2 && strcmp(dil__hf_str(first, "type"), "Prepend") == 0 &&
        strcmp(dil__hf_str(first, "prepend"), "\xE2\x96\x81") == 0 && is_escape_of_spaces(json_array_get(list, 1))) {
        v->space_first = true;
        return DIL_OK;
    }
    bool at_spaces = strcmp(dil__hf_str(pre, "type"), "Split") == 0 && strcmp(dil__hf_str(json_object_get(pre, "pattern"), "String"), " ") == 0;
    if ((no_pre || at_spaces) && is_escape_of_spaces(norm)) return DIL_OK; /* none are left to be cut at */
    if (no_norm && strcmp(dil__hf_str(pre, "type"), "Metaspace") == 0 && strcmp(dil__hf_str(pre, "replacement"), "\xE2\x96\x81") == 0 && json_is_false(json_object_get(pre, "split"))) {
        const char *scheme = dil__hf_str(pre, "prepend_scheme"); /* "first" and "always" differ only after special tokens */
        v->space_first = strcmp(scheme, "never") != 0;
        return DIL_OK;
    }
    return dil__hf_unsupported(v, "this normalizer of a SentencePiece vocabulary", no_norm ? pre : norm);
}

/* A token's score is the rank of the first merge that makes it, so that the higher score merges first as in the list; tokens that
 * no merge makes (characters) never compete. */
static dil_status put_scores(dil__hf_vocab *v)
{
    uint32_t n = v->c->arch.n_vocab;
    float *score = dil_arena_push(v->arena, n, sizeof *score);
    json_t *first = json_object(); /* spelling -> rank */
    if (!score || !first) {
        json_decref(first);
        return dil__hf_no_memory(v);
    }
    char joined[1024];
    for (size_t i = 0; i < v->n_merges; i++) {
        const char *m = v->merge[i], *space = strchr(m, ' ');
        size_t a = (size_t)(space - m), b = strlen(space + 1);
        if (a + b >= sizeof joined) continue;
        memcpy(joined, m, a);
        memcpy(joined + a, space + 1, b + 1);
        if (!json_object_get(first, joined)) json_object_set_new_nocheck(first, joined, json_integer((json_int_t)i));
    }
    for (uint32_t i = 0; i < n; i++) {
        const json_t *rank = json_object_get(first, v->token[i]);
        score[i] = rank ? -(float)(json_integer_value(rank) + 1) : v->kind[i] == NORMAL ? -(float)(v->n_merges + 1) : 0;
    }
    json_decref(first);
    return dil_gguf_put_f32s(v->w, "tokenizer.ggml.scores", score, n, v->err);
}

/* --- unigram in tokenizer.json ---------------------------------------------------------------------------------------- */

static dil_status read_scored(dil__hf_vocab *v, const json_t *model)
{
    const json_t *list = json_object_get(model, "vocab"), *unk = json_object_get(model, "unk_id");
    size_t i;
    json_t *o;
    if (!json_is_array(list)) return dil__hf_bad(v, "the vocabulary is missing or not an array");
    v->score = dil_arena_push(v->arena, v->c->arch.n_vocab, sizeof *v->score);
    if (!v->score) return dil__hf_no_memory(v);
    json_array_foreach(list, i, o)
    {
        const char *text = json_string_value(json_array_get(o, 0));
        const json_t *score = json_array_get(o, 1);
        if (!text || !json_is_number(score)) return dil_fail(v->err, DIL_EFORMAT, "%s: tokenizer: piece %zu is not [\"text\", score]", v->f->where, i);
        dil_status s = dil__hf_set_token(v, text, (json_int_t)i, NORMAL);
        if (s != DIL_OK) return s;
        v->score[i] = (float)json_number_value(score);
    }
    if (!json_is_integer(unk) || json_integer_value(unk) < 0 || (uint64_t)json_integer_value(unk) >= json_array_size(list))
        return dil__hf_bad(v, "a unigram vocabulary without an unk_id of its own");
    v->unk = json_integer_value(unk);
    return DIL_OK;
}

static dil_status read_charsmap(dil__hf_vocab *v, const json_t *o)
{
    const char *text = dil__hf_str(o, "precompiled_charsmap"), *end;
    size_t len = strlen(text), n;
    uint8_t *bytes = dil_arena_push(v->arena, len / 4 * 3 + 3, 1);
    if (!bytes) return dil__hf_no_memory(v);
    if (sodium_base642bin(bytes, len / 4 * 3 + 3, text, len, NULL, &n, &end, sodium_base64_VARIANT_ORIGINAL) != 0 || end != text + len)
        return dil__hf_bad(v, "precompiled_charsmap is not base64");
    v->charsmap = bytes;
    v->charsmap_bytes = n;
    return DIL_OK;
}

static bool strips_the_end(const json_t *o)
{
    return strcmp(dil__hf_str(o, "type"), "Strip") == 0 && json_is_true(json_object_get(o, "strip_right")) && !json_is_true(json_object_get(o, "strip_left"));
}

static bool joins_spaces(const json_t *o)
{
    const char *to = dil__hf_str(o, "content");
    return strcmp(dil__hf_str(o, "type"), "Replace") == 0 && strcmp(dil__hf_str(json_object_get(o, "pattern"), "Regex"), " {2,}") == 0 &&
           (strcmp(to, " ") == 0 || strcmp(to, "\xE2\x96\x81") == 0);
}

/* SentencePiece's own settings as its converters spell them: a compiled map; extra spaces removed by Strip and Replace before Metaspace,
 * or by WhitespaceSplit in front of it. */
dil_status dil__hf_read_unigram(dil__hf_vocab *v, const json_t *doc)
{
    const json_t *norm = json_object_get(doc, "normalizer"), *pre = json_object_get(doc, "pre_tokenizer");
    const json_t *steps = json_object_get(norm, "normalizers");
    bool no_norm = !norm || json_is_null(norm), strips = false, joins = false;
    size_t n = no_norm ? 0 : steps ? json_array_size(steps) : 1;
    dil_status s = read_scored(v, json_object_get(doc, "model"));
    for (size_t i = 0; i < n && s == DIL_OK; i++) {
        const json_t *o = steps ? json_array_get(steps, i) : norm;
        bool map = i == 0 && strcmp(dil__hf_str(o, "type"), "Precompiled") == 0;
        strips |= strips_the_end(o);
        joins |= joins_spaces(o);
        if (map) s = read_charsmap(v, o);
        else if (!strips_the_end(o) && !joins_spaces(o)) return dil__hf_unsupported(v, "this normalizer of a unigram vocabulary", norm);
    }
    if (s != DIL_OK) return s;
    const json_t *list = json_object_get(pre, "pretokenizers");
    bool words = json_array_size(list) == 2 && strcmp(dil__hf_str(json_array_get(list, 0), "type"), "WhitespaceSplit") == 0 && v->charsmap;
    const json_t *meta = words ? json_array_get(list, 1) : pre;
    const char *scheme = dil__hf_str(meta, "prepend_scheme");
    v->collapses = words || (strips && joins);
    v->space_first = strcmp(scheme, "never") != 0;
    bool whole = json_is_false(json_object_get(meta, "split"));
    if (strcmp(dil__hf_str(meta, "type"), "Metaspace") != 0 || strcmp(dil__hf_str(meta, "replacement"), "\xE2\x96\x81") != 0 || (strips != joins && !words) ||
        (v->collapses ? !v->space_first : !whole))
        return dil__hf_unsupported(v, "this pre-tokenizer of a unigram vocabulary", pre);
    v->pieces = true;
    v->pre = "default";
    return DIL_OK;
}

/* --- tokenizer.model --------------------------------------------------------------------------------------------------- */

/* tokenizer.model alone. */
dil_status dil__hf_read_spm(dil__hf_vocab *v)
{
    dil__spm m;
    char file[256];
    snprintf(file, sizeof file, "%.200s/tokenizer.model", v->f->where);
    dil_status s = dil__spm_read(file, v->f->spm, v->f->spm_bytes, v->arena, &m, v->err);
    if (s != DIL_OK) return s;
    bool bpe = m.model_type == DIL__SPM_BPE;
    const char *lacks = !bpe && m.model_type != DIL__SPM_UNIGRAM ? "a model other than BPE and unigram" : bpe && m.charsmap_bytes ? "rules of normalization for BPE"
                        : bpe && m.collapses ? "remove_extra_whitespaces for BPE" : !m.escapes ? "spaces that are not escaped" : m.space_last ? "treat_whitespace_as_suffix" : NULL;
    if (lacks) return dil_fail(v->err, DIL_EUNSUPPORTED, "%s: SentencePiece with %s is not supported; import the weights alone with --no-tokenizer", file, lacks);
    v->score = dil_arena_push(v->arena, v->c->arch.n_vocab, sizeof *v->score);
    if (!v->score) return dil__hf_no_memory(v);
    for (size_t i = 0; s == DIL_OK && i < m.n; i++) {
        const char *text = dil_arena_strdup(v->arena, m.piece[i].s, m.piece[i].len);
        if (!text) return dil__hf_no_memory(v);
        s = dil__hf_set_token(v, text, (json_int_t)i, m.piece[i].type);
        if (s == DIL_OK) v->kind[i] = m.piece[i].type, v->score[i] = m.piece[i].score;
        if (m.piece[i].type == UNKNOWN) v->unk = (int64_t)i;
    }
    v->pieces = v->kinds_known = true;
    v->unigram = !bpe;
    v->charsmap = m.charsmap;
    v->charsmap_bytes = m.charsmap_bytes;
    v->collapses = m.collapses;
    v->space_first = m.space_first;
    v->bos = m.bos;
    v->eos = m.eos;
    v->pad = m.pad;
    v->add_bos = v->bos >= 0;
    v->pre = "default";
    return s;
}

/* The kinds that the layout or tokenizer_config.json leaves open, or names for its own purposes. */
void dil__hf_mark_pieces(dil__hf_vocab *v)
{
    for (uint32_t i = 0; i < v->c->arch.n_vocab && !v->kinds_known; i++) {
        const char *t = v->token[i];
        if (t && v->kind[i] != UNUSED && strlen(t) == 6 && memcmp(t, "<0x", 3) == 0 && t[5] == '>') v->kind[i] = BYTE;
        if (t && strcmp(t, "<unk>") == 0) v->kind[i] = UNKNOWN;
    }
    if (v->unk >= 0 && v->unigram) v->kind[v->unk] = UNKNOWN;
}

dil_status dil__hf_put_pieces(dil__hf_vocab *v)
{
    dil_status s = v->score ? dil_gguf_put_f32s(v->w, "tokenizer.ggml.scores", v->score, v->c->arch.n_vocab, v->err) : put_scores(v);
    if (s == DIL_OK) s = dil_gguf_put_bool(v->w, "tokenizer.ggml.add_space_prefix", v->space_first, v->err);
    if (s != DIL_OK || !v->unigram) return s;
    s = dil_gguf_put_bool(v->w, "tokenizer.ggml.remove_extra_whitespaces", v->collapses, v->err);
    const dil_gguf_kv map = {.key = "tokenizer.ggml.precompiled_charsmap", .kind = DIL_GGUF_ARRAY, .elem_kind = DIL_GGUF_U8,
                             .n = v->charsmap_bytes, .data = v->charsmap, .bytes = v->charsmap_bytes};
    return s == DIL_OK && v->charsmap_bytes ? dil_gguf_put_kv(v->w, &map, v->err) : s;
}
