/* Enrolment as a person sees it: one side shows a code, the other asks for it. */
#include "cli/pairing.h"

#include "cli/cli.h"
#include "enrol/iface.h"

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
    dil_status s = code || told ? DIL_OK : dil_pair_reach(address, 5, err);
    if (s != DIL_OK) return s;
    for (int i = 0; i < TYPED_MAX && !dil_cli_interrupted(); i++) {
        bool typed = code || ask_code(address, told, line);
        *skipped = told && !typed;
        if (*skipped) return DIL_OK;
        if (!typed) return dil_fail(err, DIL_EUSAGE, "%s: its code is wanted: on a terminal, in a line of standard input, or with --code", address);
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

/* --- finding ---------------------------------------------------------------------------------------------------------------------- */

#define FIND_SEC 2.0

static const dil_pair_peer *enrolled_as(const dil_pair_peer *known, size_t n, const char *id)
{
    char theirs[DIL_KEY_ID_CHARS + 1];
    for (size_t i = 0; i < n; i++) {
        dil_key_id(known[i].key, theirs);
        if (strcmp(theirs, id) == 0) return &known[i];
    }
    return NULL;
}

static void say_found(const dil_found_node *found, size_t n, const dil_pair_peer *known, size_t n_known)
{
    if (dil_cli_quiet) return;
    printf("%-9s %zu on the network", "found", n);
    for (size_t i = 0; i < n; i++) {
        const dil_pair_peer *k = enrolled_as(known, n_known, found[i].id);
        printf("%s %s at %s (%s)", i ? "," : ":", k ? k->name : found[i].name, found[i].address, found[i].pairing ? "shows a code" : k ? "enrolled" : "not enrolled here");
    }
    puts(n ? "" : ": nodes are started with --announce to be found");
    for (size_t i = 0; i < n_known; i++) {
        bool there = false;
        char id[DIL_KEY_ID_CHARS + 1];
        dil_key_id(known[i].key, id);
        for (size_t k = 0; k < n; k++) there |= strcmp(found[k].id, id) == 0;
        if (!there) printf("%-9s %s: enrolled, last at %s, but does not answer\n", "left out", known[i].name, known[i].address);
    }
    fflush(stdout);
}

/* It is ours: where it is now counts. It shows a code: asks for it. */
static dil_status take_found(const dil_found_node *f, const dil_pair_peer *k, const dil_keypair *me, const char *dir, dil_pair_peer *peer, bool *ours, dil_err *err)
{
    bool skipped = false;
    *ours = k != NULL;
    if (f->pairing) {
        dil_status s = dil_cli_pair(f->address, k ? k->name : NULL, f->name, NULL, me, dir, peer, &skipped, err);
        *ours = s == DIL_OK && !skipped;
        return s;
    }
    if (!k) return DIL_OK;
    *peer = *k;
    if (strcmp(k->address, f->address) == 0) return DIL_OK;
    snprintf(peer->address, sizeof peer->address, "%s", f->address);
    if (!dil_cli_quiet) printf("%-9s %s, from %s to %s\n", "moved", k->name, k->address, f->address);
    return dil_pair_keep(dir, peer, err);
}

dil_status dil_cli_find(const dil_keypair *me, const char *dir, dil_cli_target *t, size_t cap, size_t *n, dil_err *err)
{
    static dil_pair_peer known[DIL_PAIR_NODES_MAX];
    static dil_found_node found[DIL_DISCOVER_MAX];
    size_t n_known, n_found;
    dil_status s = dil_pair_nodes(dir, known, DIL_PAIR_NODES_MAX, &n_known, err);
    if (s == DIL_OK) s = dil_discover(FIND_SEC, found, DIL_DISCOVER_MAX, &n_found, err);
    if (s != DIL_OK) return s;
    say_found(found, n_found, known, n_known);
    *n = 0;
    for (size_t i = 0; i < n_found && *n < cap; i++) {
        dil_pair_peer peer;
        bool ours;
        s = take_found(&found[i], enrolled_as(known, n_known, found[i].id), me, dir, &peer, &ours, err);
        if (s != DIL_OK) return s;
        if (!ours) continue;
        dil_cli_target *at = &t[(*n)++];
        snprintf(at->name, sizeof at->name, "%s", peer.name);
        snprintf(at->address, sizeof at->address, "%s", peer.address);
        snprintf(at->key, sizeof at->key, "%s", peer.key);
    }
    return DIL_OK;
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

dil_status dil_cli_announce(const char *listen, uint16_t port, const char *name, const char *key, bool pairing, dil_announce **out, dil_err *err)
{
    char host[256], own_name[DIL_PAIR_NAME_MAX];
    snprintf(host, sizeof host, "%.*s", (int)(strrchr(listen, ':') - listen), listen);
    if (!name) dil_pair_own_name(own_name);
    return dil_announce_open(strcmp(host, "*") == 0 ? "0.0.0.0" : host, port, name ? name : own_name, key, pairing, out, err);
}

dil_status dil_cli_await_pairing(const char *listen, const char *name, const dil_keypair *key, const char *allow_path, double limit_sec, bool announce, uint16_t *port,
                                 dil_err *err)
{
    char code[DIL_PAIR_DIGITS + 2], own_name[DIL_PAIR_NAME_MAX];
    if (!name) dil_pair_own_name(own_name);
    dil_pair_opts o = {.listen = listen, .name = name ? name : own_name, .key = key->public_key, .allow_path = allow_path, .limit_sec = limit_sec};
    dil_pair_desk *desk;
    dil_pair_peer peer;
    dil_progress *shown = dil_cli_progress(), quiet = {.fn = wait_quietly, .ctx = shown};
    dil_announce *told = NULL;
    dil_status s = dil_pair_open(&o, &desk, err);
    if (s == DIL_OK && announce) s = dil_cli_announce(listen, dil_pair_port(desk), o.name, o.key, true, &told, err);
    if (s != DIL_OK) return s;
    printf("This machine is \"%s\". Its pairing code, for %.0f minutes:\n\n    %s\n\nOn the coordinator run this, and type the code there:\n", o.name, limit_sec / 60, dil_cli_code_text(dil_pair_code(desk), code));
    print_addresses(listen, dil_pair_port(desk));
    if (announce) puts("  dilemma pair --discover      finds it by itself");
    fflush(stdout);
    *port = dil_pair_port(desk);
    s = dil_pair_wait(desk, &quiet, &peer, err);
    dil_cli_progress_done();
    dil_announce_close(told);
    dil_pair_close(desk);
    if (s != DIL_OK) return s;
    printf("paired with %s (%s); its key is in %s\nfrom now on start it with: dilemma node --listen %.*s:%u%s\n", peer.name, peer.address, allow_path,
           (int)(strrchr(listen, ':') - listen), listen, *port, announce ? " --announce" : "");
    fflush(stdout);
    return DIL_OK;
}
