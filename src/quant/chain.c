/* The cost of a model's damage figures is forward passes. Keeping the hidden states between layers halves those that go to the end
 * of the model, and makes a layer's local error cost one layer. Keeping all of it on disk was not needed: 576 floats a token and
 * layer. */
#include "quant/chain.h"

#include "quant/decoder.h"
#include "quant/logits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LOGITS_BYTES_MAX ((uint64_t)2 << 30)

struct dil__chain {
    const dil_arch *arch;
    dil__chain_opts o;
    const int32_t *ids;
    uint32_t n_layers;
    const dil_weights *weights;
    dil__decoder *d;    /* NULL: links are stages */
    dil__link **link;   /* [n_layers] */
    float **hidden;     /* [n_layers - 1][tokens][n_embd]: behind each layer */
    float *logits;      /* [tokens][n_vocab] of the reference */
    float *work[2];     /* [n_ctx][n_embd] */
    float *rows;        /* [n_ctx][n_vocab] */
    dil__score *score;  /* [n_ctx] */
    double loss;
};

void dil__chain_free(dil__chain *c)
{
    if (!c) return;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        if (c->link) dil__link_close(c->link[l]);
        if (c->hidden && l + 1 < c->n_layers) free(c->hidden[l]);
    }
    dil__decoder_free(c->d);
    free(c->link);
    free(c->hidden);
    free(c->logits);
    free(c->work[0]);
    free(c->work[1]);
    free(c->rows);
    free(c->score);
    free(c);
}

static uint64_t all_tokens(const dil__chain *c)
{
    return (uint64_t)c->o.n_ctx * c->o.n_chunks;
}

uint64_t dil__chain_tokens(const dil__chain *c)
{
    return (uint64_t)(c->o.n_ctx - 1 - DIL__CHAIN_SKIP) * c->o.n_chunks;
}

struct dil__decoder *dil__chain_decoder(const dil__chain *c)
{
    return c->d;
}

double dil__chain_loss(const dil__chain *c)
{
    return c->loss;
}

dil_status dil__chain_link(dil__chain *c, uint32_t layer, const dil_weights *weights, dil__link **out, dil_err *err)
{
    dil__link_opts o = {.device = c->o.device, .n_threads = c->o.n_threads, .n_ctx = c->o.n_ctx, .floats = c->o.floats, .decoder = c->d, .base = c->weights};
    return dil__link_open(c->arch, weights, layer, &o, out, err);
}

dil_status dil__chain_link_as_run(dil__chain *c, uint32_t layer, const dil_weights *weights, dil__link **out, dil_err *err)
{
    dil__link_opts o = {.device = c->o.device, .n_threads = c->o.n_threads, .n_ctx = c->o.n_ctx};
    return dil__link_open(c->arch, weights, layer, &o, out, err);
}

static dil_status step(dil__chain *c, dil__link *k, uint32_t chunk, const float *in, float *out, dil_err *err)
{
    return dil__link_run(k, c->ids + (size_t)chunk * c->o.n_ctx, in, out, err);
}

static float *hidden_of(const dil__chain *c, uint32_t layer, uint32_t chunk)
{
    return c->hidden[layer] + (size_t)chunk * c->o.n_ctx * c->arch->n_embd;
}

static float *logits_of(const dil__chain *c, uint32_t chunk)
{
    return c->logits + (size_t)chunk * c->o.n_ctx * c->arch->n_vocab;
}

