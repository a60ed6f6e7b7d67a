/* serve/protocols.h - HTTP and HTTPS alone, also where a server sends a request on to; said in the words of old and new libcurl. */
#ifndef DIL_SERVE_PROTOCOLS_H
#define DIL_SERVE_PROTOCOLS_H

#include <curl/curl.h>
#include <stdbool.h>

/* stays_secret: the address is HTTPS, and is never left for an open line. */
static inline void dil__http_alone(CURL *c, bool stays_secret)
{
#if LIBCURL_VERSION_NUM >= 0x075500 /* 7.85 */
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, stays_secret ? "https" : "http,https");
#else
    curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS, (long)(stays_secret ? CURLPROTO_HTTPS : CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

#endif
