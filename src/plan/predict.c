/* The referee of plan.json: every figure again, from profile, cluster and options alone. It is written from the formats and from
 * docs/PLANNER.md, request by request, and shares no code with build.c or a solver: what both get wrong together must be in the
 * mathematics, not in an index. */
#include <dilemma/problem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 1e-9
#define AGREE 1e-6
#define TOKEN_ID_BYTES 4.0

typedef struct spot { /* where a layer is */
    uint32_t in_cluster, in_profile;
    const dil_profile_layer *layer;
    const dil_profile_level *level;
    double decode_sec; /* a token, at the mean context */
    double pass_sec;   /* a token and the guesses behind it */
} spot;

typedef struct referee {
    const dil_profile *prof;
    const dil_cluster *cluster;
    const dil_plan_options *o;
    const dil_plan *plan;
    uint32_t entry, head;
    double chunks, chunk_tokens;
    double rows, tokens; /* of a pass: that go in, that come out on the mean */
    spot *at; /* [n_layers] */
} referee;

/* A pass ends at its first wrong guess: k right ones and then a wrong one give k + 1 tokens, and so do all n right ones. */
static double tokens_of_a_pass(const dil_plan_options *o)
{
    double mean = 0;
    for (uint32_t k = 0; k < o->n_guesses; k++) mean += (k + 1) * pow(o->acceptance, k) * (1 - o->acceptance);
    return o->n_guesses ? mean + (o->n_guesses + 1) * pow(o->acceptance, o->n_guesses) : 1;
}

static dil_status locate(referee *r, dil_err *err)
{
    double cached = r->o->tokens_in + 0.5 * r->o->tokens_out;
    for (uint32_t l = 0; l <= r->head; l++) {
        const dil_plan_layer *pl = &r->plan->layers[l];
        spot *a = &r->at[l];
        a->layer = &r->prof->layers[l];
        a->in_cluster = dil_cluster_find(r->cluster, pl->node);
        if (a->in_cluster == DIL_NO_NODE) return dil_fail(err, DIL_ENOTFOUND, "layer %u: node \"%.100s\" is not in the cluster", l, pl->node);
        uint32_t i = 0;
        while (i < r->prof->n_nodes && strcmp(r->prof->nodes[i], pl->node) != 0) i++;
        if (i == r->prof->n_nodes) return dil_fail(err, DIL_ENOTFOUND, "layer %u: node \"%.100s\" is not in the profile", l, pl->node);
        a->in_profile = i;
        for (i = 0; i < a->layer->n_levels && strcmp(a->layer->levels[i].name, pl->level) != 0;) i++;
        if (i == a->layer->n_levels) return dil_fail(err, DIL_ENOTFOUND, "layer %u: level \"%.100s\" is not in the profile", l, pl->level);
        a->level = &a->layer->levels[i];
        double more = a->layer->decode_sec_per_cached ? a->layer->decode_sec_per_cached[a->in_profile] * (cached - r->prof->n_past) : 0;
        a->decode_sec = fmax(0, a->level->decode_sec[a->in_profile] + more);
        a->pass_sec = a->decode_sec + dil_profile_more_sec(a->level, r->prof->n_nodes, a->in_profile, (uint32_t)r->rows);
    }
    return DIL_OK;
}

static uint64_t shared_bytes(const referee *r)
{
    if (!r->prof->tied_head) return 0;
    const dil_profile_level *head = r->at[r->head].level, *first = r->at[0].level;
    if (head->shared_bytes) return head->shared_bytes;
    return first->bytes < head->bytes ? first->bytes : head->bytes;
}

/* Seconds of `bytes` over the link; false: there is none. */
static bool travel(const referee *r, uint32_t from, uint32_t to, double bytes, double *sec)
{
    *sec = 0;
    if (from == to) return true;
    const dil_cluster_link *k = dil_cluster_link_get(r->cluster, from, to);
    if (!k) return false;
    *sec = k->latency_sec + bytes / k->bytes_per_sec;
    return true;
}

