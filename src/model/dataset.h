/* model/dataset.h - what the readers of data sets share. */
#ifndef DIL_MODEL_DATASET_H
#define DIL_MODEL_DATASET_H

#include <dilemma/dataset.h>

enum {
    DIL__DATA_JSON_MAX = 128 << 20,  /* bytes of a SQuAD file (the largest published has 46 MB) */
    DIL__DATA_LINE_MAX = 16 << 20,   /* bytes of a JSON line */
    DIL__DATA_CONTEXT_MAX = 1 << 20, /* bytes of a paragraph; each of its questions holds a copy */
    DIL__DATA_FIELD_MAX = 64 << 10,  /* bytes of a question, an answer, an id */
    DIL__DATA_SAMPLES_MAX = 4 << 20,
    DIL__DATA_ANSWERS_MAX = 1000     /* of one question */
};

typedef struct dil__data_builder {
    const char *name; /* of the file, for errors */
    dil_arena *arena;
    dil_sample *samples;
    size_t n, cap;
} dil__data_builder;

dil_status dil__data_push(dil__data_builder *b, const dil_sample *s, dil_err *err);
/* A copy on the arena; *out is zero-terminated. */
dil_status dil__data_copy(dil__data_builder *b, const char *s, size_t len, const char **out, dil_err *err);

dil_status dil__data_squad(dil__data_builder *b, const char *text, size_t len, dil_err *err);

#endif
