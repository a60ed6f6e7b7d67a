/* SQuAD v1.1 and v2 JSON: articles of paragraphs of questions. Errors name the place, as in data[3].paragraphs[1].qas[0]. */
#include "model/dataset.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

typedef struct place {
    char text[DIL_ERR_TEXT_MAX / 2];
} place;

/* ".qas" number i of the outer place. The file's name is cut so that every place fits. */
static place at(const char *outer, const char *name, size_t i)
{
    place p;
    if (snprintf(p.text, sizeof p.text, "%s%s[%zu]", outer, name, i) < 0) p.text[0] = 0;
    return p;
}

/* A required string of at most max bytes. */
static dil_status string(const json_t *o, const char *key, const place *where, size_t max, const char **s, size_t *len, dil_err *err)
{
    if (!json_is_object(o)) return dil_fail(err, DIL_EFORMAT, "%s is not an object", where->text);
    dil_status st = dil__json_str(o, key, where->text, s, err);
    if (st != DIL_OK) return st;
    *len = json_string_length(json_object_get(o, key));
    if (*len > max) return dil_fail(err, DIL_ELIMIT, "%s: \"%s\" has %zu bytes, at most %zu", where->text, key, *len, max);
    return DIL_OK;
}

static dil_status list(const json_t *o, const char *key, const place *where, json_t **out, dil_err *err)
{
    if (!json_is_object(o)) return dil_fail(err, DIL_EFORMAT, "%s is not an object", where->text);
    return dil__json_arr(o, key, where->text, out, err);
}

static dil_status take_answers(dil__data_builder *b, const json_t *qa, const place *where, dil_sample *s, dil_err *err)
{
    bool impossible;
    json_t *answers;
    dil_status st = dil__json_bool_or(qa, "is_impossible", where->text, false, &impossible, err);
    if (st != DIL_OK || impossible) return st;
    st = list(qa, "answers", where, &answers, err);
    if (st != DIL_OK) return st;
    size_t n = json_array_size(answers);
    if (n > DIL__DATA_ANSWERS_MAX) return dil_fail(err, DIL_ELIMIT, "%s: %zu answers, at most %d", where->text, n, DIL__DATA_ANSWERS_MAX);
    const char **texts = dil_arena_push(b->arena, n ? n : 1, sizeof *texts);
    if (!texts) return dil_fail(err, DIL_ELIMIT, "%s: too much data", where->text);
    for (size_t i = 0; i < n && st == DIL_OK; i++) {
        const char *text = NULL;
        size_t len = 0;
        place p = at(where->text, ".answers", i);
        st = string(json_array_get(answers, i), "text", &p, DIL__DATA_FIELD_MAX, &text, &len, err);
        if (st == DIL_OK) st = dil__data_copy(b, text, len, &texts[i], err);
    }
    s->answers = texts;
    s->n_answers = n;
    return st;
}

static dil_status joined(dil__data_builder *b, const char *const part[], size_t n, const char **out, size_t *len, dil_err *err)
{
    size_t total = 0, used = 0;
    for (size_t i = 0; i < n; i++) total += strlen(part[i]);
    char *p = dil_arena_push(b->arena, total + 1, 1);
    if (!p) return dil_fail(err, DIL_ELIMIT, "%s: the samples take too much memory; use a part of the file", b->name);
    for (size_t i = 0; i < n; i++) {
        size_t k = strlen(part[i]);
        memcpy(p + used, part[i], k);
        used += k;
    }
    *out = p;
    *len = total;
    return DIL_OK;
}

static dil_status take_question(dil__data_builder *b, const json_t *qa, const char *context, const place *where, dil_err *err)
{
    dil_sample s = {.id = "", .context = context, .completion = ""};
    const char *question = NULL;
    size_t len = 0;
    dil_status st = string(qa, "question", where, DIL__DATA_FIELD_MAX, &question, &len, err);
    if (st == DIL_OK) st = dil__data_copy(b, question, len, &s.question, err);
    if (st == DIL_OK && json_object_get(qa, "id")) {
        st = string(qa, "id", where, DIL__DATA_FIELD_MAX, &question, &len, err);
        if (st == DIL_OK) st = dil__data_copy(b, question, len, &s.id, err);
    }
    if (st == DIL_OK) st = take_answers(b, qa, where, &s, err);
    if (st != DIL_OK) return st;
    st = joined(b, (const char *const[]){"Context: ", context, "\nQuestion: ", s.question, "\nAnswer:"}, 5, &s.prompt, &s.prompt_len, err);
    if (st == DIL_OK && s.n_answers) st = joined(b, (const char *const[]){" ", s.answers[0]}, 2, &s.completion, &s.completion_len, err);
    return st == DIL_OK ? dil__data_push(b, &s, err) : st;
}

static dil_status take_paragraph(dil__data_builder *b, const json_t *paragraph, const place *where, dil_err *err)
{
    const char *text = NULL, *context = NULL;
    size_t len = 0;
    json_t *qas = NULL;
    dil_status st = string(paragraph, "context", where, DIL__DATA_CONTEXT_MAX, &text, &len, err);
    if (st == DIL_OK) st = list(paragraph, "qas", where, &qas, err);
    if (st == DIL_OK) st = dil__data_copy(b, text, len, &context, err);
    for (size_t i = 0; st == DIL_OK && i < json_array_size(qas); i++) {
        place p = at(where->text, ".qas", i);
        st = take_question(b, json_array_get(qas, i), context, &p, err);
    }
    return st;
}

static dil_status take_document(dil__data_builder *b, const json_t *doc, dil_err *err)
{
    json_t *data = NULL, *paragraphs = NULL;
    place top;
    snprintf(top.text, sizeof top.text, "%.120s", b->name);
    dil_status st = list(doc, "data", &top, &data, err);
    for (size_t i = 0; st == DIL_OK && i < json_array_size(data); i++) {
        place p = at(top.text, ": data", i);
        st = list(json_array_get(data, i), "paragraphs", &p, &paragraphs, err);
        for (size_t k = 0; st == DIL_OK && k < json_array_size(paragraphs); k++) {
            place q = at(p.text, ".paragraphs", k);
            st = take_paragraph(b, json_array_get(paragraphs, k), &q, err);
        }
    }
    return st;
}

dil_status dil__data_squad(dil__data_builder *b, const char *text, size_t len, dil_err *err)
{
    if (len > DIL__DATA_JSON_MAX) return dil_fail(err, DIL_ELIMIT, "%s has %zu bytes, a SQuAD file at most %d", b->name, len, DIL__DATA_JSON_MAX);
    json_t *doc = NULL;
    dil_status st = dil__json_parse(b->name, text, len, &doc, err);
    if (st != DIL_OK) return st;
    st = take_document(b, doc, err);
    json_decref(doc);
    return st;
}
