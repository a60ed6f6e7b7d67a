/* CPace over libsodium's ristretto255. Chosen over SPAKE2, which needs two constants nobody knows the logarithm of, and over a commitment
 * with a short string to compare, which people confirm without looking. */
#include "enrol/cpace.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

static const char domain[] = "CPaceRistretto255", domain_isk[] = "CPaceRistretto255_ISK", domain_mac[] = "CPaceMac";
enum { HASH_BLOCK = 128, SHORT_MAX = 127 };

/* The draft's lv_cat for parts of fewer than 128 bytes, whose LEB128 length is one byte. */
static void hash_part(crypto_hash_sha512_state *h, const void *data, size_t len)
{
    uint8_t n = (uint8_t)len;
    assert(len <= SHORT_MAX);
    crypto_hash_sha512_update(h, &n, 1);
    if (len) crypto_hash_sha512_update(h, data, len);
}

static void generator(const void *code, size_t code_len, const void *ci, size_t ci_len, const void *sid, size_t sid_len, uint8_t g[DIL__CPACE_POINT])
{
    static const uint8_t zeros[HASH_BLOCK];
    size_t head = 1 + code_len + 1 + strlen(domain), pad = head < HASH_BLOCK - 1 ? HASH_BLOCK - 1 - head : 0;
    uint8_t digest[64];
    crypto_hash_sha512_state h;
    crypto_hash_sha512_init(&h);
    hash_part(&h, domain, strlen(domain));
    hash_part(&h, code, code_len);
    hash_part(&h, zeros, pad);
    hash_part(&h, ci, ci_len);
    hash_part(&h, sid, sid_len);
    crypto_hash_sha512_final(&h, digest);
    crypto_core_ristretto255_from_hash(g, digest);
    sodium_memzero(&h, sizeof h);
    sodium_memzero(digest, sizeof digest);
}

void dil__cpace_begin_with(dil__cpace *c, const uint8_t scalar[32], bool initiator, const void *code, size_t code_len, const void *ci, size_t ci_len,
                           const void *sid, size_t sid_len, const void *ad, size_t ad_len)
{
    assert(sid_len <= sizeof c->sid && ad_len <= sizeof c->own_ad);
    *c = (dil__cpace){.initiator = initiator, .sid_len = sid_len, .own_ad_len = ad_len};
    memcpy(c->scalar, scalar, sizeof c->scalar);
    if (sid_len) memcpy(c->sid, sid, sid_len);
    if (ad_len) memcpy(c->own_ad, ad, ad_len);
    uint8_t g[DIL__CPACE_POINT];
    generator(code, code_len, ci, ci_len, sid, sid_len, g);
    int neutral = crypto_scalarmult_ristretto255(c->own, c->scalar, g);
    assert(neutral == 0); /* only for a scalar of 0, which is never drawn */
    (void)neutral;
    sodium_memzero(g, sizeof g);
}

void dil__cpace_begin(dil__cpace *c, bool initiator, const void *code, size_t code_len, const void *ci, size_t ci_len, const void *sid, size_t sid_len,
                      const void *ad, size_t ad_len)
{
    uint8_t scalar[32];
    crypto_core_ristretto255_scalar_random(scalar);
    dil__cpace_begin_with(c, scalar, initiator, code, code_len, ci, ci_len, sid, sid_len, ad, ad_len);
    sodium_memzero(scalar, sizeof scalar);
}

static void hash_message(crypto_hash_sha512_state *h, const dil__cpace *c, bool own)
{
    hash_part(h, own ? c->own : c->peer, DIL__CPACE_POINT);
    hash_part(h, own ? c->own_ad : c->peer_ad, own ? c->own_ad_len : c->peer_ad_len);
}

bool dil__cpace_meet(dil__cpace *c, const uint8_t peer[DIL__CPACE_POINT], const void *ad, size_t ad_len)
{
    if (ad_len > sizeof c->peer_ad) return false;
    memcpy(c->peer, peer, sizeof c->peer);
    c->peer_ad_len = ad_len;
    if (ad_len) memcpy(c->peer_ad, ad, ad_len);
    uint8_t k[DIL__CPACE_POINT];
    if (crypto_scalarmult_ristretto255(k, c->scalar, peer) != 0) return false; /* no encoding of a point, or the result is neutral */
    crypto_hash_sha512_state h;
    crypto_hash_sha512_init(&h);
    hash_part(&h, domain_isk, strlen(domain_isk));
    hash_part(&h, c->sid, c->sid_len);
    hash_part(&h, k, sizeof k);
    hash_message(&h, c, c->initiator);
    hash_message(&h, c, !c->initiator);
    crypto_hash_sha512_final(&h, c->isk);
    crypto_hash_sha512_init(&h);
    crypto_hash_sha512_update(&h, (const uint8_t *)domain_mac, strlen(domain_mac));
    if (c->sid_len) crypto_hash_sha512_update(&h, c->sid, c->sid_len);
    crypto_hash_sha512_update(&h, c->isk, sizeof c->isk);
    crypto_hash_sha512_final(&h, c->mac_key);
    sodium_memzero(k, sizeof k);
    sodium_memzero(&h, sizeof h);
    sodium_memzero(c->scalar, sizeof c->scalar);
    return true;
}

static void mac_part(crypto_auth_hmacsha512_state *m, const void *data, size_t len)
{
    uint8_t n = (uint8_t)len;
    assert(len <= SHORT_MAX);
    crypto_auth_hmacsha512_update(m, &n, 1);
    if (len) crypto_auth_hmacsha512_update(m, data, len);
}

static void tag_of(const dil__cpace *c, bool own, const char *label, uint8_t tag[DIL__CPACE_TAG])
{
    crypto_auth_hmacsha512_state m;
    crypto_auth_hmacsha512_init(&m, c->mac_key, sizeof c->mac_key);
    if (label) mac_part(&m, label, strlen(label)); /* never 32 bytes long, which is how an unlabelled one begins */
    mac_part(&m, own ? c->own : c->peer, DIL__CPACE_POINT);
    mac_part(&m, own ? c->own_ad : c->peer_ad, own ? c->own_ad_len : c->peer_ad_len);
    crypto_auth_hmacsha512_final(&m, tag);
    sodium_memzero(&m, sizeof m);
}

void dil__cpace_tag(const dil__cpace *c, const char *label, uint8_t tag[DIL__CPACE_TAG])
{
    tag_of(c, true, label, tag);
}

bool dil__cpace_check(const dil__cpace *c, const char *label, const uint8_t tag[DIL__CPACE_TAG])
{
    uint8_t right[DIL__CPACE_TAG];
    tag_of(c, false, label, right);
    bool same = sodium_memcmp(right, tag, sizeof right) == 0;
    sodium_memzero(right, sizeof right);
    return same;
}

void dil__cpace_end(dil__cpace *c)
{
    sodium_memzero(c, sizeof *c);
}
