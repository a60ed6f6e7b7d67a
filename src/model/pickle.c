/* The stack machine for pickled state dicts (pickle protocol 2, as torch.save uses it).
 *
 * Values are small tagged unions on the arena; containers hold pointers, so a value that is fetched from the memo a million
 * times costs a million pointers and no copy. Nothing recurses: depth is the depth of the machine's own stacks, which are
 * bounded. What an object's state would be (BUILD's argument, `_metadata` in practice) is parsed and dropped. */
#include "model/pickle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { NONE, BOOLEAN, INTEGER, TEXT, TUPLE, DICT, GLOBAL, STORAGE, TENSOR } kind;

static const char *const kind_name[] = {"None", "a boolean", "an integer", "a string", "a tuple", "a dict", "a global", "a storage", "a tensor"};

typedef enum global { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, STORAGE_TYPE } global;

typedef struct value value;

typedef struct pair {
    const char *key;
    value *item;
    struct pair *next;
} pair;

typedef struct storage {
    const char *type, *key;
    uint64_t numel;
} storage;

typedef struct tensor {
    const storage *storage;
    uint64_t offset;
    uint32_t n_dims;
    uint64_t shape[4], stride[4];
} tensor;

struct value {
    kind kind;
    union {
        int64_t integer; /* also BOOLEAN */
        struct {
            const char *s; /* zero-terminated */
            size_t len;
        } text;
        struct {
            value **item;
            size_t n;
        } tuple;
        struct {
            pair *first, *last;
            size_t n;
        } dict;
        struct {
            global which;
            const char *name; /* of a storage type */
        } global;
        storage storage;
        tensor tensor;
    };
};

typedef struct machine {
    const char *file;
    const uint8_t *data;
    size_t pos, len, op_at; /* op_at: where the current opcode stands */
    dil_arena *arena;
    dil_err *err;
    value **stack;
    size_t n_stack, stack_cap;
    size_t mark[DIL__PICKLE_MARKS_MAX];
    size_t n_marks;
    value **memo;
    size_t n_memo, memo_cap;
} machine;

static const struct {
    const char *module, *name;
    global which;
} known_globals[] = {
    {"collections", "OrderedDict", ORDERED_DICT},
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER},
    {"torch", "FloatStorage", STORAGE_TYPE},
    {"torch", "HalfStorage", STORAGE_TYPE},
    {"torch", "BFloat16Storage", STORAGE_TYPE},
    {"torch", "DoubleStorage", STORAGE_TYPE},
    {"torch", "LongStorage", STORAGE_TYPE},
    {"torch", "IntStorage", STORAGE_TYPE},
    {"torch", "ShortStorage", STORAGE_TYPE},
    {"torch", "CharStorage", STORAGE_TYPE},
    {"torch", "ByteStorage", STORAGE_TYPE},
    {"torch", "BoolStorage", STORAGE_TYPE},
};

/* --- errors and memory --------------------------------------------------------------------------------------------- */

static dil_status bad(machine *m, const char *why)
{
    return dil_fail(m->err, DIL_EFORMAT, "%s: pickle at byte %zu: %s", m->file, m->op_at, why);
}

static void *push_bytes(machine *m, size_t n, size_t size)
{
    return dil_arena_push(m->arena, n, size);
}

static dil_status out_of_arena(machine *m)
{
    return dil_fail(m->err, DIL_ELIMIT, "%s: pickle at byte %zu: its values take more than %zu bytes", m->file, m->op_at, dil_arena_used(m->arena));
}

/* Doubles an array of pointers that lives on the heap, up to max. */
static dil_status grow(machine *m, value ***array, size_t n, size_t *cap, size_t max)
{
    if (n < *cap) return DIL_OK;
    if (n >= max) return dil_fail(m->err, DIL_ELIMIT, "%s: pickle at byte %zu: more than %zu values at once", m->file, m->op_at, max);
    size_t more = *cap ? *cap * 2 : 256;
    value **p = realloc(*array, more * sizeof *p);
    if (!p) return dil_fail(m->err, DIL_EMEMORY, "%s: no memory", m->file);
    *array = p;
    *cap = more;
    return DIL_OK;
}

/* --- the stack ----------------------------------------------------------------------------------------------------- */

static dil_status push(machine *m, value *v)
{
    if (!v) return out_of_arena(m);
    dil_status s = grow(m, &m->stack, m->n_stack, &m->stack_cap, DIL__PICKLE_STACK_MAX);
    if (s == DIL_OK) m->stack[m->n_stack++] = v;
    return s;
}

