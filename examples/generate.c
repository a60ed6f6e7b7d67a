/* Text from a model in this process.
 *
 *   cc generate.c $(pkg-config --cflags --libs dilemma) -o generate && ./generate model.gguf "The capital of France is" */
#include <dilemma/runner.h>
#include <dilemma/tokenizer.h>

#include <string.h>

enum { TOKENS = 24 };

static dil_status generate(const char *path, const char *text, dil_err *err)
{
    dil_gguf *file = NULL;
    dil_arch arch;
    dil_tokenizer *tok = NULL;
    dil_runner *runner = NULL;
    dil_ids prompt = {0};
    dil_status s = dil_gguf_open(path, &file, err);
    if (s == DIL_OK) s = dil_arch_read(file, &arch, err);
    if (s == DIL_OK) s = dil_tokenizer_new(file, &tok, err);
    if (s == DIL_OK) s = dil_tokenize(tok, text, strlen(text), dil_tokenizer_adds_bos(tok) ? DIL_TOK_BOS : 0, &prompt, err);
    if (s == DIL_OK) {
        dil_weights w = dil_gguf_weights(file);
        dil_stage_opts o = {.last_layer = arch.n_blocks + 1, .n_ctx = 512, .kv_type = DIL_TYPE_F16};
        s = dil_runner_local(&arch, &w, &o, 1, &runner, err);
    }
    if (s == DIL_OK) {
        int32_t token[TOKENS];
        uint32_t n = 0;
        dil_gen_event done;
        dil_gen_req q = {.prompt = prompt.id, .n_prompt = prompt.n, .max_tokens = TOKENS, .sampler = dil_sampler_defaults()};
        q.sampler.temperature = 0; /* the likeliest token each time */
        s = dil_runner_generate(runner, &q, token, &n, &done, err);
        for (uint32_t i = 0; s == DIL_OK && i < n; i++) {
            size_t len;
            const char *bytes = dil_token_bytes(tok, token[i], &len);
            fwrite(bytes, 1, len, stdout);
        }
        putchar('\n');
    }
    dil_runner_close(runner);
    dil_ids_fini(&prompt);
    dil_tokenizer_free(tok);
    dil_gguf_close(file);
    return s;
}

int main(int argc, char **argv)
{
    dil_err err;
    if (argc != 3) return fputs("usage: generate MODEL.gguf TEXT\n", stderr), 2;
    if (generate(argv[1], argv[2], &err) == DIL_OK) return 0;
    fprintf(stderr, "generate: %s\n", err.text);
    return dil_status_exit(err.code);
}
