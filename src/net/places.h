/* net/places.h - stages in a row that this process drives itself, each on its own device. */
#ifndef DIL_NET_PLACES_H
#define DIL_NET_PLACES_H

#include <dilemma/runner.h>

typedef struct dil__place {
    uint32_t first_layer, last_layer;
    const char *device; /* borrowed for the call; NULL: that of the options */
} dil__place;

/* place [n_places <= DIL__PARTS_MAX] covers the layers in order. */
dil_status dil__runner_places(const dil_arch *arch, const dil_weights *weights, const dil_stage_opts *opts, uint32_t n_seq, const dil__place *place,
                              uint32_t n_places, dil_runner **out, dil_err *err);

#endif
