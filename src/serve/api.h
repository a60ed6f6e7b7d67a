/* serve/api.h - what a client asks for: the request bodies of OpenAI's and Ollama's protocols as one struct. Pure: bytes in,
 * struct or error out. */
#ifndef DIL_SERVE_API_H
#define DIL_SERVE_API_H

#include "serve/retry.h"

#include <dilemma/runner.h>
#include <dilemma/tokenizer.h>

#include <jansson.h>

#define DIL_API_BODY_MAX (8u << 20)
#define DIL_API_MESSAGES_MAX 4096
#define DIL_API_STOPS_MAX 16
#define DIL_API_STOP_BYTES_MAX 256
#define DIL_API_TOKENS_MAX (1u << 24)
#define DIL_API_CHOICES_MAX 16

typedef enum dil__api_kind { DIL_API_COMPLETION, DIL_API_CHAT } dil__api_kind; /* a text goes on; a conversation is answered */
typedef enum dil__api_form { /* of request and answer: the endpoint */
    DIL_API_OPENAI_COMPLETION, /* /v1/completions */
    DIL_API_OPENAI_CHAT,       /* /v1/chat/completions */
    DIL_API_OLLAMA_GENERATE,   /* /api/generate: a conversation of one message, or with "raw" a text */
    DIL_API_OLLAMA_CHAT        /* /api/chat */
} dil__api_form;

typedef struct dil__api_req {
    dil__api_form form;
    dil__api_kind kind;
    bool only_loads;                            /* Ollama's: an empty request asks whether the model is there */
    const char *model;                          /* NULL: not given */
    const char *prompt; size_t prompt_len;      /* COMPLETION by text, else NULL */
    const int32_t *prompt_ids; size_t n_prompt_ids; /* COMPLETION by token ids, else NULL */
    dil_chat_msg *msgs; size_t n_msgs;          /* CHAT; "developer" is read as "system" */
    uint32_t max_tokens;                        /* 0: not given */
    dil_sampler_opts sampler;
    bool seeded;                                /* sampler.seed came with the request */
    const char *stop[DIL_API_STOPS_MAX]; size_t stop_len[DIL_API_STOPS_MAX]; size_t n_stop;
    bool stream, stream_usage;
    uint32_t n;                                 /* answers asked for, 1 to DIL_API_CHOICES_MAX */
    bool ignore_eos;                            /* go on to max_tokens, for benchmarks (as vLLM and llama.cpp call it) */
    bool json; const char *schema; size_t schema_len; /* the answer is JSON: of this schema, or NULL: any object */
    bool logprobs; uint32_t n_top;              /* the tokens' probabilities, and those of so many alternatives */
    dil__retry_run *retry;                      /* with an Idempotency-Key: held; NULL: without */
    json_t *doc;                                /* owns the strings */
    dil_arena *arena;                           /* owns the lists */
} dil__api_req;

/* param (may be NULL) is set to the name of the wrong member, a literal, or NULL.
 * Errors: DIL_EFORMAT (no JSON, wrong type or range), DIL_EUNSUPPORTED (a member that asks for what we do not do),
 * DIL_ELIMIT (a named maximum). */
dil_status dil__api_parse(dil__api_form form, const char *body, size_t len, dil__api_req *out, const char **param, dil_err *err);
void dil__api_req_fini(dil__api_req *r);

#endif
