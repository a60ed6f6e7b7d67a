/* Log sink, progress, random numbers, hashes, clocks, and sizes as people write them. */
#include <dilemma/base.h>

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static dil_log_sink *log_sink;
static void *log_ctx;
static dil_log_level log_min;

void dil_log_set_sink(dil_log_sink *sink, void *ctx, dil_log_level min_level)
{
    log_sink = sink;
    log_ctx = ctx;
    log_min = min_level;
}

void dil_log(dil_log_level level, const char *module, const char *fmt, ...)
{
    if (!log_sink || level < log_min) return;
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    log_sink(log_ctx, level, module, text);
}

bool dil_progress_step(const dil_progress *p, const char *what, double done, double total)
{
    return !p || !p->fn || p->fn(p->ctx, what, done, total);
}

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void dil_rng_init(dil_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) r->s[i] = splitmix(&seed);
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

/* xoshiro256++ 1.0, Blackman and Vigna. */
uint64_t dil_rng_u64(dil_rng *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[0] + s[3], 23) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double dil_rng_unit(dil_rng *r)
{
    return (double)(dil_rng_u64(r) >> 11) * 0x1.0p-53;
}

uint64_t dil_rng_below(dil_rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n; /* a multiple of n: what lies above would favour small numbers */
    uint64_t x;
    do x = dil_rng_u64(r);
    while (x >= limit);
    return x % n;
}

double dil_rng_normal(dil_rng *r)
{
    double u = 1.0 - dil_rng_unit(r), v = dil_rng_unit(r); /* u in (0,1] */
    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.14159265358979323846 * v);
}

dil_hash dil_hash_of(const void *data, size_t len)
{
    dil_hash h;
    crypto_generichash(h.bytes, sizeof h.bytes, data, len, NULL, 0);
    return h;
}

void dil_hash_hex(const dil_hash *h, char out[2 * DIL_HASH_BYTES + 1])
{
    sodium_bin2hex(out, 2 * DIL_HASH_BYTES + 1, h->bytes, DIL_HASH_BYTES);
}

bool dil_hash_from_hex(const char *hex, dil_hash *out)
{
    dil_hash h;
    size_t n;
    const char *end;
    size_t len = strlen(hex);
    if (len != 2 * DIL_HASH_BYTES) return false;
    if (sodium_hex2bin(h.bytes, sizeof h.bytes, hex, len, NULL, &n, &end) != 0 || n != sizeof h.bytes || *end) return false;
    *out = h;
    return true;
}

int64_t dil_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t dil_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void dil_sleep_ns(int64_t ns)
{
    if (ns <= 0) return;
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR) {}
}

bool dil_parse_bytes(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || errno || !(v >= 0)) return false;
    while (*end == ' ') end++;
    double unit = 1;
    const char *units = "KMGT";
    const char *u = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (u) {
        end++;
        double base = (*end == 'i' || *end == 'I') ? 1024 : 1000;
        if (base > 1000) end++;
        for (const char *p = units; p <= u; p++) unit *= base;
    }
    if (*end == 'B' || *end == 'b') end++;
    if (*end || v * unit >= 0x1.0p63) return false;
    *out = (uint64_t)(v * unit + 0.5);
    return true;
}

const char *dil_format_bytes(uint64_t bytes, char out[32])
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 999.95 && u < 6) {
        v /= 1000;
        u++;
    }
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return out;
}
