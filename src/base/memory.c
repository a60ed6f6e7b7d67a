/* Checked sizes, arenas and bounded buffers. An arena is a list of blocks that grow geometrically; only the newest has room.
 * A single large mapping was rejected: max_bytes is often far above what is used, and 32-bit nodes run out of address space. */
#include <dilemma/base.h>

#include <stdlib.h>
#include <string.h>

bool dil_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool dil_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

bool dil_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool dil_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

typedef struct block {
    struct block *next;
    size_t used, cap;
    _Alignas(16) uint8_t data[];
} block;

struct dil_arena {
    block *head;
    size_t used, max;
};

enum { FIRST_BLOCK = 4096, MAX_BLOCK = 1 << 20, ALIGN = 16 };

dil_arena *dil_arena_new(size_t max_bytes)
{
    dil_arena *a = calloc(1, sizeof *a);
    if (a) a->max = max_bytes;
    return a;
}

void dil_arena_free(dil_arena *a)
{
    if (!a) return;
    for (block *b = a->head; b;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(a);
}

/* A block made for one large piece goes behind the newest, whose room is kept for what is small. */
static block *add_block(dil_arena *a, size_t need)
{
    size_t cap = a->head ? a->head->cap * 2 : FIRST_BLOCK, room = a->max - a->used;
    if (cap > MAX_BLOCK) cap = MAX_BLOCK;
    if (cap > room) cap = room;
    bool large = cap <= need;
    if (large) cap = need;
    size_t total;
    if (!dil_add_size(cap, sizeof(block), &total)) return NULL;
    block *b = calloc(1, total);
    if (!b) return NULL;
    b->cap = cap;
    block **at = large && a->head ? &a->head->next : &a->head;
    b->next = *at;
    *at = b;
    return b;
}

void *dil_arena_push(dil_arena *a, size_t n, size_t size)
{
    size_t need, padded;
    if (!dil_mul_size(n, size, &need) || !dil_add_size(need, ALIGN - 1, &padded)) return NULL;
    padded &= ~(size_t)(ALIGN - 1);
    if (padded == 0) padded = ALIGN;
    if (padded > a->max - a->used) return NULL;
    block *b = a->head;
    if (!b || b->cap - b->used < padded) b = add_block(a, padded);
    if (!b) return NULL;
    void *p = b->data + b->used;
    b->used += padded;
    a->used += padded;
    return p;
}

char *dil_arena_strdup(dil_arena *a, const char *s, size_t len)
{
    size_t n;
    char *p = dil_add_size(len, 1, &n) ? dil_arena_push(a, n, 1) : NULL;
    if (p && len) memcpy(p, s, len);
    return p;
}

size_t dil_arena_used(const dil_arena *a)
{
    return a->used;
}

void dil_buf_init(dil_buf *b, size_t max)
{
    *b = (dil_buf){.max = max};
}

void dil_buf_fini(dil_buf *b)
{
    free(b->data);
    *b = (dil_buf){.max = b->max};
}

bool dil_buf_reserve(dil_buf *b, size_t more)
{
    if (b->failed) return false;
    /* One byte beyond len is kept for dil_buf_str's zero; it does not count towards max. */
    size_t need;
    if (more > b->max - b->len || !dil_add_size(b->len + more, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    uint8_t *p = realloc(b->data, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

bool dil_buf_append(dil_buf *b, const void *data, size_t len)
{
    if (!dil_buf_reserve(b, len)) return false;
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
    return true;
}

bool dil_buf_printf(dil_buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || !dil_buf_reserve(b, (size_t)n)) {
        b->failed = true;
        return false;
    }
    va_start(args, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, args);
    va_end(args);
    b->len += (size_t)n;
    return true;
}

const char *dil_buf_str(dil_buf *b)
{
    if (b->failed || !b->data) return "";
    b->data[b->len] = 0;
    return (const char *)b->data;
}