static dil_status allocate(dil__chain *c, dil_err *err)
{
    size_t hidden = all_tokens(c) * c->arch->n_embd, n_ctx = c->o.n_ctx, n_vocab = c->arch->n_vocab;
    if (all_tokens(c) * n_vocab * sizeof(float) > LOGITS_BYTES_MAX)
        return dil_fail(err, DIL_ELIMIT, "%llu tokens of %zu logits exceed 2 GiB: measure on fewer tokens",
                        (unsigned long long)all_tokens(c), n_vocab);
    c->link = calloc(c->n_layers, sizeof(dil__link *));
    c->hidden = calloc(c->n_layers, sizeof(float *));
    c->logits = malloc(all_tokens(c) * n_vocab * sizeof(float));
    c->work[0] = malloc(n_ctx * c->arch->n_embd * sizeof(float));
    c->work[1] = malloc(n_ctx * c->arch->n_embd * sizeof(float));
    c->rows = malloc(n_ctx * n_vocab * sizeof(float));
    c->score = calloc(n_ctx, sizeof *c->score);
    bool ok = c->link && c->hidden && c->logits && c->work[0] && c->work[1] && c->rows && c->score;
    for (uint32_t l = 0; ok && l + 1 < c->n_layers; l++) ok = (c->hidden[l] = malloc(hidden * sizeof(float))) != NULL;
    if (!ok) return dil_fail(err, DIL_EMEMORY, "out of memory for the hidden states of %llu tokens", (unsigned long long)all_tokens(c));
    return DIL_OK;
}

static dil_status score_chunk(dil__chain *c, uint32_t chunk, const float *changed, double *nll, double *kl, double *kl2, dil_err *err)
{
    uint32_t n = c->o.n_ctx - 1 - DIL__CHAIN_SKIP;
    size_t skip = (size_t)DIL__CHAIN_SKIP * c->arch->n_vocab;
    const int32_t *target = c->ids + (size_t)chunk * c->o.n_ctx + DIL__CHAIN_SKIP + 1;
    const float *reference = logits_of(c, chunk) + skip;
    int threads = c->o.n_threads ? c->o.n_threads : dil_cpu_count();
    dil__logits_score(changed + skip, changed == logits_of(c, chunk) ? NULL : reference, target, n, c->arch->n_vocab, threads, c->score);
    for (uint32_t i = 0; i < n; i++) {
        const dil__score *s = &c->score[i];
        if (!isfinite(s->nll) || (kl && !isfinite(s->kl)))
            return dil_fail(err, DIL_EDATA, "the logits at token %u of chunk %u are not finite (NaN weights?)", i + DIL__CHAIN_SKIP, chunk);
        *nll += s->nll;
        if (kl) *kl += s->kl, *kl2 += s->kl * s->kl;
    }
    return DIL_OK;
}

static dil_status run_reference(dil__chain *c, const dil_progress *progress, dil_err *err)
{
    dil_status st = DIL_OK;
    double nll = 0;
    for (uint32_t k = 0; k < c->o.n_chunks && st == DIL_OK; k++) {
        for (uint32_t l = 0; l < c->n_layers && st == DIL_OK; l++) {
            bool head = l + 1 == c->n_layers;
            st = step(c, c->link[l], k, l ? hidden_of(c, l - 1, k) : NULL, head ? logits_of(c, k) : hidden_of(c, l, k), err);
            if (!dil_progress_step(progress, "reference", k * c->n_layers + l + 1, (double)c->o.n_chunks * c->n_layers))
                return dil_fail(err, DIL_ECANCELED, "canceled while running the reference");
        }
        if (st == DIL_OK) st = score_chunk(c, k, logits_of(c, k), &nll, NULL, NULL, err);
    }
    c->loss = nll / (double)dil__chain_tokens(c);
    return st;
}

/* A model that the decoder does not know runs as stages. */
static dil_status open_decoder(dil__chain *c, dil_err *err)
{
    dil_status st = dil__decoder_open(c->arch, c->o.n_ctx, c->o.n_threads, false, &c->d, err);
    if (st == DIL_EUNSUPPORTED) return DIL_OK;
    return st == DIL_OK ? dil__decoder_load(c->d, c->weights, err) : st;
}

