/* A JSON schema to the program that grammar.c runs. Every schema becomes a routine; what JSON itself is made of (strings, numbers, white
 * space, any value) are routines too, written when first asked for. */
#include "engine/grammar.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { COPIES_MAX = 64, LENGTH_MAX = 256, NEST_MAX = 64, MEMBERS_MAX = 512, REFS_MAX = 256, PATH_MAX_BYTES = 160 };

typedef struct compiler {
    dil_grammar *g;
    json_t *root;
    dil_err *err;
    dil_status status;
    uint32_t string, character, number, integer, space, value; /* routines; 0: not yet */
    struct { const json_t *schema; uint32_t at; } ref[REFS_MAX];
    size_t n_refs;
    uint32_t depth;
    char path[PATH_MAX_BYTES];
} compiler;

/* --- writing code ---------------------------------------------------------------------------------------------------------- */

static void stop(compiler *c, dil_status s, const char *what)
{
    if (c->status == DIL_OK) c->status = dil_fail(c->err, s, "schema: %s%s%s", c->path, c->path[0] ? ": " : "", what);
}

static uint32_t here(const compiler *c)
{
    return c->g->n_code;
}

static uint32_t emit(compiler *c, dil__op op, uint32_t a, uint32_t b)
{
    dil_grammar *g = c->g;
    if (g->n_code == g->cap_code) {
        uint32_t cap = g->cap_code ? g->cap_code * 2 : 1024;
        dil__instr *p = cap <= DIL__PROGRAM_MAX ? realloc(g->code, cap * sizeof *p) : NULL;
        if (!p) {
            stop(c, cap > DIL__PROGRAM_MAX ? DIL_ELIMIT : DIL_EMEMORY, "too large");
            return 0;
        }
        g->code = p;
        g->cap_code = cap;
    }
    g->code[g->n_code] = (dil__instr){op, a, b};
    return g->n_code++;
}

static uint32_t set_of(compiler *c, const dil__byteset *s)
{
    dil_grammar *g = c->g;
    for (uint32_t i = 0; i < g->n_sets; i++) {
        if (memcmp(&g->set[i], s, sizeof *s) == 0) return i;
    }
    if (!g->set) g->set = calloc(DIL__SETS_MAX, sizeof *g->set);
    if (!g->set || g->n_sets == DIL__SETS_MAX) {
        stop(c, g->set ? DIL_ELIMIT : DIL_EMEMORY, "too many kinds of characters");
        return 0;
    }
    g->set[g->n_sets] = *s;
    return g->n_sets++;
}

/* One byte of the ranges "azAZ": pairs of ends. */
static void ranges(compiler *c, const char *pairs, size_t n)
{
    dil__byteset s = {{0}};
    for (size_t i = 0; i + 1 < n; i += 2) {
        for (unsigned b = (uint8_t)pairs[i]; b <= (uint8_t)pairs[i + 1]; b++) s.bit[b / 8] |= (uint8_t)(1u << (b % 8));
    }
    emit(c, DIL__OP_SET, set_of(c, &s), 0);
}
#define RANGES(c, pairs) ranges(c, pairs, sizeof pairs - 1)

static void literal(compiler *c, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) ranges(c, (const char[]){s[i], s[i]}, 2);
}

static void word(compiler *c, const char *s)
{
    literal(c, s, strlen(s));
}

/* if (c->status) the code is not used; indices stay in range. */
static void patch(compiler *c, uint32_t at, bool second, uint32_t to)
{
    if (c->status != DIL_OK) return;
    if (second) c->g->code[at].b = to;
    else c->g->code[at].a = to;
}

/* SPLIT to the next instruction or to what `or_else` is patched to. */
static uint32_t maybe(compiler *c)
{
    uint32_t at = emit(c, DIL__OP_SPLIT, 0, 0);
    patch(c, at, false, at + 1);
    return at;
}

static void or_else(compiler *c, uint32_t split)
{
    patch(c, split, true, here(c));
}

/* A routine is written behind a jump over it. */
static uint32_t open_routine(compiler *c, uint32_t *jump)
{
    *jump = emit(c, DIL__OP_JUMP, 0, 0);
    return here(c);
}

