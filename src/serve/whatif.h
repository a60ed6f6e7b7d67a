/* serve/whatif.h - plans for the web page: as JSON, and made anew for a question. Pure: data in, JSON out. */
#ifndef DIL_SERVE_WHATIF_H
#define DIL_SERVE_WHATIF_H

#include <dilemma/problem.h>
#include <dilemma/tensor.h>
#include <jansson.h>

#define DIL_WHATIF_SEC 2.0       /* of a solve */
#define DIL_WHATIF_POINT_SEC 0.5 /* of a point of the front */
#define DIL_WHATIF_POINTS_MAX 12

/* profile (for the bits of a level) may be NULL. NULL: out of memory. */
json_t *dil__plan_json(const dil_plan *p, const dil_profile *profile);
json_t *dil__cluster_json(const dil_cluster *c);

typedef struct dil__whatif {
    double max_ratio, max_kl;      /* INFINITY: no limit */
    uint32_t context;              /* 0: the plan's */
    const char *without[64]; uint32_t n_without; /* borrowed from doc */
    uint32_t points;
    json_t *doc;
} dil__whatif;

/* Errors: DIL_EFORMAT, with *param the name of the member. */
dil_status dil__whatif_parse(const char *body, size_t len, const dil_cluster *c, dil__whatif *out, const char **param, dil_err *err);
void dil__whatif_fini(dil__whatif *w);
/* {"plan": {...} or null, "why": text, "front": [...]}. No plan is an answer. Errors: DIL_ECANCELED and worse. Blocks for
 * DIL_WHATIF_SEC and points * DIL_WHATIF_POINT_SEC at most (twice each without a quality budget). */
dil_status dil__whatif_answer(const dil__whatif *w, const dil_plan *now, const dil_profile *profile, const dil_cluster *c, const dil_progress *progress,
                              json_t **out, dil_err *err);

#endif
