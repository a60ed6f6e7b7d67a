/* Calibration taps: the graph is computed in pieces that end where a linear layer's input is ready, so that nothing has to be
 * kept: ggml reuses the memory of such rows soon after. */
#include "engine/stage.h"

#include <string.h>

static dil_status show(dil_stage *s, const dil__tap *t, dil_err *err)
{
    if (s->device.is_cpu && ggml_is_contiguous(t->x)) {
        s->tap(s->tap_ctx, t->name, t->x->data, (uint64_t)ggml_nrows(t->x), (uint64_t)t->x->ne[0]);
        return DIL_OK;
    }
    return dil_fail(err, DIL_EUNSUPPORTED, "calibration runs on the CPU, not on %s", ggml_backend_dev_name(s->device.dev));
}

/* Computes nodes [from, to) of g. */
static dil_status compute_piece(dil_stage *s, dil__graph *g, struct ggml_cgraph *piece, int from, int to, dil_err *err)
{
    if (from >= to) return DIL_OK;
    ggml_graph_clear(piece);
    for (int i = from; i < to; i++) ggml_graph_add_node(piece, ggml_graph_node(g->g, i));
    return dil__device_compute(&s->device, piece, err);
}

static int index_of(dil__graph *g, const struct ggml_tensor *t)
{
    int n = ggml_graph_n_nodes(g->g);
    for (int i = 0; i < n; i++) {
        if (ggml_graph_node(g->g, i) == t) return i;
    }
    return -1; /* an input: ready before the first node */
}

dil_status dil__stage_compute_tapped(dil_stage *s, dil__graph *g, dil_err *err)
{
    int n = ggml_graph_n_nodes(g->g), done = 0;
    struct ggml_init_params p = {.mem_size = ggml_graph_overhead_custom((size_t)n + 1, false) + 64, .no_alloc = true};
    struct ggml_context *ctx = ggml_init(p);
    if (!ctx) return dil_fail(err, DIL_EMEMORY, "engine: no memory for a graph of %d nodes", n);
    struct ggml_cgraph *piece = ggml_new_graph_custom(ctx, (size_t)n + 1, false);
    dil_status status = DIL_OK;
    for (size_t i = 0; !status && i < g->n_taps; i++) {
        int at = index_of(g, g->tap[i].x) + 1;
        status = compute_piece(s, g, piece, done, at, err);
        if (at > done) done = at;
        if (!status) status = show(s, &g->tap[i], err);
    }
    if (!status) status = compute_piece(s, g, piece, done, n, err);
    ggml_free(ctx);
    return status;
}