static void close_routine(compiler *c, uint32_t jump)
{
    emit(c, DIL__OP_RETURN, 0, 0);
    patch(c, jump, false, here(c));
}

static void call(compiler *c, uint32_t routine)
{
    emit(c, DIL__OP_CALL, routine, 0);
}

/* --- JSON's own parts -------------------------------------------------------------------------------------------------------- */

/* "one of": alternatives that all go on behind the last. */
typedef struct choice { uint32_t out[32], n, split; } choice;

static void next_choice(compiler *c, choice *x, bool last)
{
    if (x->split) or_else(c, x->split);
    x->split = last ? 0 : maybe(c);
}

static void end_choice(compiler *c, choice *x)
{
    x->out[x->n++] = emit(c, DIL__OP_JUMP, 0, 0);
}

static void join(compiler *c, const choice *x)
{
    for (uint32_t i = 0; i < x->n; i++) patch(c, x->out[i], false, here(c));
}

static void space(compiler *c)
{
    if (c->space) {
        call(c, c->space);
        return;
    }
    uint32_t jump, at = open_routine(c, &jump), none = maybe(c), line = maybe(c);
    RANGES(c, "  ");
    uint32_t out = emit(c, DIL__OP_JUMP, 0, 0), indent[24];
    or_else(c, line);
    RANGES(c, "\n\n");
    for (int i = 0; i < 24; i++) {
        indent[i] = maybe(c);
        RANGES(c, "  ");
    }
    for (int i = 0; i < 24; i++) or_else(c, indent[i]);
    or_else(c, none);
    patch(c, out, false, here(c));
    close_routine(c, jump);
    c->space = at;
    call(c, at);
}

#define TAIL "\x80\xBF"
static void character(compiler *c)
{
    static const struct { const char *first, *second; int more; } utf8[] = {
        {"\xC2\xDF", NULL, 1}, {"\xE0\xE0", "\xA0\xBF", 1}, {"\xE1\xEC\xEE\xEF", NULL, 2}, {"\xED\xED", "\x80\x9F", 1},
        {"\xF0\xF0", "\x90\xBF", 2}, {"\xF1\xF3", NULL, 3}, {"\xF4\xF4", "\x80\x8F", 2}};
    if (c->character) {
        call(c, c->character);
        return;
    }
    uint32_t jump, at = open_routine(c, &jump);
    choice x = {.n = 0};
    next_choice(c, &x, false);
    RANGES(c, "\x20\x21\x23\x5B\x5D\x7E");
    end_choice(c, &x);
    next_choice(c, &x, false);
    RANGES(c, "\\\\");
    RANGES(c, "\"\"\\\\//bbffnnrrtt");
    end_choice(c, &x);
    for (int high = 0; high < 2; high++) { /* \uXXXX, but for halves of pairs */
        next_choice(c, &x, false);
        word(c, "\\u");
        if (high) RANGES(c, "ddDD");
        else RANGES(c, "09acACefEF");
        if (high) RANGES(c, "07");
        else RANGES(c, "09afAF");
        RANGES(c, "09afAF");
        RANGES(c, "09afAF");
        end_choice(c, &x);
    }
    for (size_t i = 0; i < sizeof utf8 / sizeof *utf8; i++) {
        next_choice(c, &x, i + 1 == sizeof utf8 / sizeof *utf8);
        ranges(c, utf8[i].first, strlen(utf8[i].first));
        if (utf8[i].second) ranges(c, utf8[i].second, 2);
        for (int k = 0; k < utf8[i].more; k++) RANGES(c, TAIL);
        end_choice(c, &x);
    }
    join(c, &x);
    close_routine(c, jump);
    c->character = at;
    call(c, at);
}

/* At least min characters, at most max (UINT32_MAX: any number). */
static void characters(compiler *c, uint32_t min, uint32_t max)
{
    uint32_t skip[LENGTH_MAX];
    for (uint32_t i = 0; i < min; i++) character(c);
    if (max == UINT32_MAX) {
        uint32_t loop = maybe(c);
        character(c);
        emit(c, DIL__OP_JUMP, loop, 0);
        or_else(c, loop);
        return;
    }
    for (uint32_t i = min; i < max; i++) {
        skip[i - min] = maybe(c);
        character(c);
    }
    for (uint32_t i = min; i < max; i++) or_else(c, skip[i - min]);
}

