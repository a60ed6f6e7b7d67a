/* The readers of data sets, and the scores on what they read. The first byte chooses the format. */
#include <dilemma/dataset.h>

#include <stdlib.h>
#include <string.h>

static void check_score(double x)
{
    if (!(x >= 0 && x <= 1)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    dil_dataset d;
    dil_err err;
    if (dil_dataset_parse("fuzz", data + 1, size - 1, (dil_data_format)(data[0] % 4), &d, &err) != DIL_OK) return 0;
    for (size_t i = 0; i < d.n_samples; i++) {
        const dil_sample *s = &d.samples[i];
        if (strlen(s->completion) > s->completion_len || !s->prompt || !s->id) abort();
        check_score(dil_squad_exact(s->prompt, s->answers, s->n_answers));
        check_score(dil_squad_f1(s->prompt, s->answers, s->n_answers));
        if (s->n_answers && dil_squad_exact(s->answers[0], s->answers, 1) != 1) abort();
    }
    dil_dataset_fini(&d);
    return 0;
}
