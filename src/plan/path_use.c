/* plan/path_use.c - ways that remember how much of a node's store they have used.
 *
 * For visits V1.. of one node with n layers each, h(V) the least cost within the whole store, g(V) the least cost with every byte at a price v and
 * no limit, their cost in any plan is at least
 *     T_k = max(T_{k-1} + h(V_k), max over sets A of visits: Σ_{not in A} h + Σ_{A} g - v·store)
 * and both are counted by one number: used r = 0 at first; a visit adds max(h, g + r - v·store) to the cost, and r grows by g less that where it is
 * more. r over v·store is the part of the store that is used; when it is full every further byte costs v. The price counts only where a node is
 * come back to, and what it gives back is given once: unlike a multiplier of the whole problem it costs ways elsewhere nothing. A way remembers r of
 * the nodes that its cell remembers, rounded down to fifteenths: less used never costs more, so forgetting and rounding only lower the bound.
 *
 * Labels of a cell are kept by (cost, used), no one cheaper with no more used; beyond `most` of them the dearest are melted into others: the less
 * of both in every entry, at the lower cost. A way is left when it cannot be completed below the limit by anything found from the other side, where
 * both sides' use of a node is added up. Tables over all masks (path_ng.c) with three or four classes of visits were the alternative:
 * a thousand values a cell, most of them of ways that nobody wants. */
#include "plan/path_use_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 8 };

/* --- a pass --- */

typedef struct pass {
    px_use *u;
    int dir, b; /* the boundary that visits are put on to */
    atomic_bool failed;
} pass;

/* Whether something that comes on the other side of the cell completes the way below the limit. */
static bool completes(const px_use *u, int dir, int b, int t, double cost, uint64_t used) {
    const size_t k = use_cell(u, b, t);
    if (!use_known(u, !dir, b)) return dir == 1 || cost + u->x->start0[k] <= u->limit;
    const px_use_list *l = &u->list[!dir][k];
    for (int i = 0; i < l->n && cost + l->v[i].cost <= u->limit; i++)
        if (!used || !l->v[i].used || cost + l->v[i].cost + dil__px_use_overrun(u, k, used, l->v[i].used) <= u->limit) return true;
    return false;
}

static bool gather_from(px_use *u, int dir, int b, int t, int s, double hop, px_use_list *start) {
    const size_t k = use_cell(u, b, s), j = use_cell(u, b, t);
    const px_use_list *l = &u->list[dir][k];
    int shift[PX_USE_MEMORY];
    if (l->n == 0 || s == t) return true;
    dil__px_use_map(u, k, j, shift);
    for (int i = 0; i < l->n; i++) {
        const double cost = l->v[i].cost + hop;
        const uint64_t used = dil__px_use_carry(l->v[i].used, shift);
        if (cost > u->limit) break;
        if (!completes(u, dir, b, t, cost, used)) continue;
        if (!dil__px_use_push(start, (px_use_label){cost, used, s, i, 0})) return false;
        if (!used) break; /* the others are no cheaper */
    }
    return true;
}

bool dil__px_use_gather(px_use *u, int dir, int b, int t, px_use_list *start) {
    const px_core *c = u->x->c;
    start->n = 0;
    if (b == (dir ? c->n_layers : 0)) {
        const double end = dir ? c->sink[t] : c->source[t];
        return !(end < INFINITY) || !completes(u, dir, b, t, end, 0) || dil__px_use_push(start, (px_use_label){end, 0, -1, -1, 0});
    }
    bool ok = true;
    if (c->hop) {
        for (int s = 0; s < c->n_nodes && ok; s++) {
            const double hop = dir ? px_hop_into(c, t, s, b) : px_hop_into(c, s, t, b);
            if (hop < INFINITY) ok = gather_from(u, dir, b, t, s, hop, start);
        }
    } else {
        const px_links *k = dir ? c->links : &u->in;
        for (int e = k->first[t]; e < k->first[t + 1] && ok; e++) ok = gather_from(u, dir, b, t, k->to[e], k->sec[e], start);
    }
    if (dil__px_use_reduce(u, use_cell(u, b, t), start, u->most)) u->melted = true;
    return ok;
}