static double busiest_chunk(const referee *r)
{
    double worst = 0;
    for (uint32_t l = 0; l < r->head; l++) {
        double node = 0, link = 0;
        const dil_cluster_link *mine = l + 1 < r->head ? dil_cluster_link_get(r->cluster, r->at[l].in_cluster, r->at[l + 1].in_cluster) : NULL;
        for (uint32_t k = 0; k < r->head; k++) {
            if (r->at[k].in_cluster == r->at[l].in_cluster) node += r->chunk_tokens * r->at[k].level->prefill_sec[r->at[k].in_profile];
            if (mine && k + 1 < r->head && r->at[k].in_cluster == mine->from && r->at[k + 1].in_cluster == mine->to)
                link += r->chunk_tokens * (double)r->prof->hidden_bytes / mine->bytes_per_sec;
        }
        worst = fmax(worst, fmax(node, link));
    }
    return worst;
}

typedef struct figures {
    double token_sec, prefill_sec, total_sec, ratio, damage, requests_per_sec;
} figures;

static dil_status add_times(const referee *r, figures *f, dil_err *err)
{
    double hidden = (double)r->prof->hidden_bytes, sec;
    const spot *at = r->at;
    double pass = 0; /* the way of one pass, guesses behind the token */
    if (!travel(r, r->entry, at[0].in_cluster, TOKEN_ID_BYTES * r->rows, &sec))
        return dil_fail(err, DIL_EINFEASIBLE, "no link from the entry to \"%.100s\"", r->plan->layers[0].node);
    pass += sec;
    travel(r, r->entry, at[0].in_cluster, TOKEN_ID_BYTES * r->chunk_tokens, &sec);
    f->prefill_sec += sec;
    for (uint32_t l = 0; l <= r->head; l++) {
        pass += at[l].pass_sec;
        f->prefill_sec += l == r->head ? at[l].decode_sec : r->chunk_tokens * at[l].level->prefill_sec[at[l].in_profile];
        if (l == r->head) break;
        if (!travel(r, at[l].in_cluster, at[l + 1].in_cluster, hidden * r->rows, &sec))
            return dil_fail(err, DIL_EINFEASIBLE, "no link from \"%.100s\" to \"%.100s\"", r->plan->layers[l].node, r->plan->layers[l + 1].node);
        pass += sec;
        travel(r, at[l].in_cluster, at[l + 1].in_cluster, l + 1 == r->head ? hidden : hidden * r->chunk_tokens, &sec);
        f->prefill_sec += sec;
    }
    if (!travel(r, at[r->head].in_cluster, r->entry, TOKEN_ID_BYTES * r->tokens, &sec))
        return dil_fail(err, DIL_EINFEASIBLE, "no link from \"%.100s\" to the entry", r->plan->layers[r->head].node);
    f->token_sec = (pass + sec) / r->tokens;
    travel(r, at[r->head].in_cluster, r->entry, TOKEN_ID_BYTES, &sec);
    f->prefill_sec += sec;
    if (r->chunks > 1) f->prefill_sec += (r->chunks - 1) * busiest_chunk(r);
    f->total_sec = f->prefill_sec + (r->o->tokens_out - 1.0) * f->token_sec;
    return DIL_OK;
}

static dil_status add_quality(const referee *r, figures *f, dil_err *err)
{
    bool kl = strcmp(r->plan->damage_measure, "kl") == 0;
    double bytes = -(double)shared_bytes(r);
    for (uint32_t l = 0; l <= r->head; l++) {
        bytes += (double)r->at[l].level->bytes;
        if (l == r->head && r->prof->tied_head) continue;
        double d = kl ? r->at[l].level->damage_kl : r->at[l].level->damage_weight;
        if (isnan(d)) return dil_fail(err, DIL_EDATA, "layer %u: the %s damage was not measured", l, r->plan->damage_measure);
        f->damage += fmax(0, d);
    }
    f->ratio = bytes / (4 * (double)r->prof->n_params);
    if (r->prof->tied_head && strcmp(r->at[0].level->name, r->at[r->head].level->name) != 0)
        return dil_fail(err, DIL_EINFEASIBLE, "the tied head is at %s, the embedding at %s", r->at[r->head].level->name, r->at[0].level->name);
    if (f->ratio > r->o->max_ratio * (1 + TOLERANCE))
        return dil_fail(err, DIL_EINFEASIBLE, "size: %.6f of fp32, limit %.6f", f->ratio, r->o->max_ratio);
    double most = r->o->max_damage;
    if (isfinite(r->o->max_loss_increase)) most = fmin(most, r->o->max_loss_increase * fabs(r->prof->baseline_loss) / r->prof->kl_to_loss_slope);
    if (f->damage > most * (1 + TOLERANCE)) return dil_fail(err, DIL_EINFEASIBLE, "quality: damage %.9g, budget %.9g", f->damage, most);
    return DIL_OK;
}

