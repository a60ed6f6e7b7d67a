/* dilemma/base.h - what every module stands on: status and error text, arenas, bounded buffers, files that appear whole
 * or not at all, logging, progress, random numbers, hashes, clocks, threads.
 *
 * Conventions of the whole library:
 *   - functions that can fail return dil_status and take a `dil_err *err` last; err may be NULL, outputs are written only on DIL_OK;
 *   - `new/free`, `open/close`, `init/fini` come in pairs, and freeing NULL is fine; `get` borrows, `take` hands over;
 *   - strings are UTF-8, zero-terminated; sizes are bytes unless the name says otherwise;
 *   - the library never prints and never exits; what it has to say goes through the log sink and the progress callback. */
#ifndef DILEMMA_BASE_H
#define DILEMMA_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DIL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define DIL_PRINTF(fmt, args)
#endif

/* --- errors ------------------------------------------------------------------------------------------------------ */

typedef enum dil_status {
    DIL_OK = 0,
    DIL_EUSAGE,       /* a flag or argument is wrong */
    DIL_EFORMAT,      /* a file, frame or request is malformed */
    DIL_EUNSUPPORTED, /* well-formed, but not something we can do (an unknown architecture, say) */
    DIL_ENOTFOUND,    /* no such file, tensor, key, node */
    DIL_EIO,          /* read, write, disk full, permission */
    DIL_EMEMORY,      /* an allocation failed */
    DIL_ELIMIT,       /* a named maximum was exceeded, or a store is too small */
    DIL_EINFEASIBLE,  /* no plan meets the budgets: an answer, not a fault */
    DIL_ETIMEOUT,
    DIL_ENET,         /* a peer is unreachable, vanished, or speaks another protocol */
    DIL_EAUTH,        /* wrong or missing key */
    DIL_EBUSY,        /* port in use, queue full */
    DIL_ECANCELED,    /* the user or the client asked to stop */
    DIL_EDATA,        /* too little data, or NaN/Inf in it */
    DIL_EINTERNAL,    /* a bug of ours */
    DIL_N_STATUS
} dil_status;

#define DIL_ERR_TEXT_MAX 512

typedef struct dil_err {
    dil_status code;
    char text[DIL_ERR_TEXT_MAX]; /* one line, with the numbers that were compared */
} dil_err;

/* dil_fail - writes the text and the code into err (which may be NULL) and returns the code. */
dil_status dil_fail(dil_err *err, dil_status code, const char *fmt, ...) DIL_PRINTF(3, 4);
/* dil_fail_errno - the same with ": strerror(errno)" appended; ENOENT gives DIL_ENOTFOUND, ENOMEM DIL_EMEMORY, all else DIL_EIO. */
dil_status dil_fail_errno(dil_err *err, const char *fmt, ...) DIL_PRINTF(2, 3);
const char *dil_status_name(dil_status s);   /* "infeasible" */
int dil_status_exit(dil_status s);           /* the program's exit status, docs/EXIT_STATUS in `dilemma --help` */
int dil_status_http(dil_status s);           /* 400, 404, 413, 429, 500, 503, ... */

/* --- checked sizes ------------------------------------------------------------------------------------------------ */

bool dil_mul_size(size_t a, size_t b, size_t *out); /* false on overflow */
bool dil_add_size(size_t a, size_t b, size_t *out);
bool dil_mul_u64(uint64_t a, uint64_t b, uint64_t *out);
bool dil_add_u64(uint64_t a, uint64_t b, uint64_t *out);

/* --- memory ------------------------------------------------------------------------------------------------------- */

/* An arena hands out zeroed memory that is freed as a whole, and never exceeds max_bytes. Not thread-safe. */
typedef struct dil_arena dil_arena;
dil_arena *dil_arena_new(size_t max_bytes); /* NULL when out of memory */
void dil_arena_free(dil_arena *a);
void *dil_arena_push(dil_arena *a, size_t n, size_t size);            /* n*size zeroed bytes, 16-aligned; NULL at the limit */
char *dil_arena_strdup(dil_arena *a, const char *s, size_t len);      /* zero-terminated copy; NULL at the limit */
size_t dil_arena_used(const dil_arena *a);

/* A growable byte buffer, born with its maximum. After a failed append `failed` stays set and appends do nothing. */
typedef struct dil_buf {
    uint8_t *data;
    size_t len, cap, max;
    bool failed;
} dil_buf;
void dil_buf_init(dil_buf *b, size_t max);
void dil_buf_fini(dil_buf *b);
bool dil_buf_reserve(dil_buf *b, size_t more);
bool dil_buf_append(dil_buf *b, const void *data, size_t len);
bool dil_buf_printf(dil_buf *b, const char *fmt, ...) DIL_PRINTF(2, 3);
const char *dil_buf_str(dil_buf *b); /* zero-terminated, borrowed; "" when empty or failed */