static bool extend(pass *p, int t, const px_use_list *start) {
    px_use *u = p->u;
    const px_core *c = u->x->c;
    const int L = c->n_layers, b = p->b, most = p->dir ? b : L - b;
    const size_t k = use_cell(u, b, t);
    const int self = dil__px_use_entry(u, k, t);
    const double *g = u->priced + (size_t)t * (size_t)(L + 1);
    int shift[PX_USE_MEMORY];
    for (int n = 1; n <= most && n <= u->x->g.run_cap; n++) {
        const int first = p->dir ? b - n : b, end = p->dir ? b - n : b + n;
        const size_t v = use_visit_at(u, t, first, n), j = use_cell(u, end, t);
        const double h = u->x->w.large[v], near = u->near[j], priced = g[first + n] - g[first];
        if (!u->alive[v] || !(h < INFINITY) || !(near < INFINITY)) continue;
        const int to = dil__px_use_entry(u, j, t);
        bool mapped = false, any = false;
        for (int i = 0; i < start->n; i++) {
            const px_use_label *y = &start->v[i];
            if (y->cost + h + near > u->limit) break;
            const double before = self < 0 || !y->used ? 0 : u->full[t] * (double)(y->used >> (USE_BITS * self) & USE_FULL) / USE_FULL;
            const double add = fmax(h, priced + before - u->full[t]), cost = y->cost + add;
            if (cost + near > u->limit) continue;
            if (!mapped) dil__px_use_map(u, k, j, shift);
            mapped = any = true;
            uint64_t used = dil__px_use_carry(y->used, shift);
            if (to >= 0) {
                const double after = before + fmax(0, priced - add);
                int f = u->full[t] > 0 ? (int)(USE_FULL * after / u->full[t]) : 0;
                if (f > USE_FULL) f = USE_FULL;
                used = (used & ~(31ull << (USE_BITS * to))) | (uint64_t)f << (USE_BITS * to);
            }
            if (!dil__px_use_push(&u->list[p->dir][j], (px_use_label){cost, used, y->from_node, y->from_at, n})) return false;
        }
        if (any) u->alive[v] |= 2;
        if (u->list[p->dir][j].n > 4 * u->most + 64 && dil__px_use_reduce(u, j, &u->list[p->dir][j], u->most)) u->melted = true;
    }
    return true;
}

static void put_visits(void *ctx, size_t block) {
    pass *p = ctx;
    px_use_list start = {0};
    const int S = p->u->x->c->n_nodes;
    for (int t = (int)block * BLOCK; t < (int)(block + 1) * BLOCK && t < S; t++) {
        if (!dil__px_use_gather(p->u, p->dir, p->b, t, &start)) p->failed = true;
        if (start.n > 0 && !extend(p, t, &start)) p->failed = true;
    }
    free(start.v);
}

/* What is in the list is all, and takes no more room than it needs. */
static void settle(void *ctx, size_t block) {
    pass *p = ctx;
    const int S = p->u->x->c->n_nodes;
    for (int t = (int)block * BLOCK; t < (int)(block + 1) * BLOCK && t < S; t++) {
        const size_t at = use_cell(p->u, p->b, t);
        px_use_list *k = &p->u->list[p->dir][at];
        if (dil__px_use_reduce(p->u, at, k, p->u->most)) p->u->melted = true;
        if (k->cap <= 2 * k->n) continue;
        px_use_label *v = k->n > 0 ? realloc(k->v, (size_t)k->n * sizeof *v) : NULL;
        if (k->n == 0) free(k->v);
        if (k->n > 0 && !v) continue;
        k->v = v;
        k->cap = k->n;
    }
}

