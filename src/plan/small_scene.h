/* plan/small_scene.h - for tests: a small random model on its cluster, with the options of its plans; a failure names the seed. */
#ifndef DIL_PLAN_SMALL_SCENE_H
#define DIL_PLAN_SMALL_SCENE_H

#include "plan/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

typedef struct scene {
    dil_profile *prof;
    dil_cluster *c;
    dil_plan_options o;
} scene;

static inline scene make(uint64_t seed, uint32_t blocks, uint32_t nodes, bool tight)
{
    scene s = {.o = dil_plan_options_default()};
    dil_err err = {0};
    if (small_model(seed, blocks, nodes, tight, &s.prof, &s.c, &err) != DIL_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
    s.o.max_damage = 0.03;
    s.o.gap = 1e-7;
    return s;
}

static inline void drop(scene *s)
{
    dil_profile_free(s->prof);
    dil_cluster_free(s->c);
}

#endif
