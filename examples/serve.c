/* The HTTP server in a program of one's own.
 *
 *   cc serve.c $(pkg-config --cflags --libs dilemma) -o serve && ./serve model.gguf 8080 */
#include <dilemma/serve.h>

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void on_signal(int sig)
{
    (void)sig;
}

static dil_status serve(const char *path, uint16_t port, dil_err *err)
{
    dil_gguf *file = NULL;
    dil_arch arch;
    dil_tokenizer *tok = NULL;
    dil_runner *runner = NULL;
    dil_server *server = NULL;
    dil_serve_opts so = {.port = port, .model_name = "model"};
    dil_status s = dil_server_open(&so, &server, err); /* /health says 503 from here on */
    if (s == DIL_OK) s = dil_gguf_open(path, &file, err);
    if (s == DIL_OK) s = dil_arch_read(file, &arch, err);
    if (s == DIL_OK) s = dil_tokenizer_new(file, &tok, err);
    if (s == DIL_OK) {
        dil_weights w = dil_gguf_weights(file);
        dil_stage_opts o = {.last_layer = arch.n_blocks + 1, .n_ctx = 2048, .kv_type = DIL_TYPE_F16};
        s = dil_runner_local(&arch, &w, &o, 4, &runner, err);
    }
    if (s == DIL_OK) s = dil_served_attach(dil_server_first(server), runner, tok, err);
    if (s == DIL_OK) {
        printf("http://127.0.0.1:%u\n", dil_server_port(server));
        fflush(stdout);
        pause();
    }
    dil_server_close(server);
    dil_runner_close(runner);
    dil_tokenizer_free(tok);
    dil_gguf_close(file);
    return s;
}

int main(int argc, char **argv)
{
    dil_err err;
    if (argc != 3) return fputs("usage: serve MODEL.gguf PORT\n", stderr), 2;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (serve(argv[1], (uint16_t)atoi(argv[2]), &err) == DIL_OK) return 0;
    fprintf(stderr, "serve: %s\n", err.text);
    return dil_status_exit(err.code);
}
