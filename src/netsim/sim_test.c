/* Seeds of the simulator: the real coordinator and nodes over a virtual network and clock (netsim/world.h, netsim/scene.h).
 *
 *   netsim.sim_test [--seeds N] [--from N]        N seeds (500; 100 under sanitizers)
 *   netsim.sim_test --seed N [--trace]            one of them again, with what happens in it */
#include "netsim/scene.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MODELS = 3 };

static scene_model model[MODELS];
static char base[128];

static void logline(void *ctx, dil_log_level level, const char *module, const char *text)
{
    (void)ctx;
    static const char *const name[] = {"debug", "info", "warn", "error"};
    sim_trace("[%s %s] %s", name[level], module, text);
}

static bool make_models(void)
{
    dil_err err;
    for (uint32_t i = 0; i < MODELS; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/model-%u.gguf", base, i);
        model[i].n_blocks = 2 + 2 * i;
        if (toy_model(path, model[i].n_blocks, 7 + i, &model[i].gguf, &model[i].arch, &err) == DIL_OK) continue;
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    uint64_t n = getenv("DILEMMA_TEST_QUICK") ? 100 : 500 /* under sanitizers a seed costs ten times as much */, from = 1, failed = 0, recoveries = 0, errors = 0, done = 0, steps = 0;
    bool trace = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--trace") == 0) trace = true;
        else if (strcmp(argv[i], "--seeds") == 0) n = strtoull(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--from") == 0) from = strtoull(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--seed") == 0) from = strtoull(value, NULL, 10), n = 1, i++;
        else return fprintf(stderr, "usage: %s [--seeds N] [--from N] | --seed N [--trace]\n", argv[0]), 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(base, sizeof base, "%s/dilemma-sim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(base) || !make_models()) return 1;
    dil_log_set_sink(logline, NULL, DIL_LOG_DEBUG);
    double virtual_sec = 0;
    clock_t start = clock();
    for (uint64_t seed = from; seed < from + n; seed++) {
        static scene s;
        char folder[160];
        snprintf(folder, sizeof folder, "%s/%llu", base, (unsigned long long)seed);
        if (!scene_run(&s, seed, model, MODELS, folder, trace)) {
            printf("seed %llu: %s\n    again: %s --seed %llu --trace\n", (unsigned long long)seed, s.failure, argv[0], (unsigned long long)seed);
            failed++;
        }
        recoveries += s.n_recoveries;
        errors += s.n_errors;
        done += s.n_done;
        steps += sim_steps();
        virtual_sec += (double)sim_now() * 1e-9;
        scene_remove(folder);
    }
    double cpu = (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("%llu seeds from %llu: %llu failed; %llu requests done, %llu told an error, %llu losses survived; %.0f virtual s, %llu turns, %.1f ms CPU a seed\n",
           (unsigned long long)n, (unsigned long long)from, (unsigned long long)failed, (unsigned long long)done, (unsigned long long)errors,
           (unsigned long long)recoveries, virtual_sec, (unsigned long long)steps, 1e3 * cpu / (double)n);
    for (uint32_t i = 0; i < MODELS; i++) dil_gguf_close(model[i].gguf);
    scene_remove(base);
    return failed != 0;
}
