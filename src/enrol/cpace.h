/* enrol/cpace.h - two machines that know the same short code agree on a key; who does not know it gets one guess a run, and learns
 * nothing else.
 *
 *   dil__cpace_begin(&c, true, code, code_len, ci, ci_len, sid, sid_len, ad, ad_len);   send c.own and ad
 *   dil__cpace_meet(&c, peers_own, peers_ad, peers_ad_len)                               false: end the run
 *   dil__cpace_tag(&c, NULL, tag)   send it;    dil__cpace_check(&c, NULL, peers_tag)    false: another code, or somebody between
 *   dil__cpace_end(&c)                                                                   wipes
 *
 * CPACE-RISTR255-SHA512 with roles and explicit key confirmation (HMAC-SHA512). What ad and ci hold is authenticated with the code.
 * Source: draft-irtf-cfrg-cpace, "CPace, a balanced composable PAKE", the sections on ristretto255 and key confirmation; its
 * vectors are in cpace_test.c. RFC 9496 (ristretto255). Pure but for the random scalar. Not for long-lived passwords. */
#ifndef DIL_ENROL_CPACE_H
#define DIL_ENROL_CPACE_H

#include <dilemma/base.h>

#define DIL__CPACE_POINT 32
#define DIL__CPACE_TAG 64
#define DIL__CPACE_SID_MAX 64
#define DIL__CPACE_AD_MAX 127  /* lengths of one byte each in the transcript */

typedef struct dil__cpace {
    bool initiator;
    uint8_t sid[DIL__CPACE_SID_MAX], scalar[32], own[DIL__CPACE_POINT], peer[DIL__CPACE_POINT];
    uint8_t own_ad[DIL__CPACE_AD_MAX], peer_ad[DIL__CPACE_AD_MAX];
    size_t sid_len, own_ad_len, peer_ad_len;
    uint8_t isk[64], mac_key[64];
} dil__cpace;

/* code, ci: of at most 127 bytes; sid, ad: at most their maxima (asserted). */
void dil__cpace_begin(dil__cpace *c, bool initiator, const void *code, size_t code_len, const void *ci, size_t ci_len, const void *sid, size_t sid_len,
                      const void *ad, size_t ad_len);
/* The same with a scalar that is given: for the draft's vectors alone. */
void dil__cpace_begin_with(dil__cpace *c, const uint8_t scalar[32], bool initiator, const void *code, size_t code_len, const void *ci, size_t ci_len,
                           const void *sid, size_t sid_len, const void *ad, size_t ad_len);
/* False: the peer's point is none, or is the neutral element; or ad is too long. */
bool dil__cpace_meet(dil__cpace *c, const uint8_t peer[DIL__CPACE_POINT], const void *ad, size_t ad_len);
/* Of what this side sent. label NULL: the draft's confirmation; a label makes a further word of this side's that nobody else can say. */
void dil__cpace_tag(const dil__cpace *c, const char *label, uint8_t tag[DIL__CPACE_TAG]);
bool dil__cpace_check(const dil__cpace *c, const char *label, const uint8_t tag[DIL__CPACE_TAG]); /* the peer's; constant time */
void dil__cpace_end(dil__cpace *c);

#endif