static void string(compiler *c, uint32_t min, uint32_t max)
{
    bool usual = min == 0 && max == UINT32_MAX;
    if (usual && c->string) {
        call(c, c->string);
        return;
    }
    uint32_t jump, at = open_routine(c, &jump);
    RANGES(c, "\"\"");
    characters(c, min, max);
    RANGES(c, "\"\"");
    close_routine(c, jump);
    if (usual) c->string = at;
    call(c, at);
}

static void digits(compiler *c, int most)
{
    uint32_t skip[32];
    for (int i = 0; i < most; i++) {
        skip[i] = maybe(c);
        RANGES(c, "09");
    }
    for (int i = 0; i < most; i++) or_else(c, skip[i]);
}

static void number(compiler *c, bool whole)
{
    uint32_t *kept = whole ? &c->integer : &c->number;
    if (*kept) {
        call(c, *kept);
        return;
    }
    uint32_t jump, at = open_routine(c, &jump), sign = maybe(c);
    RANGES(c, "--");
    or_else(c, sign);
    uint32_t zero = maybe(c);
    RANGES(c, "00");
    uint32_t out = emit(c, DIL__OP_JUMP, 0, 0);
    or_else(c, zero);
    RANGES(c, "19");
    digits(c, 17);
    patch(c, out, false, here(c));
    if (!whole) {
        uint32_t point = maybe(c);
        RANGES(c, "..");
        RANGES(c, "09");
        digits(c, 15);
        or_else(c, point);
        uint32_t power = maybe(c);
        RANGES(c, "eeEE");
        uint32_t plus = maybe(c);
        RANGES(c, "++--");
        or_else(c, plus);
        RANGES(c, "09");
        digits(c, 1);
        or_else(c, power);
    }
    close_routine(c, jump);
    *kept = at;
    call(c, at);
}

/* '{' (string ':' member (',' ...)*)? '}' */
static void map_of(compiler *c, uint32_t one)
{
    RANGES(c, "{{");
    space(c);
    uint32_t empty = maybe(c), again = here(c);
    string(c, 0, UINT32_MAX);
    RANGES(c, "::");
    space(c);
    call(c, one);
    uint32_t done = maybe(c);
    RANGES(c, ",,");
    space(c);
    emit(c, DIL__OP_JUMP, again, 0);
    or_else(c, done);
    space(c);
    or_else(c, empty);
    RANGES(c, "}}");
}

static void list_of(compiler *c, uint32_t one, uint32_t min, uint32_t max)
{
    uint32_t skip[COPIES_MAX + 1], n = 0;
    RANGES(c, "[[");
    space(c);
    for (uint32_t i = 0; i < (max == UINT32_MAX ? min : max) && c->status == DIL_OK; i++) {
        if (i >= min) skip[n++] = maybe(c);
        if (i > 0) {
            RANGES(c, ",,");
            space(c);
        }
        call(c, one);
    }
    if (max == UINT32_MAX) {
        uint32_t none = maybe(c), first = 0;
        if (min == 0) {
            call(c, one);
            first = here(c);
        } else {
            first = none; /* each of those that may follow begins with a comma */
        }
        uint32_t done = min == 0 ? maybe(c) : none;
        RANGES(c, ",,");
        space(c);
        call(c, one);
        emit(c, DIL__OP_JUMP, first, 0);
        or_else(c, done);
        or_else(c, none);
    }
    for (uint32_t i = 0; i < n; i++) or_else(c, skip[i]);
    space(c);
    RANGES(c, "]]");
}

static uint32_t value_routine(compiler *c)
{
    static const char *const words[] = {"true", "false", "null"};
    if (c->value) return c->value;
    uint32_t jump;
    c->value = open_routine(c, &jump);
    choice x = {.n = 0};
    next_choice(c, &x, false);
    map_of(c, c->value);
    end_choice(c, &x);
    next_choice(c, &x, false);
    list_of(c, c->value, 0, UINT32_MAX);
    end_choice(c, &x);
    next_choice(c, &x, false);
    string(c, 0, UINT32_MAX);
    end_choice(c, &x);
    next_choice(c, &x, false);
    number(c, false);
    end_choice(c, &x);
    for (int i = 0; i < 3; i++) {
        next_choice(c, &x, i == 2);
        word(c, words[i]);
        end_choice(c, &x);
    }
    join(c, &x);
    close_routine(c, jump);
    return c->value;
}

