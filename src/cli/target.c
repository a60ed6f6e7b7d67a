/* The words that name nodes, and the key that we ask them with. */
#include "cli/target.h"

#include <stdlib.h>
#include <string.h>

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
    return dil_fail(err, DIL_EAUTH, "node %s: say its public key (%s,KEY), --keys DIR, or --insecure", t->name, word);
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