static value *new_value(machine *m, kind k)
{
    value *v = push_bytes(m, 1, sizeof *v);
    if (v) v->kind = k;
    return v;
}

/* How many values stand above the innermost mark (or on the whole stack). */
static size_t above_mark(const machine *m)
{
    return m->n_stack - (m->n_marks ? m->mark[m->n_marks - 1] : 0);
}

static dil_status pop(machine *m, value **out)
{
    if (above_mark(m) == 0) return bad(m, "the stack is empty");
    *out = m->stack[--m->n_stack];
    return DIL_OK;
}

static dil_status pop_kind(machine *m, kind want, value **out)
{
    value *v = NULL;
    dil_status s = pop(m, &v);
    if (s != DIL_OK) return s;
    if (v->kind != want)
        return dil_fail(m->err, DIL_EFORMAT, "%s: pickle at byte %zu: %s where %s is expected", m->file, m->op_at, kind_name[v->kind], kind_name[want]);
    *out = v;
    return DIL_OK;
}

/* --- reading bytes ------------------------------------------------------------------------------------------------- */

static dil_status take(machine *m, size_t n, const uint8_t **out)
{
    if (n > m->len - m->pos) return bad(m, "truncated");
    *out = m->data + m->pos;
    m->pos += n;
    return DIL_OK;
}

/* Little-endian, n <= 8 bytes. */
static dil_status take_uint(machine *m, size_t n, uint64_t *out)
{
    const uint8_t *p = NULL;
    dil_status s = take(m, n, &p);
    if (s != DIL_OK) return s;
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)p[i] << (8 * i);
    return DIL_OK;
}

static dil_status take_line(machine *m, const char **out, size_t *len)
{
    const uint8_t *end = memchr(m->data + m->pos, '\n', m->len - m->pos);
    if (!end) return bad(m, "truncated");
    *out = (const char *)m->data + m->pos;
    *len = (size_t)(end - (m->data + m->pos));
    m->pos += *len + 1;
    return DIL_OK;
}

/* --- opcodes that make values --------------------------------------------------------------------------------------- */

static dil_status push_integer(machine *m, kind k, int64_t i)
{
    value *v = new_value(m, k);
    if (v) v->integer = i;
    return push(m, v);
}

static dil_status op_int(machine *m, size_t bytes)
{
    uint64_t u = 0;
    dil_status s = take_uint(m, bytes, &u);
    if (s != DIL_OK) return s;
    return push_integer(m, INTEGER, bytes == 4 ? (int32_t)(uint32_t)u : (int64_t)u); /* only the four-byte form is signed */
}

static dil_status op_long(machine *m)
{
    uint64_t n = 0, u = 0;
    dil_status s = take_uint(m, 1, &n);
    if (s == DIL_OK && n > 8) return bad(m, "an integer of more than 64 bits");
    if (s == DIL_OK) s = take_uint(m, (size_t)n, &u);
    if (s != DIL_OK) return s;
    if (n > 0 && n < 8 && (u >> (8 * n - 1)) & 1) u |= UINT64_MAX << (8 * n);
    return push_integer(m, INTEGER, (int64_t)u);
}

static dil_status op_text(machine *m)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    dil_status s = take_uint(m, 4, &n);
    if (s == DIL_OK) s = take(m, (size_t)n, &p);
    if (s != DIL_OK) return s;
    if (memchr(p, 0, (size_t)n)) return bad(m, "a string with a zero byte");
    value *v = new_value(m, TEXT);
    if (!v) return out_of_arena(m);
    v->text.s = dil_arena_strdup(m->arena, (const char *)p, (size_t)n);
    v->text.len = (size_t)n;
    return push(m, v->text.s ? v : NULL);
}

static dil_status op_global(machine *m)
{
    const char *module = NULL, *name = NULL;
    size_t module_len = 0, name_len = 0;
    dil_status s = take_line(m, &module, &module_len);
    if (s == DIL_OK) s = take_line(m, &name, &name_len);
    if (s != DIL_OK) return s;
    for (size_t i = 0; i < sizeof known_globals / sizeof *known_globals; i++) {
        if (strlen(known_globals[i].module) != module_len || memcmp(known_globals[i].module, module, module_len) != 0) continue;
        if (strlen(known_globals[i].name) != name_len || memcmp(known_globals[i].name, name, name_len) != 0) continue;
        value *v = new_value(m, GLOBAL);
        if (!v) return out_of_arena(m);
        v->global.which = known_globals[i].which;
        v->global.name = known_globals[i].name;
        return push(m, v);
    }
    return dil_fail(m->err, DIL_EUNSUPPORTED, "%s: pickle at byte %zu: refuses %.*s.%.*s; a checkpoint holds tensors only", m->file, m->op_at,
                    (int)(module_len < 80 ? module_len : 80), module, (int)(name_len < 80 ? name_len : 80), name);
}

