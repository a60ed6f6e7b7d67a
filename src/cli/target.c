/* The words that name nodes, and the key that we ask them with. */
#include "cli/target.h"

#include <dilemma/pair.h>

#include <stdlib.h>
#include <string.h>

dil_status dil_cli_key_folder(const char *dir, char out[4096], dil_err *err)
{
    if (!dir) {
        dil_status s = dil_keys_path("", out, 4096, err);
        if (s == DIL_OK && strlen(out) > 1) out[strlen(out) - 1] = 0; /* the slash */
        return s;
    }
    return snprintf(out, 4096, "%s", dir) < 4096 ? DIL_OK : dil_fail(err, DIL_ELIMIT, "the path is too long");
}

static dil_status read_key_word(const char *word, char out[DIL_KEY_CHARS + 1], dil_err *err)
{
    dil_keyring ring;
    if (dil_key_is_valid(word)) {
        memcpy(out, word, DIL_KEY_CHARS + 1);
        return DIL_OK;
    }
    dil_status s = dil_keyring_read(word, &ring, err);
    if (s != DIL_OK) return s;
    if (ring.n == 1) memcpy(out, ring.entry[0].key, DIL_KEY_CHARS + 1);
    else s = dil_fail(err, DIL_EFORMAT, "%s: %zu keys, wanted one", word, ring.n);
    dil_keyring_fini(&ring);
    return s;
}

dil_status dil_cli_target_parse(const char *word, size_t index, const char *dir, bool insecure, dil_cli_target *t, dil_err *err)
{
    const char *comma = strchr(word, ','), *end = comma ? comma : word + strlen(word);
    const char *eq = memchr(word, '=', (size_t)(end - word)), *address = eq ? eq + 1 : word;
    if (eq) snprintf(t->name, sizeof t->name, "%.*s", (int)(eq - word), word);
    else if (index < 26) snprintf(t->name, sizeof t->name, "%c", (char)('a' + (int)index));
    else snprintf(t->name, sizeof t->name, "n%zu", index);
    if (snprintf(t->address, sizeof t->address, "%.*s", (int)(end - address), address) >= (int)sizeof t->address || !t->address[0])
        return dil_fail(err, DIL_EUSAGE, "'%s' is not [NAME=]HOST:PORT[,KEY]", word);
    if (insecure) return DIL_OK;
    if (comma) return read_key_word(comma + 1, t->key, err);
    if (dir) return dil_keys_public(dir, t->name, t->key, err);
    char own[4096];
    if (dil_cli_key_folder(NULL, own, NULL) == DIL_OK && dil_keys_public(own, t->name, t->key, NULL) == DIL_OK) return DIL_OK;
    return dil_fail(err, DIL_EAUTH, "node %s is not enrolled: pair it (dilemma node --pair there, dilemma pair %s here), or say its public key (%s,KEY), --keys DIR, or --insecure",
                    t->name, word, word);
}

static dil_status enrolled(const char *dir, dil_cli_target *t, size_t cap, size_t *n, dil_err *err)
{
    static dil_pair_peer known[DIL_PAIR_NODES_MAX];
    char folder[4096];
    dil_status s = dil_cli_key_folder(dir, folder, err);
    if (s == DIL_OK) s = dil_pair_nodes(folder, known, DIL_PAIR_NODES_MAX, n, err);
    if (s != DIL_OK) return s;
    if (!*n) return dil_fail(err, DIL_EUSAGE, "no nodes: none is enrolled in %s. Pair some (dilemma node --pair there, dilemma pair ADDRESS here), or name them with --node. On this machine alone: dilemma serve MODEL", folder);
    if (*n > cap) return dil_fail(err, DIL_ELIMIT, "%zu nodes are enrolled, at most %zu at once: name those to use with --node", *n, cap);
    for (size_t i = 0; i < *n; i++) {
        snprintf(t[i].name, sizeof t[i].name, "%s", known[i].name);
        snprintf(t[i].address, sizeof t[i].address, "%s", known[i].address);
        snprintf(t[i].key, sizeof t[i].key, "%s", known[i].key);
    }
    return DIL_OK;
}

dil_status dil_cli_targets(const dil_cli_list *words, const char *dir, bool insecure, dil_cli_target *t, size_t cap, size_t *n, dil_err *err)
{
    if (!words->n && !insecure) return enrolled(dir, t, cap, n, err);
    if (!words->n) return dil_fail(err, DIL_EUSAGE, "no nodes: name them with --node [NAME=]HOST:PORT");
    if (words->n > cap) return dil_fail(err, DIL_ELIMIT, "%zu nodes, at most %zu at once", words->n, cap);
    dil_status s = DIL_OK;
    for (size_t i = 0; s == DIL_OK && i < words->n; i++) s = dil_cli_target_parse(words->item[i], i, dir, insecure, &t[i], err);
    if (s == DIL_OK) *n = words->n;
    return s;
}

dil_status dil_cli_own_key(const char *file, const char *dir, dil_keypair *out, dil_err *err)
{
    char path[4096];
    if (file) return dil_keypair_read(file, out, err);
    if (!dir) {
        dil_status s = dil_keys_path("key", path, sizeof path, err);
        return s == DIL_OK ? dil_keypair_read(path, out, err) : s;
    }
    if (snprintf(path, sizeof path, "%s/coordinator.key", dir) >= (int)sizeof path) return dil_fail(err, DIL_ELIMIT, "the path is too long");
    return dil_keypair_read(path, out, err);
}
