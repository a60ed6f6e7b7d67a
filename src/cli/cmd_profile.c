/* dilemma profile: what every layer costs on every node at every level, and what each level damages. */
#include "cli/cli.h"
#include "cli/nodetime.h"
#include "cli/target.h"

#include <dilemma/profiler.h>
#include <dilemma/quantize.h>

#include <inttypes.h>
#include <math.h>

static void print_report(const char *out, const dil_profiler_report *r)
{
    printf("%s: %u levels a block; divergence on %" PRIu64 " tokens, %u figures measured, %u interpolated\n", out, r->n_levels, r->tokens,
           r->n_measured_kl, r->n_interpolated_kl);
    printf("loss of the model as given: %.4f nats a token\n", r->baseline_loss);
    for (uint32_t i = 0; i < r->n_checks; i++)
        printf("every layer near %-12s sum of the layers' divergences %.4f, measured %.4f (ratio %.2f), loss %+.4f\n", r->check[i].level,
               r->check[i].predicted_kl, r->check[i].measured_kl, r->check[i].measured_kl / r->check[i].predicted_kl,
               r->check[i].loss_increase);
    if (isfinite(r->kl_to_loss)) printf("loss a nat of divergence: %.3f\n", r->kl_to_loss);
}

static int run(int argc, char **argv)
{
    dil_profiler_opts o = dil_profiler_defaults();
    o.method = "layerwise";
    const char *cluster = NULL, *format = "auto", *keys = NULL, *key_file = NULL;
    bool insecure = false, here = false;
    int64_t tokens = 1024, calib = o.calib_tokens, context = o.context, sequences = 1, threads = 0;
    const dil_cli_opt opts[] = {
        {.name = "--cluster", .kind = DIL_CLI_STR, .out = &cluster, .arg = "F", .help = "the machines, from `dilemma probe` (required)"},
        {.name = "--keys", .kind = DIL_CLI_STR, .out = &keys, .arg = "DIR", .help = "a cluster's folder with coordinator.key"},
        {.name = "--key", .kind = DIL_CLI_STR, .out = &key_file, .arg = "FILE", .help = "our key pair (KEYS/coordinator.key, or ~/.config/dilemma/key)"},
        {.name = "--insecure", .kind = DIL_CLI_FLAG, .out = &insecure, .help = "nodes without keys"},
        {.name = "--time-here", .kind = DIL_CLI_FLAG, .out = &here, .help = "take the seconds on this machine, stretched by each node's throttle,\ninstead of on the nodes"},
        {.name = "--data", .kind = DIL_CLI_STR, .out = &o.data, .arg = "FILE", .help = "text or questions like those to come (default: embedded)"},
        {.name = "--format", .kind = DIL_CLI_STR, .out = &format, .arg = "F", .help = "squad, text, jsonl (default: by content)"},
        {.name = "--output", .letter = 'o', .kind = DIL_CLI_STR, .out = &o.out, .arg = "FILE", .help = "profile.json (required)"},
        {.name = "--resume", .kind = DIL_CLI_FLAG, .out = &o.resume, .help = "go on where a killed run was"},
        {.name = "--method", .kind = DIL_CLI_STR, .out = &o.method, .arg = "M", .help = "how students will be quantized, which their divergence depends on:\nlayerwise (default), gptq, rtn"},
        {.name = "--full", .kind = DIL_CLI_FLAG, .out = &o.full, .help = "measure the divergence of every level (about four times as long)"},
        {.name = "--passes", .kind = DIL_CLI_FLAG, .out = &o.passes, .help = "measure what 2, 4, 8 and 16 tokens in one pass take as well: for `plan --speculate`"},
        {.name = "--tokens", .kind = DIL_CLI_INT, .out = &tokens, .arg = "N", .help = "tokens to measure damage on, at least (1024)", .min = 64, .max = 1e6},
        {.name = "--imatrix-tokens", .kind = DIL_CLI_INT, .out = &calib, .arg = "N", .help = "tokens for the importance matrix (8192)", .min = 512, .max = 1e8},
        {.name = "--context", .kind = DIL_CLI_INT, .out = &context, .arg = "N", .help = "KV cache for N tokens (2048, or all positions that were learned)", .min = 16, .max = 1 << 20},
        {.name = "--sequences", .kind = DIL_CLI_INT, .out = &sequences, .arg = "N", .help = "at once (1)", .min = 1, .max = 1024},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads here (all)", .min = 1, .max = 256},
        DIL_CLI_END};
    dil_cli_list pos = {.n = 0};
    int status = dil_cli_parse(argc, argv, "MODEL.gguf --cluster F --keys DIR [--data FILE] -o profile.json",
                               "Measures bytes, seconds and damage of every layer at every level. Writes FILE, and FILE.imatrix.gguf for `quantize`.\n\n"
                               "Seconds are measured on the nodes, which must be running.\n\n"
                               "  dilemma profile model.gguf --cluster cluster.json --keys keys --data questions.json -o profile.json",
                               opts, &pos, 1, 1);
    if (status >= 0) return status;
    if (!o.out) return dil_cli_usage("profile: -o FILE is missing");
    if (!cluster) return dil_cli_usage("profile: --cluster F is missing");
    if (!dil_data_format_from_name(format, &o.format)) return dil_cli_usage("profile: --format is squad, text, jsonl or auto, not '%s'", format);
    dil_quantize_method m;
    if (!dil_quantize_method_from_name(o.method, &m)) return dil_cli_usage("profile: '%s' is no method (layerwise, gptq, rtn)", o.method);
    dil_err err;
    dil_cluster *c;
    if (dil_cluster_read(cluster, &c, &err) != DIL_OK) return dil_cli_fail("profile", &err);
    dil_keypair key;
    dil_cli_nodetime timer = {.key = insecure ? NULL : &key, .limit_sec = o.time_limit_sec};
    if (!here) {
        if (!insecure && dil_cli_own_key(key_file, keys, &key, &err) != DIL_OK) {
            dil_cluster_free(c);
            return dil_cli_fail("profile", &err);
        }
        o.time_layer = dil_cli_time_on_node;
        o.time_ctx = &timer;
    }
    uint32_t scored = o.n_ctx - 33;
    o.model = pos.item[0];
    o.cluster = c;
    o.n_chunks = (uint32_t)((tokens + scored - 1) / scored);
    o.calib_tokens = (uint32_t)calib;
    o.context = (uint32_t)context;
    o.sequences = (uint32_t)sequences;
    o.n_threads = (int)threads;
    dil_profiler_report r;
    dil_status st = dil_profiler_run(&o, dil_cli_progress(), &r, &err);
    dil_cluster_free(c);
    if (st != DIL_OK) return dil_cli_fail("profile", &err);
    dil_cli_progress_done();
    if (!dil_cli_quiet) print_report(o.out, &r);
    return 0;
}

const dil_cli_cmd dil_cli_profile = {"profile", "measure what each layer costs on each node and damages at each level", run};