dil_status dil__chain_open(const dil_arch *arch, const dil_weights *weights, const dil__chain_opts *opts, const int32_t *ids,
                           const dil_progress *progress, dil__chain **out, dil_err *err)
{
    dil__chain *c = calloc(1, sizeof *c);
    if (!c) return dil_fail(err, DIL_EMEMORY, "out of memory");
    c->arch = arch;
    c->o = *opts;
    c->ids = ids;
    c->n_layers = dil_arch_n_layers(arch);
    c->weights = weights;
    dil_status st = allocate(c, err);
    if (st == DIL_OK && c->o.floats) st = open_decoder(c, err);
    for (uint32_t l = 0; l < c->n_layers && st == DIL_OK; l++) st = dil__chain_link(c, l, weights, &c->link[l], err);
    if (st == DIL_OK) st = run_reference(c, progress, err);
    if (st != DIL_OK) {
        dil__chain_free(c);
        return st;
    }
    *out = c;
    return DIL_OK;
}

/* Relative to each token's own size: a few tokens have hidden states a thousand times larger, and the norms behind undo that. */
static double relative_error(const float *a, const float *b, uint32_t from, uint32_t n, size_t width)
{
    double sum = 0;
    for (uint32_t i = from; i < n; i++) {
        double e = 0, w = 0;
        for (size_t j = i * width; j < (i + 1) * width; j++) {
            double d = (double)a[j] - (double)b[j];
            e += d * d;
            w += (double)a[j] * (double)a[j];
        }
        sum += w > 0 ? e / w : 0;
    }
    return sum;
}

dil_status dil__chain_local(dil__chain *c, uint32_t layer, dil__link *s, double *out, dil_err *err)
{
    dil_status st = step(c, s, 0, layer ? hidden_of(c, layer - 1, 0) : NULL, c->work[0], err);
    if (st != DIL_OK) return st;
    double sum = relative_error(hidden_of(c, layer, 0), c->work[0], DIL__CHAIN_SKIP, c->o.n_ctx - 1, c->arch->n_embd);
    if (!isfinite(sum)) return dil_fail(err, DIL_EDATA, "layer %u: its output is not finite (NaN weights?)", layer);
    *out = sum / (double)(c->o.n_ctx - 1 - DIL__CHAIN_SKIP);
    return DIL_OK;
}

/* One chunk through the model from layer `from` on, then its score. */
static dil_status run_changed(dil__chain *c, dil__link *const *links, uint32_t from, uint32_t chunk, double sums[3], dil_err *err)
{
    const float *in = from ? hidden_of(c, from - 1, chunk) : NULL;
    for (uint32_t l = from; l < c->n_layers; l++) {
        bool head = l + 1 == c->n_layers;
        float *out = head ? c->rows : c->work[l & 1];
        dil_status st = step(c, links[l] ? links[l] : c->link[l], chunk, in, out, err);
        if (st != DIL_OK) return st;
        in = out;
    }
    return score_chunk(c, chunk, c->rows, &sums[0], &sums[1], &sums[2], err);
}

dil_status dil__chain_effect_all(dil__chain *c, dil__link *const *links, dil__effect *out, dil_err *err)
{
    uint32_t from = 0;
    while (from + 1 < c->n_layers && !links[from]) from++;
    double sums[3] = {0}, n = (double)dil__chain_tokens(c);
    for (uint32_t k = 0; k < c->o.n_chunks; k++) {
        dil_status st = run_changed(c, links, from, k, sums, err);
        if (st != DIL_OK) return st;
    }
    double var = sums[2] / n - (sums[1] / n) * (sums[1] / n);
    *out = (dil__effect){.kl = sums[1] / n, .kl_stderr = sqrt((var > 0 ? var : 0) / (n - 1)), .loss = sums[0] / n};
    return DIL_OK;
}

dil_status dil__chain_effect(dil__chain *c, uint32_t a, dil__link *sa, uint32_t b, dil__link *sb, dil__effect *out, dil_err *err)
{
    dil__link **links = calloc(c->n_layers, sizeof *links);
    if (!links) return dil_fail(err, DIL_EMEMORY, "out of memory");
    links[b] = sb;
    links[a] = sa;
    dil_status st = dil__chain_effect_all(c, links, out, err);
    free(links);
    return st;
}
