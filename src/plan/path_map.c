/* plan/path_map.c - a hash table from 128-bit keys to indices, open addressing, grows by doubling.
 *
 * Keys are two independent mixes of what they stand for; that two of a million differ in what they stand for and agree in 128 bits
 * has a probability below 1e-26, so the table does not keep the originals. */
#include "plan/path_int.h"

#include <stdlib.h>

struct px_map {
    struct slot { px_key key; uint32_t value; bool used; } *slot;
    size_t n, cap; /* cap is a power of two */
};

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void dil__px_key_add(px_key *k, uint64_t x) {
    k->a = mix(k->a + x + 0x9e3779b97f4a7c15u);
    k->b = mix((k->b ^ x) * 0xd6e8feb86659fd93u + 0x2545f4914f6cdd1du);
}

px_map *dil__px_map_new(void) {
    px_map *m = dil__px_alloc(1, sizeof *m);
    if (!m) return NULL;
    m->cap = 1024;
    m->slot = dil__px_alloc(m->cap, sizeof *m->slot);
    if (m->slot) return m;
    free(m);
    return NULL;
}

void dil__px_map_free(px_map *m) {
    if (!m) return;
    free(m->slot);
    free(m);
}

static struct slot *find(struct slot *v, size_t cap, px_key k) {
    for (size_t i = k.a & (cap - 1);; i = (i + 1) & (cap - 1))
        if (!v[i].used || (v[i].key.a == k.a && v[i].key.b == k.b)) return &v[i];
}

static bool double_size(px_map *m) {
    struct slot *v = dil__px_alloc(2 * m->cap, sizeof *v);
    if (!v) return false;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slot[i].used) *find(v, 2 * m->cap, m->slot[i].key) = m->slot[i];
    free(m->slot);
    m->slot = v;
    m->cap *= 2;
    return true;
}

uint32_t *dil__px_map_at(px_map *m, px_key k, bool *is_new) {
    if (2 * m->n >= m->cap && !double_size(m)) return NULL;
    struct slot *s = find(m->slot, m->cap, k);
    *is_new = !s->used;
    if (!s->used) {
        *s = (struct slot){k, 0, true};
        m->n++;
    }
    return &s->value;
}
