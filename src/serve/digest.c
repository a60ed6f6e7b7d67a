/* The two hashes that hubs name files by. SHA-1 is not for safety here: git names small files by it. FIPS 180-4. */
#include "serve/fetch.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

typedef struct sha1 {
    uint32_t h[5];
    uint8_t block[64];
    uint64_t n;
} sha1;

static uint32_t rol(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

static void sha1_block(sha1 *s, const uint8_t *p)
{
    uint32_t w[80], a = s->h[0], b = s->h[1], c = s->h[2], d = s->h[3], e = s->h[4];
    for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
        uint32_t k = i < 20 ? 0x5a827999u : i < 40 ? 0x6ed9eba1u : i < 60 ? 0x8f1bbcdcu : 0xca62c1d6u;
        uint32_t t = rol(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = rol(b, 30);
        b = a;
        a = t;
    }
    s->h[0] += a;
    s->h[1] += b;
    s->h[2] += c;
    s->h[3] += d;
    s->h[4] += e;
}

static void sha1_add(sha1 *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    while (n > 0) {
        size_t at = s->n % 64, k = n < 64 - at ? n : 64 - at;
        memcpy(s->block + at, p, k);
        s->n += k;
        p += k;
        n -= k;
        if (s->n % 64 == 0) sha1_block(s, s->block);
    }
}

static void sha1_end(sha1 *s, uint8_t out[20])
{
    uint8_t length[8];
    uint64_t bits = s->n * 8;
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha1_add(s, "\x80", 1);
    while (s->n % 64 != 56) sha1_add(s, "", 1);
    sha1_add(s, length, 8);
    for (int i = 0; i < 20; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

static dil_status each_block(const char *path, const dil_progress *p, void (*fn)(void *ctx, const void *data, size_t n), void *ctx, dil_err *err)
{
    FILE *f = fopen(path, "rb");
    if (!f) return dil_fail_errno(err, "%s", path);
    static _Thread_local uint8_t block[1 << 18];
    fseeko(f, 0, SEEK_END);
    double total = (double)ftello(f), done = 0;
    rewind(f);
    dil_status s = DIL_OK;
    for (size_t n; s == DIL_OK && (n = fread(block, 1, sizeof block, f)) > 0;) {
        fn(ctx, block, n);
        done += (double)n;
        if (!dil_progress_step(p, "checking the hash", done, total)) s = dil_fail(err, DIL_ECANCELED, "%s: canceled", path);
    }
    if (s == DIL_OK && ferror(f)) s = dil_fail_errno(err, "reading %s", path);
    fclose(f);
    return s;
}

static void add_sha256(void *ctx, const void *data, size_t n)
{
    crypto_hash_sha256_update(ctx, data, n);
}

static void add_sha1(void *ctx, const void *data, size_t n)
{
    sha1_add(ctx, data, n);
}

dil_status dil__file_sha256(const char *path, const dil_progress *p, char hex[65], dil_err *err)
{
    crypto_hash_sha256_state st;
    crypto_hash_sha256_init(&st);
    dil_status s = each_block(path, p, add_sha256, &st, err);
    uint8_t out[32];
    crypto_hash_sha256_final(&st, out);
    if (s == DIL_OK) sodium_bin2hex(hex, 65, out, sizeof out);
    return s;
}

dil_status dil__file_git_sha1(const char *path, char hex[41], dil_err *err)
{
    sha1 st = {.h = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u}};
    FILE *f = fopen(path, "rb");
    if (!f) return dil_fail_errno(err, "%s", path);
    fseeko(f, 0, SEEK_END);
    char head[32];
    int n = snprintf(head, sizeof head, "blob %lld", (long long)ftello(f));
    fclose(f);
    sha1_add(&st, head, (size_t)n + 1); /* its zero belongs to it */
    dil_status s = each_block(path, NULL, add_sha1, &st, err);
    uint8_t out[20];
    sha1_end(&st, out);
    if (s == DIL_OK) sodium_bin2hex(hex, 41, out, sizeof out);
    return s;
}
