/* dilemma finetune: trains a model on labels, whole or by a LoRA adapter. */
#include "cli/cli.h"

#include <dilemma/finetune.h>

#include <inttypes.h>
#include <math.h>
#include <string.h>

static void print_step(void *ctx, uint32_t step, double loss, double val)
{
    (void)ctx;
    if (dil_cli_quiet) return;
    dil_cli_progress_done();
    if (isfinite(loss)) fprintf(stderr, "step %4u  loss %.5f", step, loss);
    else fprintf(stderr, "step %4u", step);
    if (isfinite(val)) fprintf(stderr, "  held-out loss %.5f", val);
    fputc('\n', stderr);
}

static void print_report(const char *out, const dil_distill_report *r)
{
    printf("%s: %" PRIu64 " parameters, %u steps; held-out loss %.5f, was %.5f", out, r->n_trained, r->steps, r->kl_after, r->kl_before);
    printf(r->best_step ? " (step %u is kept)\n" : " (no step was better: nothing is changed)\n", r->best_step);
}

static int run(int argc, char **argv)
{
    dil_finetune_opts o = dil_finetune_defaults();
    const char *format = "auto", *val_format = "auto";
    int64_t steps = -1, threads = 0, samples = o.samples, val_samples = o.val_samples, seed = 1, rank = 0, batch = o.batch, n_ctx = o.n_ctx;
    const dil_cli_opt opts[] = {
        {.name = "--output", .letter = 'o', .kind = DIL_CLI_STR, .out = &o.out, .arg = "FILE", .help = "the model, or with --lora the adapter (required)"},
        {.name = "--data", .kind = DIL_CLI_STR, .out = &o.data, .arg = "FILE", .help = "questions with answers, prompts with completions, or text"},
        {.name = "--format", .kind = DIL_CLI_STR, .out = &format, .arg = "F", .help = "squad, text, jsonl (default: by content)"},
        {.name = "--val", .kind = DIL_CLI_STR, .out = &o.val, .arg = "FILE", .help = "held-out samples (default: an eighth of the data)"},
        {.name = "--val-format", .kind = DIL_CLI_STR, .out = &val_format, .arg = "F", .help = "of those"},
        {.name = "--from-scratch", .kind = DIL_CLI_STR, .out = &o.scratch, .arg = "SHAPE", .help = "no MODEL but a new one, its vocabulary made from the data:\nopt:layers=6,hidden=256,heads=4,ffn=1024,proj=128,context=512,vocab=4096,norm=post"},
        {.name = "--whole", .kind = DIL_CLI_FLAG, .out = &o.whole, .help = "every token is a label, not the answers alone (a new model: always)"},
        {.name = "--lora", .kind = DIL_CLI_INT, .out = &rank, .arg = "R", .help = "train matrices of rank R beside the linear weights of the blocks, of any\ntype (default: every tensor whole, in floats)", .min = 1, .max = 4096},
        {.name = "--alpha", .kind = DIL_CLI_NUM, .out = &o.alpha, .arg = "A", .help = "they count A/R (2R)", .min = 1e-6, .max = 1e6},
        {.name = "--adapter", .kind = DIL_CLI_STR, .out = &o.adapter, .arg = "F", .help = "begin with this LoRA adapter (GGUF); without --data only merge it"},
        {.name = "--merge", .kind = DIL_CLI_FLAG, .out = &o.merge, .help = "write the model with the adapter in it, not the adapter"},
        {.name = "--steps", .kind = DIL_CLI_INT, .out = &steps, .arg = "N", .help = "of a batch each (100)", .min = 1, .max = 1e6},
        {.name = "--minutes", .kind = DIL_CLI_NUM, .out = &o.minutes, .arg = "M", .help = "train so long instead", .min = 0.01, .max = 1e5},
        {.name = "--batch", .kind = DIL_CLI_INT, .out = &batch, .arg = "N", .help = "samples a step (8)", .min = 1, .max = 4096},
        {.name = "--ctx", .letter = 'c', .kind = DIL_CLI_INT, .out = &n_ctx, .arg = "N", .help = "tokens of a sample at most; text is cut so (512)", .min = 16, .max = 1 << 17},
        {.name = "--samples", .kind = DIL_CLI_INT, .out = &samples, .arg = "N", .help = "different ones at most (4096)", .min = 1, .max = 1e6},
        {.name = "--val-samples", .kind = DIL_CLI_INT, .out = &val_samples, .arg = "N", .help = "held-out ones at most (64)", .min = 1, .max = 1e6},
        {.name = "--rate", .kind = DIL_CLI_NUM, .out = &o.rate, .arg = "R", .help = "Adam's step; of whole tensors in units of their size (0.0003)", .min = 1e-7, .max = 1},
        {.name = "--seed", .kind = DIL_CLI_INT, .out = &seed, .arg = "N", .help = "of order and beginning (1)", .min = 0, .max = 1e9},
        {.name = "--resume", .kind = DIL_CLI_FLAG, .out = &o.resume, .help = "go on from FILE.state of a run that was ended"},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads (all)", .min = 1, .max = 256},
        DIL_CLI_END};
    dil_cli_list pos = {.n = 0};
    int status = dil_cli_parse(argc, argv, "[MODEL.gguf] --data F -o OUT.gguf [--lora R]",
                               "Trains a model on labels: the answers of questions, or the next token of a text. Held-out samples decide which\n"
                               "step is kept.\n\n"
                               "  dilemma finetune m.gguf --data train.json --lora 8 -o adapter.gguf\n"
                               "  dilemma finetune m.gguf --adapter adapter.gguf -o merged.gguf\n"
                               "  dilemma finetune --from-scratch opt:layers=6,hidden=256 --data train.json --steps 2000 --batch 4 --rate 0.05 -o new.gguf",
                               opts, &pos, 0, 1);
    if (status >= 0) return status;
    if (o.scratch ? pos.n > 0 || rank || o.adapter : pos.n == 0) return dil_cli_usage("finetune: a MODEL.gguf, or --from-scratch without --lora and --adapter");
    o.model = o.scratch ? "" : pos.item[0];
    if (!o.out) return dil_cli_usage("finetune: -o FILE is missing");
    if (strcmp(o.out, o.model) == 0 || (o.adapter && strcmp(o.out, o.adapter) == 0)) return dil_cli_usage("finetune: -o names a file that is read");
    if (!o.data && !o.adapter) return dil_cli_usage("finetune: --data F is missing");
    if (rank && o.adapter) return dil_cli_usage("finetune: an adapter has its rank: --lora and --adapter do not go together");
    if (o.merge && !rank && !o.adapter) return dil_cli_usage("finetune: --merge goes with --lora or --adapter");
    if (!dil_data_format_from_name(format, &o.format) || !dil_data_format_from_name(val_format, &o.val_format))
        return dil_cli_usage("finetune: formats are squad, text, jsonl and auto");
    o.steps = steps > 0 ? (uint32_t)steps : o.minutes > 0 ? 0 : o.steps;
    o.rank = (uint32_t)rank, o.batch = (uint32_t)batch, o.n_ctx = (uint32_t)n_ctx, o.samples = (uint32_t)samples, o.val_samples = (uint32_t)val_samples;
    o.seed = (uint64_t)seed, o.n_threads = (int)threads;
    dil_err err;
    dil_distill_report r;
    if (!o.data) return dil_adapter_merge(o.model, o.adapter, o.out, &err) == DIL_OK ? 0 : dil_cli_fail("finetune", &err);
    if (dil_finetune(&o, dil_cli_progress(), print_step, NULL, &r, &err) != DIL_OK) return dil_cli_fail("finetune", &err);
    dil_cli_progress_done();
    if (!dil_cli_quiet) print_report(o.out, &r);
    return 0;
}

const dil_cli_cmd dil_cli_finetune = {"finetune", "train a model on labels, whole or by a LoRA adapter", run};