/* --- files -------------------------------------------------------------------------------------------------------- */

/* A read-only mapping of a whole regular file. Reading past what another process truncated raises SIGBUS as usual. */
typedef struct dil_map {
    const uint8_t *data; /* [len]; NULL when len is 0 */
    size_t len;
    int fd;
} dil_map;
dil_status dil_map_open(const char *path, dil_map *out, dil_err *err);
void dil_map_close(dil_map *m);

/* dil_file_read - whole file (or standard input for "-") into buf; DIL_ELIMIT beyond buf->max. */
dil_status dil_file_read(const char *path, dil_buf *buf, dil_err *err);
bool dil_file_exists(const char *path);
dil_status dil_mkdirs(const char *path, dil_err *err); /* like mkdir -p, mode 0777 & umask */

/* An output file that appears under its name only when committed: written beside it as NAME.PID-N.part, fsynced, renamed.
 * "-" writes to standard output; an existing device or pipe is written to directly. abort removes the partial file. */
typedef struct dil_outfile {
    FILE *stream; /* write here */
    char *path, *part; /* NULL: standard output; part is NULL for a device, too */
} dil_outfile;
dil_status dil_outfile_open(dil_outfile *o, const char *path, dil_err *err);
dil_status dil_outfile_commit(dil_outfile *o, dil_err *err);
void dil_outfile_abort(dil_outfile *o);
dil_status dil_file_write(const char *path, const void *data, size_t len, dil_err *err); /* the three in one */

/* --- log, progress, cancellation ---------------------------------------------------------------------------------- */

typedef enum dil_log_level { DIL_LOG_DEBUG, DIL_LOG_INFO, DIL_LOG_WARN, DIL_LOG_ERROR } dil_log_level;
typedef void dil_log_sink(void *ctx, dil_log_level level, const char *module, const char *text);
void dil_log_set_sink(dil_log_sink *sink, void *ctx, dil_log_level min_level); /* before threads start; default: nothing */
void dil_log(dil_log_level level, const char *module, const char *fmt, ...) DIL_PRINTF(3, 4);

/* Progress of long work: fn is called now and then from the working thread, with done in [0,total] of any unit.
 * It returns false to ask for cancellation; the worker then fails with DIL_ECANCELED after saving what can be resumed. */
typedef struct dil_progress {
    bool (*fn)(void *ctx, const char *what, double done, double total);
    void *ctx;
} dil_progress;
bool dil_progress_step(const dil_progress *p, const char *what, double done, double total); /* p may be NULL: true */

/* --- random numbers, hashes, clocks, threads ------------------------------------------------------------------------ */

/* xoshiro256++ seeded through splitmix64: the same numbers everywhere. Not for keys (use libsodium). */
typedef struct dil_rng {
    uint64_t s[4];
} dil_rng;
void dil_rng_init(dil_rng *r, uint64_t seed);
uint64_t dil_rng_u64(dil_rng *r);
double dil_rng_unit(dil_rng *r);             /* [0,1) */
uint64_t dil_rng_below(dil_rng *r, uint64_t n); /* [0,n), n > 0, unbiased */
double dil_rng_normal(dil_rng *r);

#define DIL_HASH_BYTES 32 /* BLAKE2b-256 (libsodium) */
typedef struct dil_hash {
    uint8_t bytes[DIL_HASH_BYTES];
} dil_hash;
dil_hash dil_hash_of(const void *data, size_t len);
void dil_hash_hex(const dil_hash *h, char out[2 * DIL_HASH_BYTES + 1]);
bool dil_hash_from_hex(const char *hex, dil_hash *out);

int64_t dil_now_ns(void);  /* monotonic */
int64_t dil_wall_ms(void); /* since 1970 */
void dil_sleep_ns(int64_t ns);

/* dil_parallel - calls fn(ctx, i) for i in [0,n) on up to n_threads threads (the caller's included); returns when all are
 * done. Items are handed out one by one, so unequal items balance. */
void dil_parallel(int n_threads, size_t n, void (*fn)(void *ctx, size_t i), void *ctx);
int dil_cpu_count(void); /* CPUs this process may use (affinity and cgroup quota), >= 1 */

/* Bytes of main memory, and those that can be had without swapping; a control group's limit counts. 0: unknown. */
void dil_memory(uint64_t *total, uint64_t *available);

/* dil_parse_bytes - "500M", "1.5GiB", "98362432": K/M/G/T are powers of 1000, KiB/MiB/... of 1024. */
bool dil_parse_bytes(const char *text, uint64_t *out);
/* dil_format_bytes - "98.4 MB", into out. */
const char *dil_format_bytes(uint64_t bytes, char out[32]);

#ifdef __cplusplus
}
#endif
#endif
