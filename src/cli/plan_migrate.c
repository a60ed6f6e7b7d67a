/* `dilemma plan --from`: keep the old plan or move. */
#include "base/json.h"
#include "cli/cli.h"
#include "cli/plan_more.h"


static dil_status print_json(const dil_migration *m, dil_err *err)
{
    json_t *o = json_pack("{s:i, s:b, s:b, s:I}", "version", 1, "moves", m->moves, "forced", m->forced, "n_layers", (json_int_t)m->n_layers);
    const struct { const char *key; double value; } number[] = {
        {"moved_bytes", m->moved_bytes}, {"move_sec", m->move_sec}, {"replay_sec", m->replay_sec}, {"pause_sec", m->pause_sec}, {"streams", m->streams},
        {"cost_sec", m->cost_sec}, {"gain_sec", m->gain_sec}, {"old_total_sec", m->old_total_sec}, {"new_total_sec", m->new_total_sec},
        {"best_total_sec", m->best_total_sec}};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) json_object_set_new(o, number[i].key, dil__json_real_or_null(number[i].value));
    dil_status s = dil__json_save("-", o, err);
    json_decref(o);
    return s;
}

static void print_text(const dil_migration *m, const dil_migrate_options *mo)
{
    char bytes[32];
    if (!m->moves && m->best_total_sec < m->old_total_sec * (1 - 1e-6))
        printf("The old plan stays: %.3f s an answer now; the best plan takes %.3f s, which does not pay for the move within %g s.\n\n",
               m->old_total_sec, m->best_total_sec, mo->horizon_sec);
    else if (!m->moves) printf("The old plan stays: it is the best, %.3f s an answer.\n\n", m->old_total_sec);
    else {
        if (m->forced) printf("The old plan cannot run any more: %s.\n", m->why_forced);
        printf("A new plan: %u layers to bring, %s over the links, %.2f s, and %.2f s to replay %.3g running streams.\n", m->n_layers,
               dil_format_bytes((uint64_t)m->moved_bytes, bytes), m->move_sec, m->replay_sec, m->streams);
        if (!m->forced)
            printf("An answer takes %.3f s in place of %.3f s: within %g s that saves %.1f s of waiting for %.1f s lost to the move.\n",
                   m->new_total_sec, m->old_total_sec, mo->horizon_sec, m->gain_sec, m->cost_sec);
        putchar('\n');
    }
}

int dil__cli_migrate(const dil_profile *profile, const dil_cluster *cluster, dil_plan_options *o, bool guess_as_before, const char *from,
                     const dil_migrate_options *mo, bool json, bool quiet, dil_plan **plan)
{
    dil_err err = {0};
    dil_plan *old = NULL;
    dil_migration m;
    dil_status s = dil_plan_read(from, &old, &err);
    if (s == DIL_OK && guess_as_before) o->n_guesses = old->n_guesses, o->acceptance = old->acceptance;
    if (s == DIL_OK) s = dil_plan_migrate(profile, cluster, o, old, mo, plan, &m, &err);
    dil_cli_progress_done();
    dil_plan_free(old);
    if (s == DIL_OK && json) s = print_json(&m, &err);
    if (s != DIL_OK) return dil_cli_fail("plan: --from", &err);
    if (!json && !quiet) print_text(&m, mo);
    return 0;
}
