/* serve/report.h - the HTML report of a run: what was measured, planned, quantized and answered, in one file with no outside
 * request. Pure: data in, text out. */
#ifndef DIL_SERVE_REPORT_H
#define DIL_SERVE_REPORT_H

#include <dilemma/eval.h>
#include <dilemma/plan.h>

#define DIL_REPORT_MAX (32u << 20)

typedef struct dil__report_answer {
    const char *question, *expected, *teacher, *student;
} dil__report_answer;

typedef struct dil__report {
    const char *title, *model_name, *when;
    const char *command;              /* what makes this report again */
    const char *const *notes; size_t n_notes; /* what a reader must know to judge the figures */
    const dil_cluster *cluster;
    const dil_profile *profile;
    const dil_plan *plan;
    double first_damage;              /* what the plan predicted before the student was measured on text kept apart; NAN: the same */
    double max_ratio;                 /* the budget; NAN: none */
    dil_eval_result before, after;    /* the teacher by itself, the student beside the teacher */
    double measured_token_sec, measured_prefill_sec; /* medians; NAN: not measured */
    double measured_min_sec, measured_max_sec;
    double single_token_sec;          /* best single node with this plan's levels if it had the memory; NAN: unknown */
    const dil__report_answer *answers; size_t n_answers;
    const struct dil__report_step { const char *name; double sec; bool kept; } *steps; size_t n_steps;
} dil__report;

/* Appends a whole HTML document. Fails by out->failed. */
void dil__report_html(const dil__report *r, dil_buf *out);
/* The plan as one SVG element: a column a node, a row a layer, coloured by bits a weight, with the hops between. */
void dil__report_plan_svg(const dil__report *r, dil_buf *out);
void dil__report_links_svg(const dil__report *r, dil_buf *out);
void dil__report_time_svg(const dil__report *r, dil_buf *out);

void dil__html_text(dil_buf *out, const char *text); /* escaped for text and quoted attributes; control bytes become spaces */

#endif