static void value(compiler *c)
{
    call(c, value_routine(c));
}

/* --- schemas -------------------------------------------------------------------------------------------------------------------- */

static void schema(compiler *c, const json_t *s);

static void exact(compiler *c, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) stop(c, DIL_EMEMORY, "no memory");
    else word(c, text);
    free(text);
}

static uint32_t count_of(compiler *c, const json_t *s, const char *key, uint32_t dflt, uint32_t most)
{
    const json_t *v = json_object_get(s, key);
    char why[96];
    if (!v) return dflt;
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        snprintf(why, sizeof why, "%s is not a number of things", key);
        stop(c, DIL_EFORMAT, why);
        return dflt;
    }
    if (json_integer_value(v) > (json_int_t)most) {
        snprintf(why, sizeof why, "%s is %" JSON_INTEGER_FORMAT ", the limit is %u", key, json_integer_value(v), most);
        stop(c, DIL_ELIMIT, why);
        return dflt;
    }
    return (uint32_t)json_integer_value(v);
}

static bool is_required(const json_t *s, const char *name)
{
    const json_t *o;
    size_t i;
    json_array_foreach(json_object_get(s, "required"), i, o)
    {
        if (json_is_string(o) && strcmp(json_string_value(o), name) == 0) return true;
    }
    return false;
}

static uint32_t routine_of(compiler *c, const json_t *s)
{
    uint32_t jump, at = open_routine(c, &jump);
    schema(c, s);
    close_routine(c, jump);
    return at;
}

static uint32_t member(compiler *c, const char *name, const json_t *s)
{
    uint32_t jump, at = open_routine(c, &jump);
    size_t kept = strlen(c->path);
    json_t *key = json_string(name);
    if (key) exact(c, key);
    else stop(c, DIL_EFORMAT, "a member's name is not UTF-8");
    json_decref(key);
    RANGES(c, "::");
    space(c);
    snprintf(c->path + kept, sizeof c->path - kept, "/%.40s", name);
    schema(c, s);
    c->path[kept] = 0;
    close_routine(c, jump);
    return at;
}

/* Members in order: as long as none has come, a member needs no comma before it. */
static void members(compiler *c, const json_t *s)
{
    uint32_t at[MEMBERS_MAX], n = 0, must[MEMBERS_MAX], first_must = 0;
    const json_t *props = json_object_get(s, "properties");
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)props, name, v)
    {
        if (n == MEMBERS_MAX) {
            stop(c, DIL_ELIMIT, "more than 512 properties");
            return;
        }
        must[n] = is_required(s, name);
        at[n++] = member(c, name, v);
    }
    RANGES(c, "{{");
    space(c);
    uint32_t into[MEMBERS_MAX + 1]; /* jumps from "none yet" into "some" behind member i */
    while (first_must < n && !must[first_must]) first_must++;
    uint32_t last = first_must < n ? first_must + 1 : n;
    for (uint32_t i = 0; i < last && c->status == DIL_OK; i++) {
        uint32_t skip = must[i] ? 0 : maybe(c);
        call(c, at[i]);
        into[i] = emit(c, DIL__OP_JUMP, 0, 0);
        if (!must[i]) or_else(c, skip);
    }
    uint32_t none = first_must < n ? 0 : emit(c, DIL__OP_JUMP, 0, 0);
    for (uint32_t i = 1; i <= n && c->status == DIL_OK; i++) {
        if (i - 1 < last) patch(c, into[i - 1], false, here(c));
        if (i == n) break;
        uint32_t skip = must[i] ? 0 : maybe(c);
        RANGES(c, ",,");
        space(c);
        call(c, at[i]);
        if (!must[i]) or_else(c, skip);
    }
    if (none) patch(c, none, false, here(c));
    space(c);
    RANGES(c, "}}");
}

