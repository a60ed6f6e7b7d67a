/* dilemma import: a Hugging Face folder to GGUF, or a GGUF file to one in floats. */
#include "cli/cli.h"

#include <dilemma/floats.h>
#include <dilemma/import.h>

#include <inttypes.h>
#include <strings.h>
#include <sys/stat.h>

static bool type_from(const char *word, dil_type *out)
{
    if (!word) {
        *out = DIL_TYPE_AS_STORED;
        return true;
    }
    return dil_type_from_name(word, out) && (*out == DIL_TYPE_F32 || *out == DIL_TYPE_F16 || *out == DIL_TYPE_BF16);
}

static void summary(const char *out, const dil_import_info *i)
{
    char size[32];
    fprintf(stderr, "%s: %s, %u blocks, %" PRIu64 " parameters, %s, %s, tokenizer %s\n", out, i->arch.name, i->arch.n_blocks, i->n_params,
            dil_type_get(i->type)->name, dil_format_bytes(i->bytes, size), i->tokenizer[0] ? i->tokenizer : "none");
}

static bool is_file(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

/* A GGUF file given: the same model in floats. */
static int run_floats(const char *model, const char *out, dil_type type, int64_t seed)
{
    dil_floats_opts o = {.type = type == DIL_TYPE_AS_STORED ? DIL_TYPE_F16 : type, .fold = seed >= 0, .seed = (uint64_t)seed};
    dil_floats_report r;
    dil_err err;
    if (dil_floats_write(model, &o, out, dil_cli_progress(), &r, &err) != DIL_OK) return dil_cli_fail("import", &err);
    dil_cli_progress_done();
    char size[32];
    if (!dil_cli_quiet)
        fprintf(stderr, "%s: %" PRIu64 " parameters, %s, %s; %u tensors dequantized, %u folded\n", out, r.n_params, dil_type_get(o.type)->name,
                dil_format_bytes(r.bytes, size), r.n_dequantized, r.n_folded);
    return 0;
}

static int run(int argc, char **argv)
{
    const char *out = NULL, *type = NULL;
    dil_import_opts o = {0};
    int64_t seed = -1;
    const dil_cli_opt opts[] = {
        {.letter = 'o', .name = "--output", .kind = DIL_CLI_STR, .out = &out, .arg = "FILE", .help = "the GGUF file to write; - is standard output"},
        {.name = "--type", .kind = DIL_CLI_STR, .out = &type, .arg = "TYPE",
         .help = "f16, bf16 or f32, of the linear weights (default: as the checkpoint has them);\nnorms and biases become f32"},
        {.name = "--name", .kind = DIL_CLI_STR, .out = &o.name, .arg = "TEXT", .help = "the model's name in the file (default: the folder's)"},
        {.name = "--no-tokenizer", .kind = DIL_CLI_FLAG, .out = &o.no_tokenizer, .help = "weights only"},
        {.name = "--fold", .kind = DIL_CLI_INT, .out = &seed, .arg = "SEED", .min = 0, .max = 2147483647,
         .help = "of a GGUF file: random factors between layers, the function unchanged, so that the\nweights leave the grid they were quantized to"},
        DIL_CLI_END};
    dil_cli_list dir = {0};
    int status = dil_cli_parse(argc, argv, "DIR|MODEL.gguf -o FILE [options]",
                               "Turns a Hugging Face folder (config.json, *.safetensors or pytorch_model.bin, tokenizer files)\n"
                               "into one GGUF file. Families: OPT, Llama (SmolLM2, Llama 3). A GGUF file becomes one with floats (f16).\n\n"
                               "  dilemma import opt-350m -o opt-350m.gguf --type f16\n"
                               "  dilemma import SmolLM2.Q4_1.gguf --fold 1234 -o teacher.gguf",
                               opts, &dir, 1, 1);
    if (status >= 0) return status;
    if (!out) return dil_cli_usage("import: -o FILE is missing");
    if (!type_from(type, &o.type)) return dil_cli_usage("import: --type is '%s', expected f16, bf16 or f32", type);
    if (is_file(dir.item[0])) return run_floats(dir.item[0], out, o.type, seed);
    if (seed >= 0) return dil_cli_usage("import: --fold takes a GGUF file; import the folder first");
    dil_import_info info;
    dil_err err;
    if (dil_import(dir.item[0], out, &o, dil_cli_progress(), &info, &err) != DIL_OK) return dil_cli_fail("import", &err);
    dil_cli_progress_done();
    if (!dil_cli_quiet) summary(out, &info);
    return 0;
}

const dil_cli_cmd dil_cli_import = {"import", "a Hugging Face folder to a GGUF file", run};
