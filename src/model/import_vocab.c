/* The tokenizer's files of a Hugging Face folder to tokenizer.ggml.* metadata, in the form that llama.cpp's converter gives it:
 * the token texts in byte-level spelling, their kinds, the merges, the special ids.
 *
 * The pre-tokenizer is recognised by its rules; a set of rules that we do not know is refused, since guessing would give
 * other ids without anyone noticing. */
#include "model/import_vocab.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

dil_status dil__hf_bad(const dil__hf_vocab *v, const char *why)
{
    return dil_fail(v->err, DIL_EFORMAT, "%s: tokenizer: %s", v->f->where, why);
}

dil_status dil__hf_no_memory(const dil__hf_vocab *v)
{
    return dil_fail(v->err, DIL_EMEMORY, "%s: tokenizer: no memory", v->f->where);
}

/* --- tokens -------------------------------------------------------------------------------------------------------- */

dil_status dil__hf_set_token(dil__hf_vocab *v, const char *text, json_int_t id, int32_t kind)
{
    if (id < 0 || id >= v->c->arch.n_vocab)
        return dil_fail(v->err, DIL_EFORMAT, "%s: tokenizer: \"%.40s\" has id %" PRId64 " of a vocabulary of %u", v->f->where, text, (int64_t)id, v->c->arch.n_vocab);
    if (v->token[id] && strcmp(v->token[id], text) != 0)
        return dil_fail(v->err, DIL_EFORMAT, "%s: tokenizer: id %" PRId64 " is both \"%.40s\" and \"%.40s\"", v->f->where, (int64_t)id, v->token[id], text);
    v->token[id] = text;
    if (kind != NORMAL || v->kind[id] == UNUSED) v->kind[id] = kind;
    return DIL_OK;
}

