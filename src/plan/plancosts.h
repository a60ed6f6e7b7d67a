/* plan/plancosts.h - the seconds that plan.json carries for planning again. */
#ifndef DIL_PLAN_PLANCOSTS_H
#define DIL_PLAN_PLANCOSTS_H

#include "plan/jsonfile.h"

#include <dilemma/plan.h>

/* Onto the plan's arena; too many leave costs NULL. False: out of memory, or a level that the profile does not have. */
bool dil__plan_costs_fill(dil_plan *plan, const dil_profile *prof);
dil_status dil__plan_costs_check(const dil_plan *p, const char *what, dil_err *err);
dil_status dil__plan_costs_read(const json_t *doc, const char *what, dil_plan *p, dil_err *err); /* after the layers */
json_t *dil__plan_costs_json(const dil_plan *p);

#endif
