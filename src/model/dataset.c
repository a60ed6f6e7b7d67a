/* Data sets: which format a file has, plain text, JSON Lines, and the embedded default. SQuAD's own reader is dataset_squad.c.
 *
 * A format is found by the first bytes, never by the name: a file that begins as JSON is read as JSON or refused, so that a broken one
 * is not taken for prose. Everything that a sample points to lies on the data set's arena. */
#include "model/dataset.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* src/model/default_data.json, embedded when the library is built */
extern const unsigned char dil__default_data[];
extern const size_t dil__default_data_len;

enum { ARENA_MAX_JSON = 1 << 30 };

dil_status dil__data_push(dil__data_builder *b, const dil_sample *s, dil_err *err)
{
    if (b->n == DIL__DATA_SAMPLES_MAX) return dil_fail(err, DIL_ELIMIT, "%s: more than %d samples", b->name, DIL__DATA_SAMPLES_MAX);
    if (b->n == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 64;
        dil_sample *p = realloc(b->samples, cap * sizeof *p);
        if (!p) return dil_fail(err, DIL_EMEMORY, "%s: out of memory for %zu samples", b->name, cap);
        b->samples = p;
        b->cap = cap;
    }
    b->samples[b->n++] = *s;
    return DIL_OK;
}

dil_status dil__data_copy(dil__data_builder *b, const char *s, size_t len, const char **out, dil_err *err)
{
    *out = dil_arena_strdup(b->arena, s, len);
    return *out ? DIL_OK : dil_fail(err, DIL_ELIMIT, "%s: the samples take too much memory; use a part of the file", b->name);
}

/* --- plain text ---------------------------------------------------------------------------------------------------------- */

static dil_status read_text(dil__data_builder *b, const char *text, size_t len, dil_err *err)
{
    dil_sample s = {.id = "", .completion = "", .prompt_len = len};
    dil_status st = dil__data_copy(b, text, len, &s.prompt, err);
    return st == DIL_OK ? dil__data_push(b, &s, err) : st;
}

/* --- JSON Lines ------------------------------------------------------------------------------------------------------------ */

static dil_status take_field(dil__data_builder *b, const json_t *o, const char *key, const char *where, const char **out, size_t *len, dil_err *err)
{
    const char *s = NULL;
    dil_status st = dil__json_str(o, key, where, &s, err);
    if (st != DIL_OK) return st;
    *len = json_string_length(json_object_get(o, key));
    return dil__data_copy(b, s, *len, out, err);
}

static dil_status take_object(dil__data_builder *b, const json_t *o, const char *where, dil_err *err)
{
    dil_sample s = {.id = "", .completion = ""};
    dil_status st;
    if (json_object_get(o, "text")) {
        st = take_field(b, o, "text", where, &s.prompt, &s.prompt_len, err);
        if (st == DIL_OK && s.prompt_len == 0) st = dil_fail(err, DIL_EFORMAT, "%s: \"text\" is empty", where);
    } else if (json_object_get(o, "prompt")) {
        st = take_field(b, o, "prompt", where, &s.prompt, &s.prompt_len, err);
        if (st == DIL_OK) st = take_field(b, o, "completion", where, &s.completion, &s.completion_len, err);
        if (st == DIL_OK && s.completion_len == 0) st = dil_fail(err, DIL_EFORMAT, "%s: \"completion\" is empty", where);
    } else {
        st = dil_fail(err, DIL_EFORMAT, "%s: neither {\"text\"} nor {\"prompt\", \"completion\"}", where);
    }
    return st == DIL_OK ? dil__data_push(b, &s, err) : st;
}

static bool is_blank(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r' && s[i] != '\n') return false;
    }
    return true;
}

static dil_status take_line(dil__data_builder *b, const char *line, size_t len, size_t number, dil_err *err)
{
    char where[DIL_ERR_TEXT_MAX / 2];
    snprintf(where, sizeof where, "%s: line %zu", b->name, number);
    if (len > DIL__DATA_LINE_MAX) return dil_fail(err, DIL_ELIMIT, "%s has %zu bytes, at most %d", where, len, DIL__DATA_LINE_MAX);
    json_error_t e;
    json_t *o = json_loadb(line, len, JSON_REJECT_DUPLICATES, &e);
    if (!o) return dil_fail(err, DIL_EFORMAT, "%s, column %d: %s", where, e.column, e.text);
    dil_status st = json_is_object(o) ? take_object(b, o, where, err) : dil_fail(err, DIL_EFORMAT, "%s is not a JSON object", where);
    json_decref(o);
    return st;
}

static size_t line_length(const char *text, size_t len)
{
    const char *end = memchr(text, '\n', len);
    return end ? (size_t)(end - text) : len;
}

static dil_status read_lines(dil__data_builder *b, const char *text, size_t len, dil_err *err)
{
    dil_status st = DIL_OK;
    for (size_t at = 0, number = 1; at < len && st == DIL_OK; number++) {
        size_t n = line_length(text + at, len - at);
        if (!is_blank(text + at, n)) st = take_line(b, text + at, n, number, err);
        at += n + 1;
    }
    return st;
}

