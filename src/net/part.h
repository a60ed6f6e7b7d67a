/* net/part.h - one stage of the ring on this node: a work comes in, is computed, and goes on to the next node. */
#ifndef DIL_NET_PART_H
#define DIL_NET_PART_H

#include "net/session.h"

struct dil__part {
    dil__load_part spec;
    dil_stage *stage;
    void *out; /* DEALER to the next node; NULL until the first work of an epoch */
};

dil_stage_opts dil__part_opts(const dil__net_session *s, const dil__load_part *p);
dil_status dil__part_open_head(dil__net_session *s, dil_err *err); /* sampler and logits, where the last stage is */
void dil__part_close(dil__net_session *s, dil__part *p);

#endif
