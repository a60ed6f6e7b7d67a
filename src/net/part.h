/* net/part.h - one stage of the ring on this node: a work comes in, is computed, and goes on to the next node. */
#ifndef DIL_NET_PART_H
#define DIL_NET_PART_H

#include "net/session.h"

struct dil__part {
    dil__load_part spec;
    dil_stage *stage;
    void *out;  /* DEALER to the next node; NULL: not dialled. Made under the session's lock, used by the worker thread */
    bool fresh; /* nothing was sent on it; under the session's lock */
};

dil_stage_opts dil__part_opts(const dil__net_session *s, const dil__load_part *p);
dil_status dil__part_open_head(dil__net_session *s, dil_err *err); /* sampler and logits, where the last stage is */
void dil__part_close(dil__net_session *s, dil__part *p);

#endif
