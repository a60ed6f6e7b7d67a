/* dilemma eval: loss, perplexity, divergence from a teacher, exact match and F1, and the file's real size. */
#include "base/wire.h"
#include "cli/cli.h"

#include <dilemma/eval.h>

#include <inttypes.h>
#include <math.h>

static void print_text(const dil_eval_result *r)
{
    char size[32];
    printf("tokens       %" PRIu64 "\n", r->tokens);
    printf("loss         %.4f ± %.4f nats a token (perplexity %.4f)\n", r->loss, r->loss_stderr, r->perplexity);
    if (isfinite(r->kl_mean)) {
        printf("teacher      %.4f nats a token (perplexity %.4f); the loss is %+.2f %% of it\n", r->teacher_loss, exp(r->teacher_loss),
               100 * (r->loss / r->teacher_loss - 1));
        printf("divergence   %.5f ± %.5f nats a token, 99th percentile %.4f, maximum %.3f\n", r->kl_mean, r->kl_stderr, r->kl_p99,
               r->kl_max);
        printf("same top-1   %.2f %%\n", 100 * r->top1_agreement);
    }
    if (isfinite(r->f1)) printf("answers      exact match %.2f %%, F1 %.2f %% (%" PRIu64 " samples)\n", 100 * r->em, 100 * r->f1, r->samples);
    printf("size         %s, %.3f bits a weight, %.2f %% of fp32\n", dil_format_bytes(r->bytes, size), r->bits_per_weight,
           100 * r->ratio_to_fp32);
}

static int run(int argc, char **argv)
{
    dil_eval_opts o = {0};
    const char *format = "auto", *teacher = NULL, *wire = "f32";
    int64_t stages = 1;
    int64_t ctx = 512, chunks = 0, limit = 0, threads = 0, max_answer = 32;
    bool json = false;
    const dil_cli_opt opts[] = {
        {.name = "--data", .kind = DIL_CLI_STR, .out = &o.data, .arg = "FILE", .help = "what to judge on (default: the embedded questions)"},
        {.name = "--format", .kind = DIL_CLI_STR, .out = &format, .arg = "F", .help = "squad, text, jsonl (default: by content)"},
        {.name = "--teacher", .kind = DIL_CLI_STR, .out = &teacher, .arg = "T.gguf", .help = "measure the KL divergence from this model"},
        {.name = "--ctx", .kind = DIL_CLI_INT, .out = &ctx, .arg = "N", .help = "tokens a chunk of text (512)", .min = 8, .max = 1 << 20},
        {.name = "--chunks", .kind = DIL_CLI_INT, .out = &chunks, .arg = "N", .help = "at most N chunks of text", .min = 1, .max = 1e9},
        {.name = "--limit", .kind = DIL_CLI_INT, .out = &limit, .arg = "N", .help = "at most N questions or lines", .min = 1, .max = 1e9},
        {.name = "--max-answer", .kind = DIL_CLI_INT, .out = &max_answer, .arg = "N", .help = "tokens of an answer (32)", .min = 1, .max = 4096},
        {.name = "--no-answers", .kind = DIL_CLI_FLAG, .out = &o.no_answers, .help = "skip the greedy answers (no em, f1)"},
        {.name = "--stages", .kind = DIL_CLI_INT, .out = &stages, .arg = "N", .help = "compute the model as N stages in a row, as a ring of N nodes would", .min = 1, .max = 16},
        {.name = "--wire", .kind = DIL_CLI_STR, .out = &wire, .arg = "T", .help = "with --stages: hidden states travel as f32, f16 or bf16 (f32)"},
        {.name = "--device", .kind = DIL_CLI_STR, .out = &o.device, .arg = "D", .help = "where to compute (CPU)"},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads (all)", .min = 1, .max = 256},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &json, .help = "one JSON object on standard output"},
        DIL_CLI_END};
    dil_cli_list pos = {.n = 0};
    int status = dil_cli_parse(argc, argv, "MODEL.gguf [--data FILE] [--teacher T.gguf]",
                               "Measures how well a model predicts a text or answers questions, and how far it is from a teacher. Text is\n"
                               "judged by llama.cpp's protocol, so that figures compare; answers by SQuAD's exact match and F1.\n"
                               "A questions file is judged on the answers' tokens.\n\n"
                               "  dilemma eval student.gguf --teacher teacher.gguf --data wiki.txt --chunks 40",
                               opts, &pos, 1, 1);
    if (status >= 0) return status;
    if (!dil_data_format_from_name(format, &o.format)) return dil_cli_usage("eval: --format is squad, text, jsonl or auto, not '%s'", format);
    if (!dil__wire_from_name(wire, &o.wire)) return dil_cli_usage("eval: --wire is f32, f16 or bf16, not '%s'", wire);
    o.stages = (uint32_t)stages;
    o.n_ctx = (uint32_t)ctx;
    o.max_chunks = (uint32_t)chunks;
    o.max_samples = (uint32_t)limit;
    o.max_answer = (uint32_t)max_answer;
    o.n_threads = (int)threads;
    dil_err err;
    dil_eval_result r;
    if (dil_eval(pos.item[0], teacher, &o, dil_cli_progress(), &r, &err) != DIL_OK) return dil_cli_fail("eval", &err);
    dil_cli_progress_done();
    if (!json) print_text(&r);
    else if (dil_eval_write_json(&r, "-", &err) != DIL_OK) return dil_cli_fail("eval", &err);
    return 0;
}

const dil_cli_cmd dil_cli_eval = {"eval", "loss, perplexity, KL divergence from a teacher, EM and F1, real size", run};
