/* dilemma keys: makes and shows keys, and says who is let in. */
#include "cli/cli.h"

#include <dilemma/keys.h>

#include <string.h>

static const char about[] =
    "Keys by hand. Most people need none of this: dilemma node --pair and dilemma pair make and exchange them.\n\n"
    "  dilemma keys new [FILE]             a key pair (default: ~/.config/dilemma/key, mode 0600); prints the public key\n"
    "  dilemma keys show [FILE]            the public key of a pair\n"
    "  dilemma keys allow KEY [NAME]       let a public key in; KEY is its 40 characters or a .pub file\n"
    "  dilemma keys remove KEY|NAME        no longer\n"
    "  dilemma keys list                   who is let in (default: ~/.config/dilemma/allowed, --list FILE)\n"
    "  dilemma keys cluster DIR NAME...    in one go: key pairs of a coordinator and of the named nodes, and the list\n"
    "                                      `allowed` with the coordinator's key. Copy NAME.key and allowed to each node;\n"
    "                                      keep coordinator.key and the .pub files where you run probe and serve.";

static dil_status path_of(const char *given, const char *file, char out[4096], dil_err *err)
{
    if (!given) return dil_keys_path(file, out, 4096, err);
    if (strlen(given) >= 4096) return dil_fail(err, DIL_ELIMIT, "the path is too long");
    snprintf(out, 4096, "%s", given);
    return DIL_OK;
}

static dil_status make_pair(const char *path, dil_keypair *pair, dil_err *err)
{
    dil_status s = dil_keypair_new(pair, err);
    return s == DIL_OK ? dil_keypair_write(path, pair, err) : s;
}

static dil_status do_new(const char *given, dil_err *err)
{
    char path[4096];
    dil_keypair pair;
    dil_status s = path_of(given, "key", path, err);
    if (s == DIL_OK) s = make_pair(path, &pair, err);
    if (s == DIL_OK) printf("%s\n", pair.public_key);
    return s;
}

static dil_status do_show(const char *given, dil_err *err)
{
    char path[4096];
    dil_keypair pair;
    dil_status s = path_of(given, "key", path, err);
    if (s == DIL_OK) s = dil_keypair_read(path, &pair, err);
    if (s == DIL_OK) printf("%s\n", pair.public_key);
    return s;
}

static dil_status do_allow(const char *list, const char *key, const char *name, dil_err *err)
{
    if (dil_key_is_valid(key) || !dil_file_exists(key)) return dil_keyring_add(list, key, name ? name : "", err);
    dil_keyring ring;
    dil_status s = dil_keyring_read(key, &ring, err);
    if (s != DIL_OK) return s;
    for (size_t i = 0; i < ring.n && s == DIL_OK; i++) s = dil_keyring_add(list, ring.entry[i].key, name ? name : ring.entry[i].name, err);
    dil_keyring_fini(&ring);
    return s;
}

static dil_status do_list(const char *list, dil_err *err)
{
    dil_keyring ring;
    dil_status s = dil_keyring_read(list, &ring, err);
    if (s != DIL_OK) return s;
    for (size_t i = 0; i < ring.n; i++) printf("%s  %s\n", ring.entry[i].key, ring.entry[i].name);
    dil_keyring_fini(&ring);
    return DIL_OK;
}

static dil_status make_member(const char *dir, const char *name, bool allowed, dil_err *err)
{
    char key[4096], pub[4096], list[4096];
    dil_keypair pair;
    if (strchr(name, '/') || !*name || name[0] == '.') return dil_fail(err, DIL_EUSAGE, "'%s' cannot be a machine's name", name);
    if (snprintf(key, sizeof key, "%s/%s.key", dir, name) >= (int)sizeof key) return dil_fail(err, DIL_ELIMIT, "the path is too long");
    snprintf(pub, sizeof pub, "%s/%s.pub", dir, name);
    snprintf(list, sizeof list, "%s/allowed", dir);
    dil_status s = make_pair(key, &pair, err);
    if (s == DIL_OK) s = dil_keyring_add(pub, pair.public_key, name, err);
    if (s == DIL_OK && allowed) s = dil_keyring_add(list, pair.public_key, name, err);
    if (s == DIL_OK) printf("%-12s %s\n", name, pair.public_key);
    return s;
}

static dil_status do_cluster(const dil_cli_list *words, dil_err *err)
{
    dil_status s = make_member(words->item[1], "coordinator", true, err);
    for (size_t i = 2; i < words->n && s == DIL_OK; i++) s = make_member(words->item[1], words->item[i], false, err);
    return s;
}

static int too_few(const char *what)
{
    return dil_cli_usage("keys: %s (see dilemma keys --help)", what);
}

static int run(int argc, char **argv)
{
    dil_cli_list words = {0};
    const char *list = NULL;
    const dil_cli_opt opts[] = {
        {.name = "--list", .kind = DIL_CLI_STR, .out = &list, .arg = "FILE", .help = "the list of allowed keys (~/.config/dilemma/allowed)"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "new|show|allow|remove|list|cluster [...]", about, opts, &words, 1, 255);
    if (status >= 0) return status;
    const char *what = words.item[0], *first = words.n > 1 ? words.item[1] : NULL, *second = words.n > 2 ? words.item[2] : NULL;
    dil_err err;
    char path[4096];
    dil_status s = path_of(list, "allowed", path, &err);
    if (s != DIL_OK) return dil_cli_fail("keys", &err);
    if (strcmp(what, "new") == 0) s = do_new(first, &err);
    else if (strcmp(what, "show") == 0) s = do_show(first, &err);
    else if (strcmp(what, "list") == 0) s = do_list(path, &err);
    else if (strcmp(what, "allow") == 0 && first) s = do_allow(path, first, second, &err);
    else if (strcmp(what, "remove") == 0 && first) s = dil_keyring_remove(path, first, &err);
    else if (strcmp(what, "cluster") == 0 && second) s = do_cluster(&words, &err);
    else return too_few("wants new, show, list, allow KEY, remove KEY, or cluster DIR NAME...");
    return s == DIL_OK ? 0 : dil_cli_fail("keys", &err);
}

const dil_cli_cmd dil_cli_keys = {"keys", "make keys, and say who is let in", run};