/* near: by the ways of the other direction, or by what path_ng.c left. */
static void look_ahead(px_use *u, int dir) {
    const px_core *c = u->x->c;
    const int L = c->n_layers, S = c->n_nodes, other = !dir;
    for (int b = 0; b <= L; b++)
        for (int s = 0; s < S; s++) {
            const size_t k = use_cell(u, b, s);
            double least = INFINITY;
            if (b == (dir ? 0 : L)) least = dir ? c->source[s] : c->sink[s];
            else if (b == (dir ? L : 0)) least = 0;
            else if (!use_known(u, other, b)) least = dir ? u->x->has_from ? u->x->from0[k] : 0 : u->x->ends[k] ? u->x->rest[u->x->at[k]] : INFINITY;
            else if (c->hop) {
                for (int t = 0; t < S; t++)
                    if (t != s) least = fmin(least, (dir ? px_hop_into(c, t, s, b) : px_hop_into(c, s, t, b)) + use_cheapest(&u->list[other][use_cell(u, b, t)]));
            } else if (dir) {
                for (int e = u->in.first[s]; e < u->in.first[s + 1]; e++) least = fmin(least, u->in.sec[e] + use_cheapest(&u->list[other][use_cell(u, b, u->in.to[e])]));
            } else {
                for (int e = c->links->first[s]; e < c->links->first[s + 1]; e++)
                    least = fmin(least, c->links->sec[e] + use_cheapest(&u->list[other][use_cell(u, b, c->links->to[e])]));
            }
            u->near[k] = least;
        }
}

/* After a pass: the visits that it looked at and did not use are dropped. */
static void count_alive(px_use *u, int dir, int to) {
    const int L = u->x->c->n_layers, S = u->x->c->n_nodes;
    u->n_alive = 0;
    for (int s = 0; s < S; s++)
        for (int l = 0; l < L; l++)
            for (int n = 1; n <= u->x->g.run_cap; n++) {
                uint8_t *v = &u->alive[use_visit_at(u, s, l, n)];
                *v = (dir ? l + n > to : l < to) ? *v >> 1 : *v & 1;
                u->n_alive += *v;
            }
}

bool dil__px_use_pass(px_use *u, int dir, int to, double limit, int64_t deadline_ns) {
    const px_core *c = u->x->c;
    const int L = c->n_layers, S = c->n_nodes, n_steps = dir ? L - to : to;
    const size_t n_blocks = ((size_t)S + BLOCK - 1) / BLOCK;
    pass p = {.u = u, .dir = dir};
    u->limit = limit;
    u->melted = false;
    u->late = false;
    u->whole[dir] = dir ? L + 1 : -1; /* until they are there again */
    look_ahead(u, dir);
    for (size_t k = 0; k < (size_t)(L + 1) * (size_t)S; k++) u->list[dir][k].n = 0;
    for (int i = 0; i < n_steps && !p.failed; i++) {
        p.b = dir ? L - i : i;
        u->late = dil_now_ns() >= deadline_ns;
        if (u->late) {
            count_alive(u, dir, dir ? L : 0);
            return true;
        }
        if (i > 0) dil_parallel(u->x->n_threads, n_blocks, settle, &p);
        dil_parallel(u->x->n_threads, n_blocks, put_visits, &p);
    }
    if (p.failed) return false;
    p.b = to;
    dil_parallel(u->x->n_threads, n_blocks, settle, &p);
    u->whole[dir] = to;
    u->least = u->x->w.root;
    if (to == (dir ? 0 : L)) {
        u->least = INFINITY;
        for (int s = 0; s < S; s++) u->least = fmin(u->least, (dir ? c->source[s] : c->sink[s]) + use_cheapest(&u->list[dir][use_cell(u, p.b, s)]));
    }
    count_alive(u, dir, to);
    u->n_labels = 0;
    for (size_t k = 0; k < (size_t)(L + 1) * (size_t)S; k++) u->n_labels += (size_t)u->list[dir][k].n;
    return true;
}

/* --- life --- */

