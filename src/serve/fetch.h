/* serve/fetch.h - one file over HTTP: in parallel ranges, resumed after a break, checked by its hash.
 *
 *   dil__fetch_head(url, token, &head, err);
 *   dil__fetch_opts o = {.url = url, .token = token, .path = "model.gguf", .size = head.size, .etag = head.etag, .hash = sha256};
 *   dil__fetch(&o, err);
 *
 * Until it is whole the bytes are in PATH.dilemma-part, and PATH.dilemma-map says which of them are there and of what; a further
 * call goes on from there. The token is sent to the URL's own host and to no other that it redirects to. */
#ifndef DIL_SERVE_FETCH_H
#define DIL_SERVE_FETCH_H

#include <dilemma/base.h>

#define DIL_FETCH_UNKNOWN UINT64_MAX
#define DIL_FETCH_SIZE_MAX (UINT64_C(1) << 44)
#define DIL_FETCH_TEXT_MAX (16u << 20)
#define DIL_FETCH_CONNECTIONS_MAX 16

typedef struct dil__fetch_head {
    long status;
    uint64_t size;              /* DIL_FETCH_UNKNOWN: not said */
    char etag[160];             /* without quotes and W/; "" where there is none */
    char linked_etag[160];      /* X-Linked-Etag: of the file that a hub's answer redirects to */
    char commit[64];            /* X-Repo-Commit */
} dil__fetch_head;

/* What is at url. hub: only redirects within the same host are followed (a renamed repository), so that the headers are the
 * hub's own; else all are. Errors: DIL_EAUTH (401, 403), DIL_ENOTFOUND (404), DIL_ENET (else), DIL_EUSAGE (no http or https). */
dil_status dil__fetch_head_of(const char *url, const char *token, bool hub, dil__fetch_head *out, dil_err *err);
dil_status dil__fetch_text(const char *url, const char *token, dil_buf *out, dil_err *err);

typedef struct dil__fetch_opts {
    const char *url, *token;    /* token NULL: none */
    const char *path;
    uint64_t size;              /* DIL_FETCH_UNKNOWN: as it comes, in one piece, without resuming */
    const char *etag;           /* "" where there is none; a part of another etag or size is thrown away */
    const char *hash;           /* SHA-256 in hex, or a git blob's SHA-1; NULL: not known */
    uint32_t n_connections;     /* 0: 4 */
    uint64_t chunk_bytes;       /* of a range; 0: 8 MiB, more for large files */
    const dil_progress *progress;
    const char *what;           /* for progress and errors */
} dil__fetch_opts;

/* Errors: as above; DIL_EFORMAT (a length or a range that is not what was promised; a wrong hash: the part is removed),
 * DIL_EIO (disk), DIL_ELIMIT (disk too small, file too large), DIL_EBUSY (another fetch of the same path runs), DIL_ECANCELED. */
dil_status dil__fetch(const dil__fetch_opts *o, dil_err *err);

/* Hex of a file's SHA-256, or of git's SHA-1 of it as a blob. */
dil_status dil__file_sha256(const char *path, const dil_progress *p, char hex[65], dil_err *err);
dil_status dil__file_git_sha1(const char *path, char hex[41], dil_err *err);

#endif