/* --- which format --------------------------------------------------------------------------------------------------------- */

/* Is the first line alone an object with the keys of JSON Lines? (A SQuAD file on one line is an object too.) */
static bool first_line_is_sample(const char *text, size_t len)
{
    size_t n = line_length(text, len);
    if (n > DIL__DATA_LINE_MAX) return false;
    json_t *o = json_loadb(text, n, 0, NULL);
    bool yes = o && (json_object_get(o, "text") || json_object_get(o, "prompt")) && !json_object_get(o, "data");
    json_decref(o);
    return yes;
}

static dil_status find_format(const dil__data_builder *b, const char *text, size_t len, dil_data_format *out, dil_err *err)
{
    size_t at = 0;
    while (at < len && is_blank(text + at, 1)) at++;
    *out = DIL_DATA_TEXT;
    if (at == len || (text[at] != '{' && text[at] != '[')) return DIL_OK;
    size_t next = at + 1;
    while (next < len && is_blank(text + next, 1)) next++;
    bool list = text[at] == '[' && next < len && text[next] == '{';
    if (list)
        return dil_fail(err, DIL_EFORMAT, "%s is a JSON list; expected SQuAD's {\"data\": [...]}, or one JSON object a line (jsonl)", b->name);
    if (text[at] == '{') *out = first_line_is_sample(text + at, len - at) ? DIL_DATA_JSONL : DIL_DATA_SQUAD;
    return DIL_OK;
}

bool dil_data_format_from_name(const char *name, dil_data_format *out)
{
    static const char *const names[] = {[DIL_DATA_AUTO] = "auto", [DIL_DATA_SQUAD] = "squad", [DIL_DATA_TEXT] = "text", [DIL_DATA_JSONL] = "jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (dil_data_format)i;
            return true;
        }
    }
    return false;
}

/* --- loading -------------------------------------------------------------------------------------------------------------- */

static dil_status read_as(dil__data_builder *b, dil_data_format format, const char *text, size_t len, dil_err *err)
{
    switch (format) {
    case DIL_DATA_SQUAD: return dil__data_squad(b, text, len, err);
    case DIL_DATA_JSONL: return read_lines(b, text, len, err);
    default: return read_text(b, text, len, err);
    }
}

static dil_status finish(dil__data_builder *b, dil_data_format format, dil_dataset *out, dil_err *err)
{
    if (b->n == 0) return dil_fail(err, DIL_EDATA, "%s holds no sample", b->name);
    dil_sample *samples = dil_arena_push(b->arena, b->n, sizeof *samples);
    if (!samples) return dil_fail(err, DIL_ELIMIT, "%s: %zu samples take too much memory; use a part of the file", b->name, b->n);
    memcpy(samples, b->samples, b->n * sizeof *samples);
    *out = (dil_dataset){format, samples, b->n, b->arena};
    return DIL_OK;
}

/* The bytes of a file. A byte order mark is not part of the text. */
static dil_status parse(const char *name, dil_data_format format, const char *text, size_t len, dil_dataset *out, dil_err *err)
{
    dil__data_builder b = {.name = name};
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        text += 3;
        len -= 3;
    }
    if (is_blank(text, len)) return dil_fail(err, DIL_EDATA, "%s is empty", name);
    dil_status s = format == DIL_DATA_AUTO ? find_format(&b, text, len, &format, err) : DIL_OK;
    if (s != DIL_OK) return s;
    b.arena = dil_arena_new(format == DIL_DATA_TEXT ? (size_t)DIL_DATASET_MAX + (1 << 20) : ARENA_MAX_JSON);
    if (!b.arena) return dil_fail(err, DIL_EMEMORY, "out of memory for %s", name);
    s = read_as(&b, format, text, len, err);
    if (s == DIL_OK) s = finish(&b, format, out, err);
    free(b.samples);
    if (s != DIL_OK) dil_arena_free(b.arena);
    return s;
}

dil_status dil_dataset_parse(const char *name, const void *data, size_t len, dil_data_format format, dil_dataset *out, dil_err *err)
{
    if (len > DIL_DATASET_MAX) return dil_fail(err, DIL_ELIMIT, "%s has %zu bytes, at most %u", name, len, DIL_DATASET_MAX);
    return parse(name, format, data, len, out, err);
}

dil_status dil_dataset_load(const char *path, dil_data_format format, dil_dataset *out, dil_err *err)
{
    if (!path) return parse("the embedded data set", DIL_DATA_SQUAD, (const char *)dil__default_data, dil__default_data_len, out, err);
    dil_buf b;
    dil_buf_init(&b, DIL_DATASET_MAX);
    dil_status s = dil_file_read(path, &b, err);
    if (s == DIL_OK) s = parse(path, format, dil_buf_str(&b), b.len, out, err);
    dil_buf_fini(&b);
    return s;
}

void dil_dataset_fini(dil_dataset *d)
{
    dil_arena_free(d->arena);
    *d = (dil_dataset){0};
}
