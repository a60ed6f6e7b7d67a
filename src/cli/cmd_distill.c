/* dilemma distill: trains a quantized file's scales and norms towards its teacher. */
#include "cli/cli.h"

#include <dilemma/distill.h>

#include <inttypes.h>
#include <math.h>
#include <string.h>

static void print_step(void *ctx, uint32_t step, double loss, double val_kl)
{
    (void)ctx;
    if (dil_cli_quiet) return;
    dil_cli_progress_done();
    if (isfinite(val_kl) && isfinite(loss)) fprintf(stderr, "step %4u  loss %.5f  held-out divergence %.5f\n", step, loss, val_kl);
    else if (isfinite(val_kl)) fprintf(stderr, "step %4u  held-out divergence %.5f\n", step, val_kl);
    else fprintf(stderr, "step %4u  loss %.5f\n", step, loss);
}

static void print_report(const char *out, const dil_distill_report *r)
{
    printf("%s: %" PRIu64 " parameters, %u steps, %" PRIu64 " tokens; held-out divergence %.5f, was %.5f", out, r->n_trained, r->steps,
           r->train_tokens, r->kl_after, r->kl_before);
    printf(r->best_step ? " (step %u is kept)\n" : " (no step was better: the file is as it was given)\n", r->best_step);
}

static int run(int argc, char **argv)
{
    dil_distill_opts o = dil_distill_defaults();
    const char *format = "auto", *val_format = "auto";
    int64_t steps = -1, threads = 0, chunks = o.chunks, val_chunks = o.val_chunks, batch = 1, seed = 1;
    const dil_cli_opt opts[] = {
        {.name = "--teacher", .kind = DIL_CLI_STR, .out = &o.teacher, .arg = "T.gguf", .help = "the model to come near to (required)"},
        {.name = "--student", .kind = DIL_CLI_STR, .out = &o.student, .arg = "S.gguf", .help = "the quantized model (required)"},
        {.name = "--output", .letter = 'o', .kind = DIL_CLI_STR, .out = &o.out, .arg = "FILE", .help = "the distilled model (required)"},
        {.name = "--data", .kind = DIL_CLI_STR, .out = &o.data, .arg = "FILE", .help = "text to train on (default: the embedded text)"},
        {.name = "--format", .kind = DIL_CLI_STR, .out = &format, .arg = "F", .help = "of that text: squad, text, jsonl (default: by content)"},
        {.name = "--val", .kind = DIL_CLI_STR, .out = &o.val, .arg = "FILE", .help = "held-out text (default: the last eighth of the data)"},
        {.name = "--val-format", .kind = DIL_CLI_STR, .out = &val_format, .arg = "F", .help = "of that text"},
        {.name = "--steps", .kind = DIL_CLI_INT, .out = &steps, .arg = "N", .help = "of a batch of sequences of 512 tokens each (64)", .min = 1, .max = 1e6},
        {.name = "--minutes", .kind = DIL_CLI_NUM, .out = &o.minutes, .arg = "M", .help = "train so long instead", .min = 0.01, .max = 1e5},
        {.name = "--chunks", .kind = DIL_CLI_INT, .out = &chunks, .arg = "N", .help = "different sequences at most (64)", .min = 1, .max = 4096},
        {.name = "--val-chunks", .kind = DIL_CLI_INT, .out = &val_chunks, .arg = "N", .help = "held-out sequences at most (4)", .min = 1, .max = 4096},
        {.name = "--batch", .kind = DIL_CLI_INT, .out = &batch, .arg = "N", .help = "sequences a step (1)", .min = 1, .max = 4096},
        {.name = "--rate", .kind = DIL_CLI_NUM, .out = &o.rate, .arg = "R", .help = "Adam's step, a relative change of a scale (0.0003)", .min = 1e-7, .max = 1},
        {.name = "--beta", .kind = DIL_CLI_NUM, .out = &o.beta, .arg = "B", .help = "weight of the hidden states' distance (0)", .min = 0, .max = 1000},
        {.name = "--answers", .kind = DIL_CLI_FLAG, .out = &o.answers, .help = "the data are questions: only at their answers teacher and student are\ncompared; a sequence is a paragraph with its questions"},
        {.name = "--seed", .kind = DIL_CLI_INT, .out = &seed, .arg = "N", .help = "of the order of the text (1)", .min = 0, .max = 1e9},
        {.name = "--resume", .kind = DIL_CLI_FLAG, .out = &o.resume, .help = "go on from FILE.state of a run that was ended"},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads (all)", .min = 1, .max = 256},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "--teacher T.gguf --student S.gguf -o OUT.gguf [options]",
                               "Trains what is continuous in a quantized model (block scales and minima, norms) towards its teacher;\n"
                               "the codes and the size stay. Never writes a worse file than it was given.\n\n"
                               "  dilemma distill --teacher m.gguf --student s.gguf --data text.txt --minutes 10 -o d.gguf",
                               opts, NULL, 0, 0);
    if (status >= 0) return status;
    if (!o.teacher || !o.student || !o.out) return dil_cli_usage("distill: --teacher, --student and -o are required");
    if (strcmp(o.out, o.student) == 0 || strcmp(o.out, o.teacher) == 0) return dil_cli_usage("distill: -o names a model that is read");
    if (!dil_data_format_from_name(format, &o.format) || !dil_data_format_from_name(val_format, &o.val_format))
        return dil_cli_usage("distill: formats are squad, text, jsonl and auto");
    o.steps = steps > 0 ? (uint32_t)steps : o.minutes > 0 ? 0 : o.steps;
    o.batch = (uint32_t)batch, o.chunks = (uint32_t)chunks, o.val_chunks = (uint32_t)val_chunks, o.seed = (uint64_t)seed, o.n_threads = (int)threads;
    dil_err err;
    dil_distill_report r;
    if (dil_distill(&o, dil_cli_progress(), print_step, NULL, &r, &err) != DIL_OK) return dil_cli_fail("distill", &err);
    dil_cli_progress_done();
    if (!dil_cli_quiet) print_report(o.out, &r);
    return 0;
}

const dil_cli_cmd dil_cli_distill = {"distill", "train a quantized model's scales towards its teacher", run};
