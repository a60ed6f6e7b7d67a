/* The embedded questions, split by paragraph: two thirds calibrate and measure damage, the rest judges. */
#include "cli/demo.h"

#include <string.h>

static void write_paragraph(dil_buf *b, const dil_sample *s, bool begins)
{
    if (begins) dil_buf_printf(b, "%sContext: %s\n", b->len ? "\n" : "", s->context);
    if (s->n_answers) dil_buf_printf(b, "Question: %s\nAnswer: %s\n", s->question, s->answers[0]);
}

/* Writes only what differs, so that a file's hash and time tell the truth about a change. */
static dil_status write_if_new(const char *path, dil_buf *b, dil_err *err)
{
    dil_buf old;
    dil_buf_init(&old, 64u << 20);
    bool same = dil_file_exists(path) && dil_file_read(path, &old, NULL) == DIL_OK && old.len == b->len && memcmp(old.data, b->data, b->len) == 0;
    dil_buf_fini(&old);
    return same ? DIL_OK : dil_file_write(path, b->data, b->len, err);
}

dil_status dil_cli_demo_text_open(dil_cli_demo_text *t, const char *dir, dil_err *err)
{
    *t = (dil_cli_demo_text){0};
    dil_status st = dil_dataset_load(NULL, DIL_DATA_SQUAD, &t->data, err);
    if (st != DIL_OK) return st;
    dil_buf profile, held;
    dil_buf_init(&profile, 64u << 20);
    dil_buf_init(&held, 64u << 20);
    size_t paragraph = 0;
    for (size_t i = 0; i < t->data.n_samples; i++) {
        const dil_sample *s = &t->data.samples[i];
        bool begins = i == 0 || strcmp(s->context, s[-1].context) != 0;
        paragraph += begins;
        bool judge = paragraph % 3 == 0;
        write_paragraph(judge ? &held : &profile, s, begins);
        if (judge && begins && s->n_answers && paragraph % 9 == 0 && t->n_ask < DIL_DEMO_QUESTIONS) t->ask[t->n_ask++] = s;
    }
    snprintf(t->profile_path, sizeof t->profile_path, "%s/text-profile.txt", dir);
    snprintf(t->held_path, sizeof t->held_path, "%s/text-held-out.txt", dir);
    if (profile.failed || held.failed) st = dil_fail(err, DIL_EMEMORY, "no memory for the text");
    if (st == DIL_OK) st = write_if_new(t->profile_path, &profile, err);
    if (st == DIL_OK) st = write_if_new(t->held_path, &held, err);
    dil_buf_fini(&profile);
    dil_buf_fini(&held);
    return st;
}

void dil_cli_demo_text_close(dil_cli_demo_text *t)
{
    dil_dataset_fini(&t->data);
}