/* The price of a byte beyond the store: what makes a layer there as dear as the plan's mean one. */
static void set_prices(px_use *u) {
    const px_core *c = u->x->c;
    const px_weight *w = &u->x->w;
    const int L = c->n_layers, S = c->n_nodes, Q = c->n_levels;
    for (int s = 0; s < S; s++) {
        double natural = 0, bytes = 0, *g = u->priced + (size_t)s * (size_t)(L + 1);
        for (int l = 0; l < L; l++) {
            double least = INFINITY;
            int at = 0;
            for (int q = 0; q < Q; q++)
                if (px_cost(c, w, s, l, q) < least) {
                    least = px_cost(c, w, s, l, q);
                    at = q;
                }
            natural += least;
            bytes += px_bytes_on(c, s, l, at);
        }
        const double over = bytes > 0 && c->store[s] > 0 ? fmax(0, u->limit - natural) / bytes : 0;
        u->full[s] = over * c->store[s];
        g[0] = 0;
        for (int l = 0; l < L; l++) {
            double least = INFINITY;
            for (int q = 0; q < Q; q++) least = fmin(least, px_cost(c, w, s, l, q) + over * px_bytes_on(c, s, l, q));
            g[l + 1] = g[l] + least;
        }
    }
}

void dil__px_use_again(px_use *u, double limit) {
    u->limit = limit;
    u->whole[0] = -1;
    u->whole[1] = u->x->c->n_layers + 1;
    set_prices(u);
}

void dil__px_use_revive(px_use *u, double limit) {
    const px_ng *x = u->x;
    for (int s = 0; s < x->c->n_nodes; s++)
        for (int l = 0; l < x->c->n_layers; l++)
            for (int n = 1; n <= x->g.run_max[s * x->c->n_layers + l]; n++) u->alive[use_visit_at(u, s, l, n)] = x->ends[use_cell(u, l + n, s)];
    dil__px_use_again(u, limit);
}

bool dil__px_use_init(px_use *u, px_ng *x, double limit) {
    const size_t L = (size_t)x->c->n_layers, S = (size_t)x->c->n_nodes, cells = (L + 1) * S, visits = S * L * (size_t)x->g.run_cap;
    *u = (px_use){.x = x, .limit = limit};
    u->full = dil__px_alloc(S, sizeof(double));
    u->priced = dil__px_alloc(cells, sizeof(double));
    u->near = dil__px_alloc(cells, sizeof(double));
    u->alive = dil__px_alloc(visits, 1);
    u->memory = dil__px_alloc(cells, PX_USE_MEMORY * sizeof *u->memory);
    u->n_memory = dil__px_alloc(cells, 1);
    u->list[0] = dil__px_alloc(cells, sizeof(px_use_list));
    u->list[1] = dil__px_alloc(cells, sizeof(px_use_list));
    if (!u->full || !u->priced || !u->near || !u->alive || !u->memory || !u->n_memory || !u->list[0] || !u->list[1]) return false;
    if (!x->c->hop && !dil__px_links_back(x->c->links, x->c->n_nodes, &u->in)) return false;
    for (size_t k = 0; k < L * S; k++) {
        u->n_memory[k] = (uint8_t)(x->n_memory[k] < PX_USE_MEMORY ? x->n_memory[k] : PX_USE_MEMORY);
        memcpy(u->memory + k * PX_USE_MEMORY, x->memory + k * PX_NG_MEMORY, u->n_memory[k] * sizeof *u->memory);
    }
    dil__px_use_revive(u, limit);
    return true;
}

void dil__px_use_fini(px_use *u) {
    const size_t cells = u->x ? (size_t)(u->x->c->n_layers + 1) * (size_t)u->x->c->n_nodes : 0;
    for (int d = 0; d < 2; d++) {
        for (size_t k = 0; u->list[d] && k < cells; k++) free(u->list[d][k].v);
        free(u->list[d]);
    }
    free(u->full);
    free(u->priced);
    free(u->near);
    free(u->alive);
    free(u->memory);
    free(u->n_memory);
    dil__px_links_fini(&u->in);
    *u = (px_use){0};
}