static dil_status check_storage(const referee *r, dil_err *err)
{
    double context = r->o->context ? r->o->context : r->prof->context;
    for (uint32_t l = 0; l <= r->head; l++) {
        double bytes = 0, buffer = 0;
        uint32_t node = r->at[l].in_cluster;
        for (uint32_t k = 0; k <= r->head; k++) {
            if (r->at[k].in_cluster != node) continue;
            bytes += (double)r->at[k].level->bytes + ceil((double)r->at[k].layer->kv_bytes * context / r->prof->context);
            buffer = fmax(buffer, (double)r->at[k].layer->buffer_bytes);
        }
        if (r->at[0].in_cluster == node && r->at[r->head].in_cluster == node) bytes -= (double)shared_bytes(r);
        double memory = (double)r->cluster->nodes[node].memory_bytes;
        if (bytes + buffer > memory * (1 + TOLERANCE))
            return dil_fail(err, DIL_EINFEASIBLE, "storage: \"%.100s\" needs %.0f bytes and offers %.0f", r->plan->layers[l].node,
                            bytes + buffer, memory);
    }
    return DIL_OK;
}

static double connection_speed(const referee *r, uint32_t node, bool out)
{
    const dil_cluster_node *n = &r->cluster->nodes[node];
    double speed = out ? n->out_bytes_per_sec : n->in_bytes_per_sec;
    for (uint32_t i = 0; i < r->cluster->n_links; i++) {
        const dil_cluster_link *k = &r->cluster->links[i];
        if ((out ? n->out_bytes_per_sec : n->in_bytes_per_sec) == 0 && (out ? k->from : k->to) == node) speed = fmax(speed, k->bytes_per_sec);
    }
    return speed;
}

typedef struct busy { /* seconds that one request takes of a layer's node, of the link behind it, of the node's connection */
    double node, link, out, in;
} busy;

static busy busy_at(const referee *r, uint32_t l)
{
    const spot *at = r->at;
    double n_in = r->o->tokens_in, passes = r->o->tokens_out / r->tokens, hidden = (double)r->prof->hidden_bytes, link = 0, out = 0, in = 0;
    uint32_t node = at[l].in_cluster;
    busy b = {0};
    for (uint32_t k = 0; k <= r->head; k++) {
        if (at[k].in_cluster == node) b.node += passes * at[k].pass_sec + (k == r->head ? 0 : n_in * at[k].level->prefill_sec[at[k].in_profile]);
        if (k == r->head || at[k].in_cluster == at[k + 1].in_cluster) continue;
        double bytes = hidden * (k + 1 == r->head ? passes * r->rows : n_in + passes * r->rows);
        if (at[k].in_cluster == node) out += bytes;
        if (at[k + 1].in_cluster == node) in += bytes;
        if (l < r->head && at[k].in_cluster == node && at[k + 1].in_cluster == at[l + 1].in_cluster) link += bytes;
    }
    const dil_cluster_link *mine = l < r->head ? dil_cluster_link_get(r->cluster, node, at[l + 1].in_cluster) : NULL;
    if (mine) b.link = link / mine->bytes_per_sec;
    if (out > 0) b.out = out / connection_speed(r, node, true);
    if (in > 0) b.in = in / connection_speed(r, node, false);
    return b;
}

static dil_status check_rate(const referee *r, figures *f, dil_err *err)
{
    double rate = r->o->rate, most = r->o->load_max * (1 + TOLERANCE), worst = 0;
    for (uint32_t l = 0; l <= r->head; l++) {
        busy b = busy_at(r, l);
        double way = fmax(b.link, fmax(b.out, b.in));
        worst = fmax(worst, fmax(b.node, way));
        if (rate * b.node > most)
            return dil_fail(err, DIL_EINFEASIBLE, "rate: \"%.100s\" is busy %.4f of the time, limit %.4f", r->plan->layers[l].node, rate * b.node, r->o->load_max);
        if (rate * way > most)
            return dil_fail(err, DIL_EINFEASIBLE, "rate: the links of \"%.100s\" are loaded above %.4f", r->plan->layers[l].node, r->o->load_max);
    }
    f->requests_per_sec = worst > 0 ? r->o->load_max / worst : 0;
    return DIL_OK;
}

