/* dilemma/frame.h - the frames that travel between nodes: a pure encoder and decoder, no sockets, no model.
 *
 *   writing:  dil_buf b;  dil_frame_begin(&b, DIL_FRAME_ECHO, session, id, epoch);  dil_put_u32(&b, 7);  dil_frame_end(&b);
 *   reading:  dil_frame f;  dil_frame_decode(data, len, &f, err);  dil_rd r = dil_frame_body(&f);  x = dil_get_u32(&r);
 *             ... if (!dil_rd_done(&r)) -> malformed
 *
 * A frame is one message of the transport: 32 bytes of header, then the body, everything little-endian. A reader never looks
 * past its bytes: after the first read that does not fit, `failed` stays set and every read gives zero, so that a decoder
 * checks once at its end. Counts are checked against the bytes at hand before anything is allocated for them.
 *
 *   bytes 0-3   magic "DIL1"      4-5 version    6-7 type      8-15 session (0: none)
 *        16-23  id of the request or work        24-27 epoch   28-31 bytes of the body */
#ifndef DILEMMA_FRAME_H
#define DILEMMA_FRAME_H

#include <dilemma/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DIL_FRAME_VERSION = 3, DIL_FRAME_HEADER_BYTES = 32 };
#define DIL_FRAME_MAX (64u << 20) /* bytes of a frame, header included: 512 hidden states of 32,000 values fit */

typedef enum dil_frame_type {
    DIL_FRAME_ERROR = 1,    /* answer to any request: code and text */
    DIL_FRAME_OK,           /* answer with nothing to tell */
    DIL_FRAME_HELLO,        /* who are you -> INFO */
    DIL_FRAME_INFO,
    DIL_FRAME_ECHO,         /* bytes there, bytes back -> ECHO_REPLY */
    DIL_FRAME_ECHO_REPLY,
    DIL_FRAME_TIME_LAYER,   /* how long does this layer take you -> TIMES */
    DIL_FRAME_TIMES,
    DIL_FRAME_ADMIT,        /* let these keys in for a while -> OK */
    DIL_FRAME_PROBE_LINK,   /* measure your link to that peer -> LINK */
    DIL_FRAME_LINK,
    DIL_FRAME_LOAD,         /* hold these layers -> NEED: the chunks that are not cached */
    DIL_FRAME_NEED,
    DIL_FRAME_CHUNK,        /* a piece of a tensor -> OK once it is stored */
    DIL_FRAME_HEARTBEAT,    /* -> STATUS */
    DIL_FRAME_STATUS,
    DIL_FRAME_UNLOAD,       /* -> OK */
    DIL_FRAME_ATTACH,       /* results of this session go to the sender of this -> OK */
    DIL_FRAME_WORK,         /* a batch on its way through the ring */
    DIL_FRAME_RESULT,       /* tokens, from the last stage to the coordinator */
    DIL_FRAME_WORK_FAILED,  /* from any stage to the coordinator */
    DIL_FRAME_JOIN,         /* every node of the ring has its session: dial the next one; no answer */
    DIL_FRAME_TYPE_LIMIT
} dil_frame_type;

typedef struct dil_frame {
    dil_frame_type type;
    uint64_t session, id;
    uint32_t epoch;
    const uint8_t *body; /* [body_bytes], borrowed */
    uint32_t body_bytes;
} dil_frame;

const char *dil_frame_type_name(dil_frame_type t); /* "HELLO"; "?" for an unknown number */

/* Errors: DIL_EFORMAT (no frame of ours, or a length that is not the message's), DIL_EUNSUPPORTED (another version). */
dil_status dil_frame_decode(const void *data, size_t len, dil_frame *out, dil_err *err);

/* Writing. begin appends a header, end fills in the length of the body; false when the buffer failed or the frame is too long.
 * The frame must be the only thing in the buffer. */
bool dil_frame_begin(dil_buf *b, dil_frame_type type, uint64_t session, uint64_t id, uint32_t epoch);
bool dil_frame_end(dil_buf *b);
/* A header alone, for a body that is written in place. */
void dil_frame_header(uint8_t out[DIL_FRAME_HEADER_BYTES], const dil_frame *f);

void dil_put_u8(dil_buf *b, uint8_t v);
void dil_put_u16(dil_buf *b, uint16_t v);
void dil_put_u32(dil_buf *b, uint32_t v);
void dil_put_u64(dil_buf *b, uint64_t v);
void dil_put_i32(dil_buf *b, int32_t v);
void dil_put_f32(dil_buf *b, float v);
void dil_put_f64(dil_buf *b, double v);
void dil_put_str(dil_buf *b, const char *s);               /* length in 2 bytes; cut at 65,535 */
void dil_put_bytes(dil_buf *b, const void *data, size_t len); /* no length */

typedef struct dil_rd {
    const uint8_t *p;
    size_t left;
    bool failed;
} dil_rd;

dil_rd dil_frame_body(const dil_frame *f);
uint8_t dil_get_u8(dil_rd *r);
uint16_t dil_get_u16(dil_rd *r);
uint32_t dil_get_u32(dil_rd *r);
uint64_t dil_get_u64(dil_rd *r);
int32_t dil_get_i32(dil_rd *r);
float dil_get_f32(dil_rd *r);
double dil_get_f64(dil_rd *r);
bool dil_get_bool(dil_rd *r);                              /* one byte, 0 or 1; anything else fails */
void dil_get_str(dil_rd *r, char *out, size_t cap);        /* fails when it does not fit or holds a zero; always zero-terminated */
const void *dil_get_bytes(dil_rd *r, size_t len);          /* borrowed; NULL when there are fewer */
uint32_t dil_get_count(dil_rd *r, uint32_t max, size_t elem_bytes_min); /* u32; fails beyond max or beyond the bytes at hand */
bool dil_rd_done(const dil_rd *r);                         /* nothing failed and nothing is left */

#ifdef __cplusplus
}
#endif
#endif
