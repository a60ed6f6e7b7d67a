/* dilemma pull: a model from a hub or an address; a checkpoint becomes a GGUF file on the way. */
#include "cli/cli.h"

#include <dilemma/hub.h>
#include <dilemma/import.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char about[] =
    "Fetches a model and prints the path of its GGUF file. From the hub (HF_ENDPOINT, HF_TOKEN) it goes into the cache that the hub's\n"
    "own tools use (HF_HUB_CACHE, HF_HOME); a checkpoint (safetensors) is converted. A break costs nothing: the same command goes on.\n\n"
    "  dilemma pull org/name-GGUF:q8_0                    the one file whose name has that word\n"
    "  dilemma pull org/name                              its only GGUF file, or its checkpoint, converted\n"
    "  dilemma pull https://example.org/model.gguf -o model.gguf --sha256 9f86d0...";

/* In a cache of our own, by repository and commit, so that it is made once: the hub's holds what its tools know. */
static dil_status name_converted(const dil_pulled *p, char path[4096], dil_err *err)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), *end = strstr(p->path, "/snapshots/"), *start = end;
    if ((!xdg || !*xdg) && (!home || !*home)) return dil_fail(err, DIL_ENOTFOUND, "no HOME is set: say -o FILE");
    while (start && start > p->path && start[-1] != '/') start--;
    char dir[3000];
    snprintf(dir, sizeof dir, "%s%s/dilemma/models", xdg && *xdg ? xdg : home, xdg && *xdg ? "" : "/.cache");
    if (!start || snprintf(path, 4096, "%s/%.*s-%.12s.gguf", dir, (int)(end - start), start, p->commit) >= 4096) return dil_fail(err, DIL_ELIMIT, "the path is too long");
    return dil_mkdirs(dir, err);
}

static dil_status convert(const dil_pulled *p, const char *what, const char *out, char path[4096], dil_err *err)
{
    dil_status s = DIL_OK;
    dil_import_opts o = {.type = DIL_TYPE_AS_STORED, .name = what};
    if (out && snprintf(path, 4096, "%s", out) >= 4096) return dil_fail(err, DIL_ELIMIT, "the path is too long");
    if (!out) s = name_converted(p, path, err);
    if (s != DIL_OK || (!out && access(path, R_OK) == 0)) return s;
    s = dil_import(p->path, path, &o, dil_cli_progress(), NULL, err);
    dil_cli_progress_done();
    return s;
}

static int run(int argc, char **argv)
{
    dil_pull_opts o = {0};
    int64_t connections = 4;
    uint64_t chunk = 0;
    const dil_cli_opt opts[] = {
        {.letter = 'o', .name = "--output", .kind = DIL_CLI_STR, .out = &o.out, .arg = "FILE", .help = "of an address: write there (its own name); of a checkpoint: the GGUF file"},
        {.name = "--revision", .kind = DIL_CLI_STR, .out = &o.revision, .arg = "REV", .help = "branch, tag or commit (main)"},
        {.name = "--sha256", .kind = DIL_CLI_STR, .out = &o.sha256, .arg = "HEX", .help = "of an address: what the file must be"},
        {.name = "--cache", .kind = DIL_CLI_STR, .out = &o.cache, .arg = "DIR", .help = "the hub's cache ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub)"},
        {.name = "--connections", .kind = DIL_CLI_INT, .out = &connections, .arg = "N", .help = "ranges fetched at once (4)", .min = 1, .max = 16},
        {.name = "--chunk", .kind = DIL_CLI_BYTES, .out = &chunk, .arg = "SIZE", .help = "of one range (8MiB, more for large files)"},
        DIL_CLI_END};
    dil_cli_list what = {0};
    int status = dil_cli_parse(argc, argv, "ORG/NAME[:FILE]|ADDRESS [options]", about, opts, &what, 1, 1);
    if (status >= 0) return status;
    if (chunk && chunk < 4096) return dil_cli_usage("pull: --chunk is at least 4KiB");
    o.n_connections = (uint32_t)connections;
    o.chunk_bytes = chunk;
    o.progress = dil_cli_progress();
    dil_pulled got;
    dil_err err;
    char path[4096];
    dil_status s = dil_pull(what.item[0], &o, &got, &err);
    dil_cli_progress_done();
    snprintf(path, sizeof path, "%s", s == DIL_OK ? got.path : "");
    if (s == DIL_OK && got.is_checkpoint) s = convert(&got, what.item[0], o.out, path, &err);
    if (s != DIL_OK) return dil_cli_fail("pull", &err);
    char size[32];
    if (!dil_cli_quiet) fprintf(stderr, "pull: %u of %u files fetched, %s%s%s\n", got.n_fetched, got.n_files, dil_format_bytes(got.n_bytes, size), got.commit[0] ? "; commit " : "", got.commit);
    puts(path);
    return 0;
}

const dil_cli_cmd dil_cli_pull = {"pull", "a model from a hub or an address", run};