static void fill_plan(const referee *r, const figures *f, dil_plan *plan)
{
    uint64_t shared = shared_bytes(r);
    plan->n_guesses = r->o->n_guesses;
    plan->acceptance = r->o->n_guesses ? r->o->acceptance : 0;
    plan->token_sec = f->token_sec;
    plan->prefill_sec = f->prefill_sec;
    plan->total_sec = f->total_sec;
    plan->requests_per_sec = f->requests_per_sec;
    plan->ratio_to_fp32 = f->ratio;
    plan->predicted_damage = f->damage;
    for (uint32_t l = 0; l <= r->head; l++) plan->layers[l].bytes = r->at[l].level->bytes - (l == r->head ? shared : 0);
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        dil_plan_stage *g = &plan->stages[i];
        g->bytes = 0;
        g->compute_sec = 0;
        for (uint32_t l = g->first_layer; l <= g->last_layer; l++) {
            g->bytes += r->at[l].level->bytes;
            g->compute_sec += r->at[l].decode_sec;
            if (l == r->head && r->at[0].in_cluster == r->at[l].in_cluster) g->bytes -= shared;
        }
        bool last = g->last_layer == r->head;
        travel(r, r->at[g->last_layer].in_cluster, last ? r->entry : r->at[g->last_layer + 1].in_cluster,
               last ? TOKEN_ID_BYTES : (double)r->prof->hidden_bytes, &g->hop_sec);
    }
}

static bool differ(double a, double b)
{
    return fabs(a - b) > AGREE * fmax(fabs(a), fabs(b)) + 1e-15;
}

static dil_status compare(const dil_plan *plan, const figures *f, dil_err *err)
{
    const struct { const char *name; double stated, found; } v[] = {
        {"token_sec", plan->token_sec, f->token_sec}, {"prefill_sec", plan->prefill_sec, f->prefill_sec},
        {"total_sec", plan->total_sec, f->total_sec}, {"ratio_to_fp32", plan->ratio_to_fp32, f->ratio},
        {"predicted_damage", plan->predicted_damage, f->damage}};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        if (differ(v[i].stated, v[i].found))
            return dil_fail(err, DIL_EINTERNAL, "the plan says %s %.9g, recomputed it is %.9g", v[i].name, v[i].stated, v[i].found);
    }
    return DIL_OK;
}

dil_status dil_plan_predict(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *options, dil_plan *plan, bool fill,
                            dil_err *err)
{
    if (plan->n_layers != profile->n_layers)
        return dil_fail(err, DIL_EUSAGE, "the plan has %u layers, the profile %u", plan->n_layers, profile->n_layers);
    if (options->n_guesses > DIL_PLAN_GUESSES_MAX || (options->n_guesses && !(options->acceptance >= 0 && options->acceptance <= 1)))
        return dil_fail(err, DIL_EUSAGE, "%u guesses a pass, right with chance %g", options->n_guesses, options->acceptance);
    referee r = {.prof = profile, .cluster = cluster, .o = options, .plan = plan, .head = profile->n_layers - 1,
                 .rows = 1.0 + options->n_guesses, .tokens = tokens_of_a_pass(options)};
    r.entry = dil_cluster_find(cluster, plan->entry);
    if (r.entry == DIL_NO_NODE) return dil_fail(err, DIL_ENOTFOUND, "the entry node \"%.100s\" is not in the cluster", plan->entry);
    r.chunks = (double)((options->tokens_in + (uint64_t)profile->batch - 1) / profile->batch);
    r.chunk_tokens = options->tokens_in / r.chunks;
    r.at = calloc(profile->n_layers, sizeof *r.at);
    if (!r.at) return dil_fail(err, DIL_EMEMORY, "checking a plan: out of memory");
    figures f = {0};
    dil_status s = locate(&r, err);
    if (s == DIL_OK) s = add_times(&r, &f, err);
    if (s == DIL_OK) s = add_quality(&r, &f, err);
    if (s == DIL_OK) s = check_storage(&r, err);
    if (s == DIL_OK) s = check_rate(&r, &f, err);
    if (s == DIL_OK && fill) fill_plan(&r, &f, plan);
    if (s == DIL_OK && !fill) s = compare(plan, &f, err);
    free(r.at);
    return s;
}