static dil_status push_tuple(machine *m, size_t n)
{
    if (above_mark(m) < n) return bad(m, "the stack is empty");
    value *v = new_value(m, TUPLE);
    if (v) v->tuple.item = push_bytes(m, n, sizeof(value *));
    if (!v || !v->tuple.item) return out_of_arena(m);
    v->tuple.n = n;
    m->n_stack -= n;
    if (n) memcpy(v->tuple.item, m->stack + m->n_stack, n * sizeof(value *));
    return push(m, v);
}

static dil_status op_mark(machine *m)
{
    if (m->n_marks == DIL__PICKLE_MARKS_MAX)
        return dil_fail(m->err, DIL_ELIMIT, "%s: pickle at byte %zu: nested deeper than %d", m->file, m->op_at, DIL__PICKLE_MARKS_MAX);
    m->mark[m->n_marks++] = m->n_stack;
    return DIL_OK;
}

static dil_status op_tuple(machine *m)
{
    if (m->n_marks == 0) return bad(m, "a tuple without a mark");
    size_t n = above_mark(m);
    m->n_marks--;
    return push_tuple(m, n);
}

/* --- the memo ------------------------------------------------------------------------------------------------------ */

/* Python numbers the entries in the order in which it makes them: an index beyond the next one is not from there. */
static dil_status op_put(machine *m, size_t bytes)
{
    uint64_t i = 0;
    dil_status s = take_uint(m, bytes, &i);
    if (s != DIL_OK) return s;
    if (above_mark(m) == 0) return bad(m, "the stack is empty");
    if (i > m->n_memo) return dil_fail(m->err, DIL_EFORMAT, "%s: pickle at byte %zu: memo %" PRIu64 " after %zu", m->file, m->op_at, i, m->n_memo);
    s = grow(m, &m->memo, (size_t)i, &m->memo_cap, DIL__PICKLE_BYTES_MAX);
    if (s != DIL_OK) return s;
    m->memo[i] = m->stack[m->n_stack - 1];
    if (i == m->n_memo) m->n_memo++;
    return DIL_OK;
}

static dil_status op_get(machine *m, size_t bytes)
{
    uint64_t i = 0;
    dil_status s = take_uint(m, bytes, &i);
    if (s != DIL_OK) return s;
    if (i >= m->n_memo) return dil_fail(m->err, DIL_EFORMAT, "%s: pickle at byte %zu: memo %" PRIu64 " of %zu", m->file, m->op_at, i, m->n_memo);
    return push(m, m->memo[i]);
}

/* --- dicts --------------------------------------------------------------------------------------------------------- */

static dil_status set_item(machine *m, value *dict, value *key, value *item)
{
    if (key->kind != TEXT) return dil_fail(m->err, DIL_EUNSUPPORTED, "%s: pickle at byte %zu: %s as a dict's key", m->file, m->op_at, kind_name[key->kind]);
    pair *p = push_bytes(m, 1, sizeof *p);
    if (!p) return out_of_arena(m);
    *p = (pair){.key = key->text.s, .item = item};
    if (dict->dict.last) dict->dict.last->next = p;
    else dict->dict.first = p;
    dict->dict.last = p;
    dict->dict.n++;
    return DIL_OK;
}

static dil_status op_set_items(machine *m)
{
    if (m->n_marks == 0) return bad(m, "items without a mark");
    size_t n = above_mark(m), first = m->n_stack - n;
    m->n_marks--;
    if (n % 2 != 0) return bad(m, "a key without an item");
    m->n_stack = first;
    value *dict = NULL;
    dil_status s = pop_kind(m, DICT, &dict);
    /* The values stay in the stack's memory while nothing is pushed over them. */
    for (size_t i = first; s == DIL_OK && i < first + n; i += 2) s = set_item(m, dict, m->stack[i], m->stack[i + 1]);
    return s == DIL_OK ? push(m, dict) : s;
}