static dil_status read_tokens(dil__hf_vocab *v, const json_t *table, int32_t kind)
{
    if (!json_is_object(table)) return dil__hf_bad(v, "the vocabulary is missing or not an object");
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)table, text, id)
    {
        if (!json_is_integer(id)) return dil_fail(v->err, DIL_EFORMAT, "%s: tokenizer: the id of \"%.40s\" is not an integer", v->f->where, text);
        dil_status s = dil__hf_set_token(v, text, json_integer_value(id), kind);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

/* The list "added_tokens" of tokenizer.json. */
static dil_status read_added_list(dil__hf_vocab *v, const json_t *list)
{
    size_t i;
    json_t *o;
    json_array_foreach(list, i, o)
    {
        const json_t *id = json_object_get(o, "id");
        if (!json_is_integer(id) || !json_is_string(json_object_get(o, "content"))) return dil__hf_bad(v, "an added token without id or content");
        dil_status s = dil__hf_set_token(v, dil__hf_str(o, "content"), json_integer_value(id), json_is_true(json_object_get(o, "special")) ? CONTROL : USER_DEFINED);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

/* The object "added_tokens_decoder" of tokenizer_config.json: ids as keys. */
static dil_status read_added_decoder(dil__hf_vocab *v, const json_t *table)
{
    const char *key;
    json_t *o;
    json_object_foreach((json_t *)(uintptr_t)table, key, o)
    {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (end == key || *end || !json_is_string(json_object_get(o, "content"))) return dil__hf_bad(v, "added_tokens_decoder: an entry without id or content");
        dil_status s = dil__hf_set_token(v, dil__hf_str(o, "content"), id, json_is_true(json_object_get(o, "special")) ? CONTROL : USER_DEFINED);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

/* --- merges -------------------------------------------------------------------------------------------------------- */

static dil_status push_merge(dil__hf_vocab *v, const char *a, size_t a_len, const char *b, size_t b_len)
{
    if (a_len == 0 || b_len == 0) return dil__hf_bad(v, "a merge with an empty side");
    char *text = dil_arena_push(v->arena, a_len + b_len + 2, 1);
    if (!text) return dil__hf_no_memory(v);
    memcpy(text, a, a_len);
    text[a_len] = ' ';
    memcpy(text + a_len + 1, b, b_len);
    v->merge[v->n_merges++] = text;
    return DIL_OK;
}

static dil_status push_merge_text(dil__hf_vocab *v, const char *s, size_t n)
{
    const char *space = memchr(s, ' ', n);
    size_t a = space ? (size_t)(space - s) : n;
    if (!space || memchr(space + 1, ' ', n - a - 1)) return dil_fail(v->err, DIL_EFORMAT, "%s: tokenizer: merge %zu is \"%.*s\", expected two words", v->f->where, v->n_merges, (int)(n < 60 ? n : 60), s);
    return push_merge(v, s, a, space + 1, n - a - 1);
}

/* tokenizer.json has "a b" or, in newer files, ["a", "b"]. */
static dil_status read_merge_list(dil__hf_vocab *v, const json_t *list)
{
    if (!json_is_array(list)) return dil__hf_bad(v, "the merges are missing or not an array");
    v->merge = dil_arena_push(v->arena, json_array_size(list), sizeof *v->merge);
    if (!v->merge) return dil__hf_no_memory(v);
    size_t i;
    json_t *m;
    json_array_foreach(list, i, m)
    {
        const char *a = json_string_value(json_array_get(m, 0)), *b = json_string_value(json_array_get(m, 1));
        dil_status s;
        if (json_is_string(m)) s = push_merge_text(v, json_string_value(m), json_string_length(m));
        else if (json_array_size(m) == 2 && a && b && !strchr(a, ' ') && !strchr(b, ' ')) s = push_merge(v, a, strlen(a), b, strlen(b));
        else s = dil_fail(v->err, DIL_EFORMAT, "%s: tokenizer: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", v->f->where, i);
        if (s != DIL_OK) return s;
    }
    return DIL_OK;
}

/* merges.txt: one a line, after a first line that tells a version. */
static dil_status read_merge_text(dil__hf_vocab *v)
{
    const char *p = v->f->merges, *end = p + v->f->merges_bytes;
    size_t lines = 1;
    for (const char *q = p; q < end; q++) lines += *q == '\n';
    v->merge = dil_arena_push(v->arena, lines, sizeof *v->merge);
    if (!v->merge) return dil__hf_no_memory(v);
    for (bool first = true; p < end; first = false) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl ? nl : end) - p);
        size_t used = n > 0 && p[n - 1] == '\r' ? n - 1 : n;
        bool version = first && used >= 8 && memcmp(p, "#version", 8) == 0;
        dil_status s = version || used == 0 ? DIL_OK : push_merge_text(v, p, used);
        if (s != DIL_OK) return s;
        p += nl ? n + 1 : n;
    }
    return DIL_OK;
}

/* --- pre-tokenizer --------------------------------------------------------------------------------------------------- */

/* The patterns as tokenizer.json has them, and the rules' names; with ignore_merges a word that is a token is taken whole. */
#define TAIL " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SLASHED_TAIL " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SHORT_FORMS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(tail) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" tail "|"
static const struct {
    const char *pattern, *whole_words, *merged; /* NULL: no name for these rules */
} splits[] = {
    {SHORT_FORMS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" TAIL, "llama-bpe", "smaug-bpe"},
    {SHORT_FORMS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" TAIL, NULL, "qwen2"},
    {CASED("") "\\p{N}|" SLASHED_TAIL, "tekken", "tekken"},
    {CASED(SHORT_FORMS "?") "\\p{N}{1,3}|" SLASHED_TAIL, NULL, "gpt-4o"},
};

/* ByteLevel with its own splitting rule (GPT-2's), or as the mere byte spelling after another rule. No space is put in front. */
static bool is_byte_level(const json_t *o, bool with_rule)
{
    return strcmp(dil__hf_str(o, "type"), "ByteLevel") == 0 && !json_is_true(json_object_get(o, "add_prefix_space")) &&
           json_is_false(json_object_get(o, "use_regex")) == !with_rule;
}

/* What matches is a word, which every pattern here does with all of the text: kept apart, or the rest (nothing) removed. */
static bool cuts_words(const json_t *split)
{
    const char *behavior = dil__hf_str(split, "behavior");
    bool invert = json_is_true(json_object_get(split, "invert"));
    return strcmp(dil__hf_str(split, "type"), "Split") == 0 && (invert ? strcmp(behavior, "Removed") == 0 || strcmp(behavior, "Isolated") == 0 : strcmp(behavior, "Isolated") == 0);
}

static const char *recognise_pre(const json_t *o, bool whole_words)
{
    if (is_byte_level(o, true)) return "gpt-2";
    const json_t *list = json_object_get(o, "pretokenizers"), *first = json_array_get(list, 0), *second = json_array_get(list, 1);
    if (strcmp(dil__hf_str(o, "type"), "Sequence") != 0 || json_array_size(list) != 2) return NULL;
    bool digits = strcmp(dil__hf_str(first, "type"), "Digits") == 0 && json_is_true(json_object_get(first, "individual_digits"));
    if (digits && is_byte_level(second, true)) return "smollm";
    if (!cuts_words(first) || !is_byte_level(second, false)) return NULL;
    const char *pattern = dil__hf_str(json_object_get(first, "pattern"), "Regex");
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        if (strcmp(pattern, splits[i].pattern) == 0) return whole_words ? splits[i].whole_words : splits[i].merged;
    }
    return NULL;
}

dil_status dil__hf_unsupported(const dil__hf_vocab *v, const char *what, const json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT | JSON_ENCODE_ANY);
    dil_status s = dil_fail(v->err, DIL_EUNSUPPORTED, "%s: tokenizer: %s is not supported: %.200s", v->f->where, what, text ? text : "");
    free(text);
    return s;
}

/* --- the two layouts ------------------------------------------------------------------------------------------------- */

static dil_status check_model(const dil__hf_vocab *v, const json_t *doc, const json_t *model)
{
    const char *type = dil__hf_str(model, "type");
    const json_t *normalizer = json_object_get(doc, "normalizer");
    if (strcmp(type, "Unigram") == 0) return DIL_OK;
    if (type[0] && strcmp(type, "BPE") != 0)
        return dil_fail(v->err, DIL_EUNSUPPORTED, "%s: tokenizer: a model of type %.40s; BPE and Unigram are supported", v->f->where, type);
    if (v->pieces) return DIL_OK; /* read_piece_rules */
    bool nfc = strcmp(dil__hf_str(normalizer, "type"), "NFC") == 0; /* Qwen2's, see check_normalizer */
    if (normalizer && !json_is_null(normalizer) && !nfc) return dil__hf_unsupported(v, "this normalizer", normalizer);
    return DIL_OK;
}

/* Whether a sequence begins with a special token: the post-processor's template says so. */
static bool template_adds_bos(const json_t *post)
{
    const json_t *list = json_object_get(post, "processors");
    size_t n = json_is_array(list) ? json_array_size(list) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_is_array(list) ? json_array_get(list, i) : post;
        if (strcmp(dil__hf_str(p, "type"), "TemplateProcessing") != 0) continue;
        const json_t *first = json_array_get(json_object_get(p, "single"), 0);
        if (json_is_object(json_object_get(first, "SpecialToken"))) return true;
    }
    return false;
}

/* qwen2 files mean NFC; it is left out, as other programs do. Other rules have none. */
static dil_status check_normalizer(const dil__hf_vocab *v, const json_t *normalizer)
{
    bool none = !normalizer || json_is_null(normalizer);
    return none || strcmp(v->pre, "qwen2") == 0 ? DIL_OK : dil__hf_unsupported(v, "this normalizer", normalizer);
}

static dil_status read_tokenizer_json(dil__hf_vocab *v)
{
    const json_t *doc = v->f->tokenizer, *model = json_object_get(doc, "model");
    if (!json_is_object(model)) return dil__hf_bad(v, "tokenizer.json has no \"model\"");
    v->pieces = json_is_true(json_object_get(model, "byte_fallback"));
    dil_status s = check_model(v, doc, model);
    v->unigram = s == DIL_OK && strcmp(dil__hf_str(model, "type"), "Unigram") == 0;
    if (s == DIL_OK) s = v->unigram ? dil__hf_read_unigram(v, doc) : read_tokens(v, json_object_get(model, "vocab"), NORMAL);
    if (s == DIL_OK) s = read_added_list(v, json_object_get(doc, "added_tokens"));
    if (s == DIL_OK && !v->unigram) s = read_merge_list(v, json_object_get(model, "merges"));
    if (s != DIL_OK) return s;
    v->add_bos = template_adds_bos(json_object_get(doc, "post_processor"));
    if (v->unigram) return DIL_OK;
    if (v->pieces) return dil__hf_read_piece_rules(v, doc);
    v->pre = recognise_pre(json_object_get(doc, "pre_tokenizer"), json_is_true(json_object_get(model, "ignore_merges")));
    if (!v->pre) return dil__hf_unsupported(v, "this pre-tokenizer", json_object_get(doc, "pre_tokenizer"));
    return check_normalizer(v, json_object_get(doc, "normalizer"));
}

/* A special token of tokenizer_config.json or special_tokens_map.json: a string, or an object with "content". */
static const char *special_text(const json_t *doc, const char *key)
{
    const json_t *t = json_object_get(doc, key);
    return json_is_object(t) ? json_string_value(json_object_get(t, "content")) : json_string_value(t);
}

/* vocab.json and merges.txt are GPT-2's own layout, and hold no rules: those of GPT-2 are meant. */
static dil_status read_vocab_json(dil__hf_vocab *v)
{
    const char *class_name = dil__hf_str(v->f->config, "tokenizer_class");
    if (v->c->arch.family != DIL_FAMILY_OPT && strncmp(class_name, "GPT2Tokenizer", 13) != 0)
        return dil_fail(v->err, DIL_EUNSUPPORTED, "%s: tokenizer: vocab.json without tokenizer.json, and \"%.40s\" is not GPT2Tokenizer", v->f->where, class_name);
    if (!v->f->merges) return dil__hf_bad(v, "vocab.json without merges.txt");
    dil_status s = read_tokens(v, v->f->vocab, NORMAL);
    if (s == DIL_OK && v->f->added) s = read_tokens(v, v->f->added, USER_DEFINED);
    if (s == DIL_OK) s = read_merge_text(v);
    v->pre = "gpt-2";
    return s;
}

/* --- special tokens --------------------------------------------------------------------------------------------------- */

static const char *const special_keys[] = {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"};

static int64_t find_token(const dil__hf_vocab *v, const char *text)
{
    for (uint32_t i = 0; i < v->c->arch.n_vocab; i++) {
        if (v->token[i] && strcmp(v->token[i], text) == 0) return i;
    }
    return -1;
}

static int64_t special_id(const dil__hf_vocab *v, const char *key)
{
    const char *text = special_text(v->f->config, key);
    if (!text) text = special_text(v->f->special, key);
    return text ? find_token(v, text) : -1;
}

static void mark_specials(dil__hf_vocab *v)
{
    for (size_t i = 0; i < sizeof special_keys / sizeof *special_keys; i++) {
        int64_t id = special_id(v, special_keys[i]);
        if (id >= 0) v->kind[id] = CONTROL;
    }
}

static dil_status put_id(const dil__hf_vocab *v, const char *key, int64_t id)
{
    if (id < 0 || id >= v->c->arch.n_vocab || !v->token[id]) return DIL_OK;
    return dil_gguf_put_u32(v->w, key, (uint32_t)id, v->err);
}

/* The tokenizer's own word goes before the model's. OPT's files are not of one mind; its models are trained with </s> first. */
static dil_status put_specials(dil__hf_vocab *v)
{
    bool opt = v->c->arch.family == DIL_FAMILY_OPT;
    int64_t bos = special_id(v, "bos_token"), eos = special_id(v, "eos_token"), pad = special_id(v, "pad_token");
    const json_t *add = json_object_get(v->f->config, "add_bos_token");
    if (bos < 0) bos = v->bos;
    if (eos < 0) eos = v->eos;
    if (pad < 0) pad = v->pad;
    if (bos < 0) bos = v->c->bos >= 0 ? v->c->bos : opt ? 2 : -1;
    if (eos < 0) eos = v->c->eos >= 0 ? v->c->eos : opt ? 2 : -1;
    bool add_bos = json_is_boolean(add) ? json_is_true(add) : v->add_bos || opt;
    dil_status s = put_id(v, "tokenizer.ggml.bos_token_id", bos);
    if (s == DIL_OK) s = put_id(v, "tokenizer.ggml.eos_token_id", eos);
    if (s == DIL_OK) s = put_id(v, "tokenizer.ggml.unknown_token_id", special_id(v, "unk_token"));
    if (s == DIL_OK) s = put_id(v, "tokenizer.ggml.padding_token_id", pad < 0 ? v->c->pad : pad);
    return s == DIL_OK ? dil_gguf_put_bool(v->w, "tokenizer.ggml.add_bos_token", add_bos && bos >= 0, v->err) : s;
}

/* One template, or several by name, of which "default" is meant; a file of its own in newer folders. */
static dil_status put_template(const dil__hf_vocab *v)
{
    const json_t *t = json_object_get(v->f->config, "chat_template"), *o;
    const char *text = v->f->template_text ? v->f->template_text : json_string_value(t);
    size_t i;
    json_array_foreach(t, i, o)
    {
        if (!text && strcmp(dil__hf_str(o, "name"), "default") == 0) text = json_string_value(json_object_get(o, "template"));
    }
    return text ? dil_gguf_put_str(v->w, "tokenizer.chat_template", text, v->err) : DIL_OK;
}

/* --- putting it together ------------------------------------------------------------------------------------------- */

/* Rows of the embedding beyond the tokenizer's ids get names that no text spells. */
static dil_status fill_gaps(dil__hf_vocab *v)
{
    for (uint32_t i = 0; i < v->c->arch.n_vocab; i++) {
        if (v->token[i]) continue;
        char name[32];
        int n = snprintf(name, sizeof name, "[PAD%u]", i);
        v->token[i] = dil_arena_strdup(v->arena, name, (size_t)n);
        if (!v->token[i]) return dil__hf_no_memory(v);
    }
    return DIL_OK;
}

static dil_status convert(dil__hf_vocab *v)
{
    uint32_t n = v->c->arch.n_vocab;
    v->token = dil_arena_push(v->arena, n, sizeof *v->token);
    v->kind = dil_arena_push(v->arena, n, sizeof *v->kind);
    if (!v->token || !v->kind) return dil__hf_no_memory(v);
    for (uint32_t i = 0; i < n; i++) v->kind[i] = UNUSED;
    dil_status s = v->f->tokenizer ? read_tokenizer_json(v) : v->f->spm ? dil__hf_read_spm(v) : read_vocab_json(v);
    if (s == DIL_OK) s = read_added_decoder(v, json_object_get(v->f->config, "added_tokens_decoder"));
    if (s != DIL_OK) return s;
    mark_specials(v);
    if (v->pieces) dil__hf_mark_pieces(v);
    s = put_specials(v);
    if (s == DIL_OK) s = fill_gaps(v);
    if (s == DIL_OK) s = dil_gguf_put_str(v->w, "tokenizer.ggml.model", v->unigram ? "t5" : v->pieces ? "llama" : "gpt2", v->err);
    if (s == DIL_OK) s = dil_gguf_put_str(v->w, "tokenizer.ggml.pre", v->pre, v->err);
    if (s == DIL_OK) s = dil_gguf_put_strs(v->w, "tokenizer.ggml.tokens", v->token, NULL, n, v->err);
    if (s == DIL_OK) s = dil_gguf_put_i32s(v->w, "tokenizer.ggml.token_type", v->kind, n, v->err);
    if (s == DIL_OK && !v->pieces) s = dil_gguf_put_strs(v->w, "tokenizer.ggml.merges", v->merge, NULL, v->n_merges, v->err);
    if (s == DIL_OK && v->pieces) s = dil__hf_put_pieces(v);
    return s == DIL_OK ? put_template(v) : s;
}

dil_status dil__hf_vocab_convert(const dil__hf_vocab_files *f, const dil__hf_config *c, dil_gguf_writer *w, char pre[32], dil_err *err)
{
    dil__hf_vocab v = {.f = f, .c = c, .w = w, .err = err, .bos = -1, .eos = -1, .pad = -1, .unk = -1, .arena = dil_arena_new(1u << 30)};
    if (!v.arena) return dil_fail(err, DIL_EMEMORY, "%s: no memory", f->where);
    dil_status s = convert(&v);
    if (s == DIL_OK) snprintf(pre, 32, "%s", v.pre);
    dil_arena_free(v.arena);
    return s;
}

/* --- files --------------------------------------------------------------------------------------------------------- */

typedef struct folder {
    const char *dir;
    dil_buf path;
    dil_err *err;
} folder;

static bool have(folder *d, const char *name)
{
    d->path.len = 0;
    return dil_buf_printf(&d->path, "%s/%s", d->dir, name) && dil_file_exists(dil_buf_str(&d->path));
}

/* An absent file leaves *out alone. */
static dil_status load_json(folder *d, const char *name, json_t **out)
{
    if (!have(d, name)) return DIL_OK;
    dil_status s = dil__json_load(dil_buf_str(&d->path), DIL__TOKENIZER_BYTES_MAX, out, d->err);
    if (s == DIL_OK && !json_is_object(*out)) s = dil_fail(d->err, DIL_EFORMAT, "%s: not a JSON object", dil_buf_str(&d->path));
    return s;
}

static dil_status load_text(folder *d, const char *name, dil_buf *out)
{
    if (!have(d, name)) return DIL_OK;
    return dil_file_read(dil_buf_str(&d->path), out, d->err);
}

static dil_status no_tokenizer(folder *d, char pre[32])
{
    dil_log(DIL_LOG_WARN, "import", "%s: no tokenizer.json, vocab.json or tokenizer.model: the model gets no tokenizer", d->dir);
    pre[0] = 0;
    return DIL_OK;
}

static dil_status load_and_convert(folder *d, const dil__hf_config *c, dil_gguf_writer *w, char pre[32])
{
    json_t *tokenizer = NULL, *vocab_doc = NULL, *config = NULL, *special = NULL, *added = NULL;
    dil_buf merges, jinja, spm;
    dil_buf_init(&spm, DIL__TOKENIZER_BYTES_MAX);
    dil_buf_init(&merges, DIL__TOKENIZER_BYTES_MAX);
    dil_buf_init(&jinja, DIL__CONFIG_BYTES_MAX);
    dil_status s = load_json(d, "tokenizer.json", &tokenizer);
    if (s == DIL_OK && !tokenizer) s = load_json(d, "vocab.json", &vocab_doc);
    if (s == DIL_OK && !tokenizer) s = load_json(d, "added_tokens.json", &added);
    if (s == DIL_OK && !tokenizer) s = load_text(d, "merges.txt", &merges);
    if (s == DIL_OK && !tokenizer && !vocab_doc) s = load_text(d, "tokenizer.model", &spm);
    if (s == DIL_OK) s = load_json(d, "tokenizer_config.json", &config);
    if (s == DIL_OK) s = load_json(d, "special_tokens_map.json", &special);
    if (s == DIL_OK) s = load_text(d, "chat_template.jinja", &jinja);
    if (s == DIL_OK) {
        dil__hf_vocab_files f = {.tokenizer = tokenizer, .vocab = vocab_doc, .config = config, .special = special, .added = added,
                                 .merges = merges.data ? dil_buf_str(&merges) : NULL, .merges_bytes = merges.len,
                                 .spm = spm.len ? spm.data : NULL, .spm_bytes = spm.len,
                                 .template_text = jinja.data ? dil_buf_str(&jinja) : NULL, .where = d->dir};
        s = tokenizer || vocab_doc || f.spm ? dil__hf_vocab_convert(&f, c, w, pre, d->err) : no_tokenizer(d, pre);
    }
    json_decref(tokenizer);
    json_decref(vocab_doc);
    json_decref(config);
    json_decref(special);
    json_decref(added);
    dil_buf_fini(&merges);
    dil_buf_fini(&jinja);
    dil_buf_fini(&spm);
    return s;
}

dil_status dil__hf_vocab_put(const char *dir, const dil__hf_config *c, dil_gguf_writer *w, char pre[32], dil_err *err)
{
    folder d = {.dir = dir, .err = err};
    dil_buf_init(&d.path, 1 << 16);
    dil_status s = load_and_convert(&d, c, w, pre);
    dil_buf_fini(&d.path);
    return s;
}