static void object(compiler *c, const json_t *s)
{
    const json_t *props = json_object_get(s, "properties"), *more = json_object_get(s, "additionalProperties");
    if (props && !json_is_object(props)) {
        stop(c, DIL_EFORMAT, "properties is not an object");
        return;
    }
    if (json_object_size(props) > 0) {
        const json_t *o;
        size_t i;
        json_array_foreach(json_object_get(s, "required"), i, o)
        {
            if (!json_is_string(o) || !json_object_get(props, json_string_value(o))) {
                stop(c, DIL_EUNSUPPORTED, "required names what properties does not");
                return;
            }
        }
        members(c, s);
    } else if (json_is_false(more)) {
        RANGES(c, "{{");
        RANGES(c, "}}");
    } else if (json_array_size(json_object_get(s, "required")) > 0) {
        stop(c, DIL_EUNSUPPORTED, "required names what properties does not");
    } else {
        map_of(c, json_is_object(more) ? routine_of(c, more) : value_routine(c));
    }
}

static void array(compiler *c, const json_t *s)
{
    const json_t *items = json_object_get(s, "items");
    uint32_t min = count_of(c, s, "minItems", 0, COPIES_MAX), max = count_of(c, s, "maxItems", UINT32_MAX, COPIES_MAX);
    if (max < min) stop(c, DIL_EFORMAT, "maxItems is less than minItems");
    if (items && !json_is_object(items) && !json_is_true(items)) {
        stop(c, DIL_EUNSUPPORTED, "items is not a schema");
        return;
    }
    list_of(c, json_is_object(items) ? routine_of(c, items) : value_routine(c), min, max);
}

static void one_type(compiler *c, const json_t *s, const char *type)
{
    if (strcmp(type, "object") == 0) object(c, s);
    else if (strcmp(type, "array") == 0) array(c, s);
    else if (strcmp(type, "number") == 0) number(c, false);
    else if (strcmp(type, "integer") == 0) number(c, true);
    else if (strcmp(type, "null") == 0) word(c, "null");
    else if (strcmp(type, "boolean") == 0) {
        uint32_t no = maybe(c);
        word(c, "true");
        uint32_t out = emit(c, DIL__OP_JUMP, 0, 0);
        or_else(c, no);
        word(c, "false");
        patch(c, out, false, here(c));
    } else if (strcmp(type, "string") == 0) {
        uint32_t min = count_of(c, s, "minLength", 0, LENGTH_MAX), max = count_of(c, s, "maxLength", UINT32_MAX, LENGTH_MAX);
        if (max < min) stop(c, DIL_EFORMAT, "maxLength is less than minLength");
        else string(c, min, max);
    } else {
        stop(c, DIL_EFORMAT, "an unknown type");
    }
}

/* Each of a list, as alternatives. */
static void each(compiler *c, const json_t *list, void (*one)(compiler *c, const json_t *s, const json_t *o), const json_t *s)
{
    size_t n = json_array_size(list), i;
    const json_t *o;
    if (n == 0 || n > MEMBERS_MAX) {
        stop(c, DIL_EFORMAT, "a list of alternatives that is empty, or of more than 512");
        return;
    }
    uint32_t *out = calloc(n, sizeof *out);
    if (!out) {
        stop(c, DIL_EMEMORY, "no memory");
        return;
    }
    json_array_foreach(list, i, o)
    {
        uint32_t split = i + 1 < n ? maybe(c) : 0;
        one(c, s, o);
        out[i] = emit(c, DIL__OP_JUMP, 0, 0);
        if (i + 1 < n) or_else(c, split);
    }
    for (i = 0; i < n; i++) patch(c, out[i], false, here(c));
    free(out);
}

static void each_schema(compiler *c, const json_t *s, const json_t *o)
{
    (void)s;
    schema(c, o);
}

static void each_value(compiler *c, const json_t *s, const json_t *o)
{
    (void)s;
    exact(c, o);
}

static void each_type(compiler *c, const json_t *s, const json_t *o)
{
    one_type(c, s, json_is_string(o) ? json_string_value(o) : "");
}

static bool is_among(const char *key, const char *const *list)
{
    for (; *list; list++) {
        if (strcmp(key, *list) == 0) return true;
    }
    return false;
}