static dil_status op_set_item(machine *m)
{
    value *item = NULL, *key = NULL, *dict = NULL;
    dil_status s = pop(m, &item);
    if (s == DIL_OK) s = pop(m, &key);
    if (s == DIL_OK) s = pop_kind(m, DICT, &dict);
    if (s == DIL_OK) s = set_item(m, dict, key, item);
    return s == DIL_OK ? push(m, dict) : s;
}

static dil_status op_build(machine *m)
{
    value *state = NULL, *object = NULL;
    dil_status s = pop_kind(m, DICT, &state);
    if (s == DIL_OK) s = pop_kind(m, DICT, &object);
    return s == DIL_OK ? push(m, object) : s;
}

/* --- storages and tensors ------------------------------------------------------------------------------------------- */

static bool tuple_is(const value *t, size_t min, const kind *kinds, size_t n)
{
    if (t->tuple.n < min) return false;
    for (size_t i = 0; i < n; i++) {
        if (t->tuple.item[i]->kind != kinds[i]) return false;
    }
    return true;
}

/* ('storage', type, key, location, number of elements) */
static dil_status op_persistent(machine *m)
{
    static const kind kinds[] = {TEXT, GLOBAL, TEXT, TEXT, INTEGER};
    value *t = NULL;
    dil_status s = pop_kind(m, TUPLE, &t);
    if (s != DIL_OK) return s;
    if (!tuple_is(t, 5, kinds, 5) || strcmp(t->tuple.item[0]->text.s, "storage") != 0 || t->tuple.item[1]->global.which != STORAGE_TYPE)
        return bad(m, "a persistent id that is no storage");
    if (t->tuple.item[4]->integer < 0) return bad(m, "a storage of negative size");
    value *v = new_value(m, STORAGE);
    if (v) v->storage = (storage){.type = t->tuple.item[1]->global.name, .key = t->tuple.item[2]->text.s, .numel = (uint64_t)t->tuple.item[4]->integer};
    return push(m, v);
}

static dil_status take_dims(machine *m, const value *t, uint64_t out[4])
{
    for (size_t i = 0; i < t->tuple.n; i++) {
        const value *v = t->tuple.item[i];
        if (v->kind != INTEGER || v->integer < 0) return bad(m, "a shape or stride that is no natural number");
        out[i] = (uint64_t)v->integer;
    }
    return DIL_OK;
}

/* (storage, offset, shape, stride, requires_grad, hooks[, metadata]) */
static dil_status rebuild_tensor(machine *m, const value *args)
{
    static const kind kinds[] = {STORAGE, INTEGER, TUPLE, TUPLE};
    if (!tuple_is(args, 4, kinds, 4)) return bad(m, "a tensor from other arguments than storage, offset, shape, stride");
    const value *shape = args->tuple.item[2], *stride = args->tuple.item[3];
    if (shape->tuple.n > 4 || shape->tuple.n != stride->tuple.n || args->tuple.item[1]->integer < 0)
        return dil_fail(m->err, DIL_EUNSUPPORTED, "%s: pickle at byte %zu: a tensor of %zu dimensions with %zu strides; at most 4 are read", m->file,
                        m->op_at, shape->tuple.n, stride->tuple.n);
    value *v = new_value(m, TENSOR);
    if (!v) return out_of_arena(m);
    v->tensor = (tensor){.storage = &args->tuple.item[0]->storage, .offset = (uint64_t)args->tuple.item[1]->integer, .n_dims = (uint32_t)shape->tuple.n};
    dil_status s = take_dims(m, shape, v->tensor.shape);
    if (s == DIL_OK) s = take_dims(m, stride, v->tensor.stride);
    return s == DIL_OK ? push(m, v) : s;
}

static dil_status op_reduce(machine *m)
{
    static const kind parameter[] = {TENSOR};
    value *args = NULL, *callee = NULL;
    dil_status s = pop_kind(m, TUPLE, &args);
    if (s == DIL_OK) s = pop_kind(m, GLOBAL, &callee);
    if (s != DIL_OK) return s;
    switch (callee->global.which) {
    case ORDERED_DICT: return args->tuple.n == 0 ? push(m, new_value(m, DICT)) : bad(m, "an OrderedDict from arguments");
    case REBUILD_TENSOR: return rebuild_tensor(m, args);
    case REBUILD_PARAMETER: return tuple_is(args, 1, parameter, 1) ? push(m, args->tuple.item[0]) : bad(m, "a parameter that is no tensor");
    default: return bad(m, "a storage type that is called");
    }
}

/* --- running ------------------------------------------------------------------------------------------------------- */

