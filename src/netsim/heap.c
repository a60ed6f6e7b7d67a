/* Whose memory is it? Every block that a task's machine allocates is noted, so that a killed process gives back what it had, and one that ended
 * in peace can be asked what it forgot. A table beside the blocks, not a header in front of them: libraries that are not wrapped hand over
 * blocks of their own, and sanitizers see the blocks as they are. */
#include "netsim/world.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);
char *__wrap_strdup(const char *s);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t n);

enum { SLOTS = 1 << 15, MAPS_MAX = 4096 };

static struct { void *p; size_t bytes; sim_host *host; } slot[SLOTS]; /* open addressing; p NULL: free */
static uint32_t n_slots;
static struct { void *at; size_t bytes; sim_host *host; } map[MAPS_MAX];
static uint32_t n_maps;

void *sim_alloc(size_t bytes) { return __real_calloc(1, bytes); }
void sim_free(void *p) { __real_free(p); }

static uint32_t home_of(const void *p)
{
    uint64_t h = (uint64_t)(uintptr_t)p >> 4;
    return (uint32_t)((h * UINT64_C(0x9E3779B97F4A7C15)) >> 40) & (SLOTS - 1);
}

static uint32_t find(const void *p)
{
    uint32_t i = home_of(p);
    while (slot[i].p && slot[i].p != p) i = (i + 1) & (SLOTS - 1);
    return i;
}

void sim_heap_own(void *p, size_t bytes, sim_host *h)
{
    if (!p || !h) return;
    assert(n_slots < SLOTS / 4 * 3);
    uint32_t i = find(p);
    assert(!slot[i].p);
    slot[i].p = p;
    slot[i].bytes = bytes;
    slot[i].host = h;
    n_slots++;
    h->heap_blocks++;
    h->heap_bytes += bytes;
    if (h->heap_bytes > h->heap_peak) h->heap_peak = h->heap_bytes;
}

static void remove_slot(uint32_t i)
{
    slot[i].host->heap_blocks--;
    slot[i].host->heap_bytes -= slot[i].bytes;
    n_slots--;
    slot[i].p = NULL;
    for (uint32_t k = (i + 1) & (SLOTS - 1); slot[k].p; k = (k + 1) & (SLOTS - 1)) {
        uint32_t home = home_of(slot[k].p);
        if (((k - home) & (SLOTS - 1)) < ((k - i) & (SLOTS - 1))) continue;
        slot[i] = slot[k];
        slot[k].p = NULL;
        i = k;
    }
}

void sim_heap_disown(void *p)
{
    uint32_t i = p ? find(p) : 0;
    if (p && slot[i].p) remove_slot(i);
}

void sim_heap_drop(sim_host *h)
{
    while (h->heap_blocks) { /* removing moves others, sometimes back over the table's end: once more */
        for (uint32_t i = 0; i < SLOTS; i++) {
            while (slot[i].p && slot[i].host == h) {
                void *p = slot[i].p;
                remove_slot(i);
                __real_free(p);
            }
        }
    }
    for (uint32_t i = 0; i < n_maps;) {
        if (map[i].host != h) {
            i++;
            continue;
        }
        __real_munmap(map[i].at, map[i].bytes);
        map[i] = map[--n_maps];
    }
    h->maps = 0;
}

void sim_heap_list(sim_host *h)
{
    for (uint32_t i = 0, n = 0; i < SLOTS && n < 10; i++) {
        if (slot[i].p && slot[i].host == h) printf("    %s still holds a block of %zu bytes (%u)\n", h->name, slot[i].bytes, n++);
    }
}

/* --- as the code calls it --------------------------------------------------------------------------------------------------------------- */

static void *note(void *p, size_t n)
{
    sim_heap_own(p, n, sim_here());
    return p;
}

void *__wrap_malloc(size_t n) { return note(__real_malloc(n), n); }
void *__wrap_calloc(size_t n, size_t size) { return note(__real_calloc(n, size), n * size); }

void *__wrap_realloc(void *p, size_t n)
{
    if (!p) return __wrap_malloc(n);
    void *grown = __wrap_malloc(n);
    if (!grown) return NULL;
    uint32_t i = find(p);
    if (!slot[i].p) { /* not one of ours */
        __wrap_free(grown);
        return __real_realloc(p, n);
    }
    memcpy(grown, p, slot[i].bytes < n ? slot[i].bytes : n);
    __wrap_free(p);
    return grown;
}

void __wrap_free(void *p)
{
    sim_heap_disown(p);
    __real_free(p);
}

char *__wrap_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = __wrap_malloc(n);
    return copy ? memcpy(copy, s, n) : NULL;
}

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    void *p = __real_mmap(at, n, prot, flags, fd, offset);
    sim_host *h = sim_here();
    if (p == MAP_FAILED || at || !h) return p;
    assert(n_maps < MAPS_MAX);
    map[n_maps].at = p;
    map[n_maps].bytes = n;
    map[n_maps++].host = h;
    h->maps++;
    return p;
}

int __wrap_munmap(void *at, size_t n)
{
    for (uint32_t i = 0; i < n_maps; i++) {
        if (map[i].at != at) continue;
        map[i].host->maps--;
        map[i] = map[--n_maps];
        break;
    }
    return __real_munmap(at, n);
}
