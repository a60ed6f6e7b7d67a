/* Enrolment as a person sees it: one side shows a code, the other asks for it. */
#include "cli/pairing.h"

#include "cli/cli.h"
#include "net/iface.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

dil_status dil_cli_own_key_or_new(const char *file, const char *dir, dil_keypair *out, dil_err *err)
{
    char path[4096], folder[4096];
    dil_status s = dil_cli_own_key(file, dir, out, err);
    if (s != DIL_ENOTFOUND) return s;
    s = dil_cli_key_folder(dir, folder, err);
    if (s == DIL_OK && snprintf(path, sizeof path, "%s", file ? file : "") >= (int)sizeof path) return dil_fail(err, DIL_ELIMIT, "the path is too long");
    if (s == DIL_OK && !file && snprintf(path, sizeof path, "%s/%s", folder, dir ? "coordinator.key" : "key") >= (int)sizeof path)
        return dil_fail(err, DIL_ELIMIT, "the path is too long");
    dil_keypair k;
    if (s == DIL_OK) s = dil_keypair_new(&k, err);
    if (s == DIL_OK) s = dil_keypair_write(path, &k, err);
    if (s != DIL_OK) return s;
    if (!dil_cli_quiet) printf("made this machine's key pair, %s\n", path);
    *out = k;
    return DIL_OK;
}

const char *dil_cli_code_text(const char *code, char out[DIL_PAIR_DIGITS + 2])
{
    snprintf(out, DIL_PAIR_DIGITS + 2, "%.*s %s", DIL_PAIR_DIGITS / 2, code, code + DIL_PAIR_DIGITS / 2);
    return out;
}

/* --- the coordinator -------------------------------------------------------------------------------------------------------------- */

static bool ask_code(const char *address, const char *told, char line[128])
{
    dil_cli_progress_done();
    if (isatty(STDIN_FILENO)) {
        if (told) fprintf(stderr, "the code that %s (%s) shows, or Enter to leave it out: ", told, address);
        else fprintf(stderr, "the code that %s shows: ", address);
    }
    return fgets(line, 128, stdin) != NULL;
}

dil_status dil_cli_pair(const char *address, const char *name, const char *told, const char *code, const dil_keypair *me, const char *dir,
                        dil_pair_peer *peer, bool *skipped, dil_err *err)
{
    enum { TYPED_MAX = 3 };
    char line[128], digits[DIL_PAIR_DIGITS + 1];
    dil_status s = DIL_EUSAGE;
    *skipped = false;
    for (int i = 0; i < TYPED_MAX && !dil_cli_interrupted(); i++) {
        if (!code && !ask_code(address, told, line)) return dil_fail(err, DIL_EUSAGE, "%s: its code is wanted: on a terminal, in a line of standard input, or with --code", address);
        *skipped = !code && told && line[strspn(line, " \t\r\n")] == 0;
        if (*skipped) return DIL_OK;
        if (!dil_pair_code_read(code ? code : line, digits)) s = dil_fail(err, DIL_EUSAGE, "a code has %d digits", DIL_PAIR_DIGITS);
        else s = dil_pair_with(address, name, digits, me, dir, 10, peer, err);
        bool typed_wrong = s == DIL_EUSAGE || s == DIL_EAUTH;
        if (!typed_wrong || code || i + 1 == TYPED_MAX) break;
        fprintf(stderr, "%s\n", err->text);
    }
    if (s == DIL_OK && !dil_cli_quiet) {
        printf("%-9s %s at %s: each has the other's key now (%s/%s.pub)\n", "paired", peer->name, address, dir, peer->name);
        fflush(stdout);
    }
    return s;
}

/* --- the node -------------------------------------------------------------------------------------------------------------------- */

/* The bar needs a terminal; a log would get a line every five seconds. */
static bool wait_quietly(void *ctx, const char *what, double done, double total)
{
    const dil_progress *shown = ctx;
    if (isatty(STDERR_FILENO)) return shown->fn(shown->ctx, what, done, total);
    return !dil_cli_interrupted();
}

static void print_addresses(const char *listen, uint16_t port)
{
    dil__iface face[DIL__IFACES_MAX];
    size_t host = (size_t)(strrchr(listen, ':') - listen), n = 0;
    bool any = strncmp(listen, "0.0.0.0", host) == 0 || strncmp(listen, "*", host) == 0 || strncmp(listen, "[::]", host) == 0;
    if (!any) {
        printf("  dilemma pair %.*s:%u\n", (int)host, listen, port);
        return;
    }
    size_t count = dil__ifaces(face, DIL__IFACES_MAX);
    for (size_t i = 0; i < count; i++) {
        char text[INET_ADDRSTRLEN];
        if (face[i].loopback || !inet_ntop(AF_INET, &face[i].address, text, sizeof text)) continue;
        printf("  dilemma pair %s:%u%s%s\n", text, port, count > 2 ? "      by " : "", count > 2 ? face[i].name : "");
        n++;
    }
    if (!n) printf("  dilemma pair 127.0.0.1:%u      (this machine has no other address)\n", port);
}

dil_status dil_cli_await_pairing(const char *listen, const char *name, const dil_keypair *key, const char *allow_path, double limit_sec, uint16_t *port, dil_err *err)
{
    char code[DIL_PAIR_DIGITS + 2], own_name[DIL_PAIR_NAME_MAX];
    if (!name) dil_pair_own_name(own_name);
    dil_pair_opts o = {.listen = listen, .name = name ? name : own_name, .key = key->public_key, .allow_path = allow_path, .limit_sec = limit_sec};
    dil_pair_desk *desk;
    dil_pair_peer peer;
    dil_progress *shown = dil_cli_progress(), quiet = {.fn = wait_quietly, .ctx = shown};
    dil_status s = dil_pair_open(&o, &desk, err);
    if (s != DIL_OK) return s;
    printf("This machine is \"%s\". Its pairing code, for %.0f minutes:\n\n    %s\n\nType it on the coordinator, at\n", o.name, limit_sec / 60, dil_cli_code_text(dil_pair_code(desk), code));
    print_addresses(listen, dil_pair_port(desk));
    fflush(stdout);
    *port = dil_pair_port(desk);
    s = dil_pair_wait(desk, &quiet, &peer, err);
    dil_cli_progress_done();
    dil_pair_close(desk);
    if (s != DIL_OK) return s;
    printf("paired with %s (%s); its key is in %s\n", peer.name, peer.address, allow_path);
    fflush(stdout);
    return DIL_OK;
}