static dil_status op_protocol(machine *m)
{
    uint64_t version = 0;
    dil_status s = take_uint(m, 1, &version);
    if (s == DIL_OK && version != 2)
        return dil_fail(m->err, DIL_EUNSUPPORTED, "%s: pickle protocol %" PRIu64 "; torch.save writes 2", m->file, version);
    return s;
}

static dil_status step(machine *m, uint8_t op)
{
    switch (op) {
    case 0x80: return op_protocol(m);
    case '(': return op_mark(m);
    case 'N': return push(m, new_value(m, NONE));
    case 0x88: return push_integer(m, BOOLEAN, 1);
    case 0x89: return push_integer(m, BOOLEAN, 0);
    case 'K': return op_int(m, 1);
    case 'M': return op_int(m, 2);
    case 'J': return op_int(m, 4);
    case 0x8a: return op_long(m);
    case 'X': return op_text(m);
    case 'c': return op_global(m);
    case ')': return push_tuple(m, 0);
    case 0x85: return push_tuple(m, 1);
    case 0x86: return push_tuple(m, 2);
    case 0x87: return push_tuple(m, 3);
    case 't': return op_tuple(m);
    case '}': return push(m, new_value(m, DICT));
    case 's': return op_set_item(m);
    case 'u': return op_set_items(m);
    case 'q': return op_put(m, 1);
    case 'r': return op_put(m, 4);
    case 'h': return op_get(m, 1);
    case 'j': return op_get(m, 4);
    case 'Q': return op_persistent(m);
    case 'R': return op_reduce(m);
    case 'b': return op_build(m);
    default:
        return dil_fail(m->err, DIL_EUNSUPPORTED, "%s: pickle at byte %zu: opcode 0x%02x, which no dict of tensors needs", m->file, m->op_at, op);
    }
}

static dil_status run(machine *m, value **out)
{
    while (m->pos < m->len) {
        m->op_at = m->pos;
        uint8_t op = m->data[m->pos++];
        if (op == '.') {
            if (m->n_stack != 1 || m->n_marks != 0) return bad(m, "it ends with more or less than one value");
            *out = m->stack[0];
            return DIL_OK;
        }
        dil_status s = step(m, op);
        if (s != DIL_OK) return s;
    }
    m->op_at = m->pos;
    return bad(m, "truncated: no end");
}

static dil_status collect(machine *m, const value *top, dil__pickle_tensor **out, size_t *n)
{
    if (top->kind != DICT) return dil_fail(m->err, DIL_EUNSUPPORTED, "%s: holds %s; a checkpoint is a dict of tensors", m->file, kind_name[top->kind]);
    dil__pickle_tensor *list = push_bytes(m, top->dict.n, sizeof *list);
    if (!list) return out_of_arena(m);
    size_t i = 0;
    for (const pair *p = top->dict.first; p; p = p->next) {
        if (p->item->kind != TENSOR)
            return dil_fail(m->err, DIL_EUNSUPPORTED, "%s: \"%.80s\" is %s; a checkpoint is a dict of tensors", m->file, p->key, kind_name[p->item->kind]);
        const tensor *t = &p->item->tensor;
        dil__pickle_tensor *o = &list[i++];
        *o = (dil__pickle_tensor){.name = p->key, .storage = t->storage->type, .key = t->storage->key, .numel = t->storage->numel,
                                  .offset = t->offset, .n_dims = t->n_dims};
        memcpy(o->shape, t->shape, sizeof o->shape);
        memcpy(o->stride, t->stride, sizeof o->stride);
    }
    *out = list;
    *n = i;
    return DIL_OK;
}

dil_status dil__pickle_read(const char *file, const uint8_t *data, size_t len, dil_arena *arena, dil__pickle_tensor **out, size_t *n, dil_err *err)
{
    if (len > DIL__PICKLE_BYTES_MAX)
        return dil_fail(err, DIL_ELIMIT, "%s: a pickle of %zu bytes, the limit is %u", file, len, DIL__PICKLE_BYTES_MAX);
    machine *m = calloc(1, sizeof *m);
    if (!m) return dil_fail(err, DIL_EMEMORY, "%s: no memory", file);
    m->file = file;
    m->data = data;
    m->len = len;
    m->arena = arena;
    m->err = err;
    value *top = NULL;
    dil_status s = run(m, &top);
    if (s == DIL_OK) s = collect(m, top, out, n);
    free(m->stack);
    free(m->memo);
    free(m);
    return s;
}
