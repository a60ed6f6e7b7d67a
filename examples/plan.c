/* Where each layer goes: a plan from measurements that `dilemma probe` and `dilemma profile` wrote.
 *
 *   cc plan.c $(pkg-config --cflags --libs dilemma) -o plan && ./plan profile.json cluster.json 0.1275 */
#include <dilemma/problem.h>

#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 4) return fputs("usage: plan PROFILE CLUSTER RATIO\n", stderr), 2;
    dil_err err;
    dil_profile *profile = NULL;
    dil_cluster *cluster = NULL;
    dil_plan *plan = NULL;
    dil_plan_options o = dil_plan_options_default();
    o.max_ratio = strtod(argv[3], NULL); /* bytes of the file over four a parameter */
    dil_status s = dil_profile_read(argv[1], &profile, &err);
    if (s == DIL_OK) s = dil_cluster_read(argv[2], &cluster, &err);
    if (s == DIL_OK) s = dil_plan_make(profile, cluster, &o, &plan, &err);
    for (uint32_t i = 0; s == DIL_OK && i < plan->n_stages; i++)
        printf("%-12s layers %u to %u, %.2f ms a token\n", plan->stages[i].node, plan->stages[i].first_layer, plan->stages[i].last_layer, 1e3 * plan->stages[i].compute_sec);
    if (s == DIL_OK) printf("%.2f ms a token; no plan within the budget is more than %.2f %% faster\n", 1e3 * plan->token_sec, 100 * plan->gap);
    else fprintf(stderr, "plan: %s\n", err.text); /* also where no plan meets the budget: that is an answer */
    dil_plan_free(plan);
    dil_cluster_free(cluster);
    dil_profile_free(profile);
    return dil_status_exit(s);
}
