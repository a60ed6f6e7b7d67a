/* Question answering and JSON Lines: the loss of the completion given the prompt (of a text without a completion: of all its
 * tokens but the first), and for questions the greedy answer, ended by a newline as the prompt's form implies. */
#include "quant/eval.h"

#include <stdlib.h>
#include <string.h>

enum { ANSWER_TOKENS = 32, ANSWER_BYTES = 4096 };

typedef struct sample_ids {
    dil_ids ids;        /* prompt and completion */
    uint32_t n_prompt, first; /* ids[first..] are scored */
    bool fits;
} sample_ids;

static dil_status tokenize_sample(const dil_tokenizer *tok, const dil_sample *s, sample_ids *out, dil_err *err)
{
    dil_ids prompt, completion = {0};
    dil_status st = dil_tokenize(tok, s->prompt, s->prompt_len, DIL_TOK_BOS, &prompt, err);
    if (st != DIL_OK) return st;
    st = dil_tokenize(tok, s->completion, s->completion_len, 0, &completion, err);
    if (st == DIL_OK) {
        int32_t *all = realloc(prompt.id, (prompt.n + completion.n + 1) * sizeof *all);
        if (!all) {
            st = dil_fail(err, DIL_EMEMORY, "out of memory for %zu tokens", prompt.n + completion.n);
        } else {
            if (completion.n) memcpy(all + prompt.n, completion.id, completion.n * sizeof *all);
            *out = (sample_ids){.ids = {all, prompt.n + completion.n}, .n_prompt = (uint32_t)prompt.n,
                                .first = (uint32_t)(completion.n || s->question ? prompt.n : 1)};
            prompt.id = NULL;
        }
    }
    dil_ids_fini(&prompt);
    dil_ids_fini(&completion);
    return st;
}

static dil_status answer_text(dil__eval *e, const sample_ids *s, dil_buf *out, dil_err *err)
{
    dil__session *m = &e->student;
    uint32_t max = e->opts->max_answer ? e->opts->max_answer : ANSWER_TOKENS;
    /* One token of the prompt is fed again: its logits are the first choice. */
    uint32_t kept = dil__session_keep(m, s->ids.id, s->n_prompt - 1);
    dil_status st = dil__session_feed(m, s->ids.id + kept, s->n_prompt - kept, 1, e->student_rows, err);
    for (uint32_t i = 0; st == DIL_OK; i++) {
        int32_t next = (int32_t)dil__logits_lse(e->student_rows, m->arch.n_vocab).argmax;
        if (dil_tokenizer_is_eog(m->tok, next)) break;
        st = dil_detokenize(m->tok, &next, 1, 0, out, err);
        if (st != DIL_OK || strchr(dil_buf_str(out), '\n') || i + 1 == max) break;
        st = dil__session_feed(m, &next, 1, 1, e->student_rows, err);
    }
    char *end = st == DIL_OK && out->data ? memchr(out->data, '\n', out->len) : NULL;
    if (end) out->len = (size_t)(end - (char *)out->data);
    return st;
}

static dil_status answer(dil__eval *e, const dil_sample *sample, const sample_ids *s, dil_err *err)
{
    dil_buf text;
    dil_buf_init(&text, ANSWER_BYTES);
    dil_status st = answer_text(e, s, &text, err);
    if (st == DIL_OK) {
        e->em += dil_squad_exact(dil_buf_str(&text), sample->answers, sample->n_answers);
        e->f1 += dil_squad_f1(dil_buf_str(&text), sample->answers, sample->n_answers);
        e->n_answers++;
    }
    dil_buf_fini(&text);
    return st;
}

static dil_status eval_all(dil__eval *e, const dil_dataset *data, const sample_ids *s, size_t n, dil_err *err)
{
    bool answers = data->format == DIL_DATA_SQUAD && !e->opts->no_answers;
    for (size_t i = 0; i < n; i++) {
        if (!dil_progress_step(e->progress, "evaluating", (double)i, (double)n))
            return dil_fail(err, DIL_ECANCELED, "canceled after %zu of %zu samples", i, n);
        if (!s[i].fits) continue;
        char what[64];
        snprintf(what, sizeof what, "sample %zu", i);
        dil_status st = DIL_OK;
        if (s[i].ids.n > s[i].first) st = dil__eval_span(e, s[i].ids.id, (uint32_t)s[i].ids.n, s[i].first, what, err);
        if (st == DIL_OK && answers) st = answer(e, &data->samples[i], &s[i], err);
        if (st != DIL_OK) return st;
        e->n_samples++;
    }
    dil_progress_step(e->progress, "evaluating", (double)n, (double)n);
    return DIL_OK;
}

/* The context that the longest sample needs, within what the model was trained for; longer ones are left out, and said so. */
static uint32_t choose_context(dil__eval *e, bool answers, sample_ids *s, size_t n)
{
    uint32_t room = answers ? (e->opts->max_answer ? e->opts->max_answer : ANSWER_TOKENS) : 0, need = 16;
    uint32_t most = e->student.arch.n_ctx_train ? e->student.arch.n_ctx_train : 2048;
    if (e->has_teacher && e->teacher.arch.n_ctx_train && e->teacher.arch.n_ctx_train < most) most = e->teacher.arch.n_ctx_train;
    for (size_t i = 0; i < n; i++) {
        s[i].fits = s[i].ids.n > 0 && s[i].ids.n + room <= most;
        if (!s[i].fits) e->n_left_out++;
        else if (s[i].ids.n + room > need) need = (uint32_t)s[i].ids.n + room;
    }
    if (e->n_left_out > 0)
        dil_log(DIL_LOG_WARN, "eval", "%llu of %zu samples do not fit the model's context of %u tokens and are left out",
                (unsigned long long)e->n_left_out, n, most);
    return need;
}

dil_status dil__eval_samples(dil__eval *e, const dil_dataset *data, dil_err *err)
{
    size_t n = data->n_samples;
    if (e->opts->max_samples > 0 && n > e->opts->max_samples) n = e->opts->max_samples;
    sample_ids *s = calloc(n ? n : 1, sizeof *s);
    if (!s) return dil_fail(err, DIL_EMEMORY, "out of memory for %zu samples", n);
    dil_status st = DIL_OK;
    for (size_t i = 0; i < n && st == DIL_OK; i++) st = tokenize_sample(e->student.tok, &data->samples[i], &s[i], err);
    bool answers = data->format == DIL_DATA_SQUAD && !e->opts->no_answers;
    if (st == DIL_OK) st = dil__eval_start(e, choose_context(e, answers, s, n), err);
    if (st == DIL_OK) st = eval_all(e, data, s, n, err);
    for (size_t i = 0; i < n; i++) dil_ids_fini(&s[i].ids);
    free(s);
    return st;
}
