/* cli/plan_more.h - what `dilemma plan` does beside one plan. Each prints and returns the exit status. */
#ifndef DIL_CLI_PLAN_MORE_H
#define DIL_CLI_PLAN_MORE_H

#include <dilemma/fleet.h>
#include <dilemma/migrate.h>

#include "cli/cli.h"

/* --compare: `list` is "all" or solver names with commas. */
int dil__cli_compare(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, const char *list, bool json);
int dil__cli_compare_problem(const dil_problem *p, const dil_solve_options *o, const char *list, bool json);
int dil__cli_explain(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, const dil_plan *plan, bool json);
int dil__cli_explain_problem(const dil_problem *p, const dil_solve_options *o, const dil_solution *plan, bool json);
int dil__cli_front(const dil_profile *profile, const dil_cluster *cluster, const dil_plan_options *o, uint32_t n, const char *over_name,
                   const char *csv, const char *svg); /* over_name: "damage" (NULL), "ratio"; csv NULL: standard output */
/* --from: *plan is the old plan or a better one, owned. Says on standard output what was decided, or as JSON. guess_as_before: *o takes the old
 * plan's speculation. */
int dil__cli_migrate(const dil_profile *profile, const dil_cluster *cluster, dil_plan_options *o, bool guess_as_before, const char *from,
                     const dil_migrate_options *mo, bool json, bool quiet, dil_plan **plan);

/* --model-profile F[:key=value]... repeated: plans for all at once. `o` holds what all have in common; out: "p.json" becomes p-0.json, ... */
int dil__cli_fleet(const dil_cli_list *list, const char *cluster_path, const dil_plan_options *o, const char *out, bool json);

#endif
