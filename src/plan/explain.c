/* Why there is no plan: each budget in turn is made elastic and its least overrun found, all others kept. A budget that helps
 * alone is named with the amount; where none does, that is said, with what is short on its own. */
#include "plan/milp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct finding {
    bool helps;           /* widening this budget alone by `amount` gives a plan */
    double amount;        /* bytes, damage or load */
    uint32_t node;        /* storage: where most is missing */
} finding;

static dil_status least_overrun(const dil_problem *p, dil__budget which, double limit_sec, finding *f)
{
    dil__milp *m;
    dil__milp_shape shape = {.goal = DIL_GOAL_SEC, .relax = which};
    dil_status s = dil__milp_build(p, &shape, &m, NULL);
    if (s != DIL_OK) return s;
    uint32_t *choice = calloc((size_t)2 * p->n_layers, sizeof *choice);
    dil__milp_result r = {.node = choice, .level = choice ? choice + p->n_layers : NULL};
    dil__milp_run_options o = {.limit_sec = limit_sec, .gap = 1e-3};
    s = choice ? dil__milp_run(m, &o, &r, NULL) : DIL_EMEMORY;
    dil__milp_free(m);
    free(choice);
    if (s == DIL_OK) *f = (finding){true, r.objective / dil__milp_elastic_unit(p, which), r.elastic_node};
    return s;
}

static const char *bytes_text(double v, char out[32])
{
    return dil_format_bytes(v < 1 ? 0 : v < 1e18 ? (uint64_t)ceil(v) : (uint64_t)1e18, out);
}

static double offered(const dil_problem *p)
{
    double sum = 0;
    for (uint32_t s = 0; s < p->n_nodes; s++) sum += p->store_bytes[s];
    return sum;
}

static void describe(const dil_problem *p, dil__budget which, const finding *f, dil_buf *out)
{
    char a[32], b[32], c[32];
    const char *sep = out->len ? "; or " : "";
    switch (which) {
    case DIL__BUDGET_STORE:
        dil_buf_printf(out, "%sstorage: the nodes offer %s and %s more is needed, most of it on node %u", sep, bytes_text(offered(p), a),
                       bytes_text(f->amount, b), f->node);
        break;
    case DIL__BUDGET_DAMAGE:
        dil_buf_printf(out, "%squality: the least damage possible is %.6g, the budget %.6g", sep, p->damage_max + f->amount, p->damage_max);
        break;
    case DIL__BUDGET_FILE:
        dil_buf_printf(out, "%ssize: the smallest file possible takes %s, the limit is %s (%s short)", sep,
                       bytes_text(p->file_bytes_max + f->amount, a), bytes_text(p->file_bytes_max, b), bytes_text(f->amount, c));
        break;
    case DIL__BUDGET_LOAD:
        dil_buf_printf(out, "%srate: the busiest node or link would be %.4g loaded, the limit is %.4g (a rate of %.3g of the asked one fits)",
                       sep, p->load_max + f->amount, p->load_max, p->load_max / (p->load_max + f->amount));
        break;
    case DIL__BUDGET_NONE: break;
    }
}

static bool has(const dil_problem *p, dil__budget b)
{
    switch (b) {
    case DIL__BUDGET_DAMAGE: return isfinite(p->damage_max);
    case DIL__BUDGET_FILE: return isfinite(p->file_bytes_max);
    case DIL__BUDGET_LOAD: return isfinite(p->load_max);
    default: return true;
    }
}

/* With every budget lifted only the links remain. */
static bool links_alone_forbid(const dil_problem *p, double limit_sec)
{
    dil_problem free_of = *p;
    free_of.damage_max = free_of.file_bytes_max = free_of.load_max = INFINITY;
    finding f = {0};
    return least_overrun(&free_of, DIL__BUDGET_STORE, limit_sec, &f) == DIL_EINFEASIBLE;
}

dil_status dil__explain_infeasible(const dil_problem *p, double limit_sec, dil_err *err)
{
    static const dil__budget budgets[] = {DIL__BUDGET_STORE, DIL__BUDGET_DAMAGE, DIL__BUDGET_FILE, DIL__BUDGET_LOAD};
    if (links_alone_forbid(p, limit_sec / 5))
        return dil_fail(err, DIL_EINFEASIBLE, "no plan: no path of links leads from the entry through the nodes and back");
    dil_buf text;
    dil_buf_init(&text, DIL_ERR_TEXT_MAX);
    bool unknown = false;
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        finding f = {0};
        dil_status s = has(p, budgets[i]) ? least_overrun(p, budgets[i], limit_sec / 5, &f) : DIL_EINFEASIBLE;
        if (s == DIL_OK) describe(p, budgets[i], &f, &text);
        else if (s != DIL_EINFEASIBLE) unknown = true;
    }
    if (text.len) dil_fail(err, DIL_EINFEASIBLE, "no plan meets the budgets: %s", dil_buf_str(&text));
    else if (unknown) dil_fail(err, DIL_EINFEASIBLE, "no plan meets the budgets (there was no time to find which is short)");
    else dil_fail(err, DIL_EINFEASIBLE, "no plan meets the budgets: at least two of storage, quality, size and rate are short together");
    dil_buf_fini(&text);
    return DIL_EINFEASIBLE;
}