static void check_keywords(compiler *c, const json_t *s)
{
    static const char *const known[] = {"type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "minLength", "maxLength",
                                        "enum", "const", "anyOf", "allOf", "$ref", "$defs", "definitions", "title", "description", "default", "examples",
                                        "example", "format", "$comment", "$schema", "$id", "deprecated", "readOnly", "writeOnly", NULL};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)s, key, v)
    {
        if (is_among(key, known)) continue;
        char why[96];
        snprintf(why, sizeof why, "\"%.40s\" is not supported", key);
        stop(c, DIL_EUNSUPPORTED, why);
    }
}

/* "#/$defs/name/..." within the document. */
static const json_t *resolve(compiler *c, const char *ref)
{
    const json_t *at = c->root;
    if (ref[0] != '#') return NULL;
    for (const char *p = ref + 1; at && *p == '/';) {
        size_t n = strcspn(++p, "/");
        char name[256];
        if (n >= sizeof name) return NULL;
        memcpy(name, p, n);
        name[n] = 0;
        at = json_object_get(at, name);
        p += n;
    }
    return at;
}

static void reference(compiler *c, const char *ref)
{
    const json_t *s = resolve(c, ref);
    if (!s) {
        stop(c, DIL_EUNSUPPORTED, "a $ref that is not within the document");
        return;
    }
    for (size_t i = 0; i < c->n_refs; i++) {
        if (c->ref[i].schema != s) continue;
        call(c, c->ref[i].at);
        return;
    }
    if (c->n_refs == REFS_MAX) {
        stop(c, DIL_ELIMIT, "more than 256 references");
        return;
    }
    uint32_t jump, at = open_routine(c, &jump);
    c->ref[c->n_refs].schema = s;
    c->ref[c->n_refs++].at = at;
    schema(c, s);
    close_routine(c, jump);
    call(c, at);
}

static void schema(compiler *c, const json_t *s)
{
    if (c->status != DIL_OK) return;
    if (json_is_true(s)) {
        value(c);
        return;
    }
    if (!json_is_object(s)) {
        stop(c, DIL_EFORMAT, "a schema is an object");
        return;
    }
    if (++c->depth > NEST_MAX) stop(c, DIL_ELIMIT, "schemas nested more than 64 deep");
    check_keywords(c, s);
    const json_t *ref = json_object_get(s, "$ref"), *type = json_object_get(s, "type"), *all = json_object_get(s, "allOf");
    if (c->status != DIL_OK) {
    } else if (json_is_string(ref)) {
        reference(c, json_string_value(ref));
    } else if (json_object_get(s, "const")) {
        exact(c, json_object_get(s, "const"));
    } else if (json_object_get(s, "enum")) {
        each(c, json_object_get(s, "enum"), each_value, s);
    } else if (json_object_get(s, "anyOf")) {
        each(c, json_object_get(s, "anyOf"), each_schema, s);
    } else if (all) {
        if (json_array_size(all) == 1) schema(c, json_array_get(all, 0));
        else stop(c, DIL_EUNSUPPORTED, "allOf of several");
    } else if (json_is_array(type)) {
        each(c, type, each_type, s);
    } else if (json_is_string(type)) {
        one_type(c, s, json_string_value(type));
    } else if (type) {
        stop(c, DIL_EFORMAT, "type is neither a name nor a list");
    } else if (json_object_get(s, "properties")) {
        object(c, s);
    } else {
        value(c);
    }
    c->depth--;
}

dil_status dil__schema_compile(const char *text, size_t len, dil_grammar *g, dil_err *err)
{
    compiler c = {.g = g, .err = err};
    if (len > DIL_SCHEMA_BYTES_MAX) return dil_fail(err, DIL_ELIMIT, "schema: %zu bytes, at most %u", len, DIL_SCHEMA_BYTES_MAX);
    dil_status s = text ? dil__json_parse("schema", text, len, &c.root, err) : DIL_OK;
    if (s != DIL_OK) return s;
    emit(&c, DIL__OP_NEVER, 0, 0); /* routine 0 is "none" */
    g->start = here(&c);
    if (text) schema(&c, c.root);
    else map_of(&c, value_routine(&c));
    emit(&c, DIL__OP_RETURN, 0, 0);
    json_decref(c.root);
    return c.status;
}
