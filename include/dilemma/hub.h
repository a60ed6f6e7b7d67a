/* dilemma/hub.h - models from a hub (Hugging Face's, or one that speaks its paths) or from any address, into the cache that the
 * hub's own tools use.
 *
 *   dil_pull_opts o = {.progress = p};
 *   dil_pull("org/name:model-q8_0.gguf", &o, &got, err);   got.path is the file (a checkpoint: the folder)
 *
 * The cache is $HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub, laid out as those tools do: blobs named by hash,
 * snapshots of links to them, refs. What is there already, whoever fetched it, is not fetched again. */
#ifndef DILEMMA_HUB_H
#define DILEMMA_HUB_H

#include <dilemma/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIL_HUB_FILES_MAX 20000

typedef struct dil_pull_opts {
    const char *endpoint;     /* NULL: $HF_ENDPOINT, else https://huggingface.co */
    const char *token;        /* NULL: $HF_TOKEN, else the file $HF_HOME/token (~/.cache/huggingface/token), else none */
    const char *cache;        /* NULL: as above */
    const char *revision;     /* branch, tag or commit; NULL: "main" */
    const char *out;          /* of an address: the file to write; NULL: its own name, here */
    const char *sha256;       /* of an address: what it must be; NULL: not checked */
    uint32_t n_connections;   /* 0: 4 */
    uint64_t chunk_bytes;     /* of one range; 0: 8 MiB or more */
    const dil_progress *progress;
} dil_pull_opts;

typedef struct dil_pulled {
    char path[4096];          /* the GGUF file, or the snapshot's folder */
    bool is_checkpoint;       /* a folder with safetensors or PyTorch weights: for dil_import */
    char commit[64];          /* "" of an address */
    uint32_t n_files, n_fetched; /* in the answer; of them fetched now */
    uint64_t n_bytes;         /* fetched now */
} dil_pulled;

/* dil_pull - `what` is ORG/NAME (its only GGUF file; without one its checkpoint), ORG/NAME:WORD (the one GGUF file of that
 * name, or whose name has that word: "q4_k_m"), an address of a file on the hub, or any other http or https address.
 *
 * Errors   DIL_ENOTFOUND     no such model, file or revision; the text lists what there is
 *          DIL_EAUTH         private or gated
 *          DIL_EUSAGE        not a name or address; several GGUF files (listed)
 *          DIL_EFORMAT       an answer, length, range or hash that is wrong
 *          DIL_ENET, DIL_ELIMIT (disk), DIL_EBUSY (the same file is being pulled), DIL_EIO, DIL_ECANCELED
 * What came before an error stays, and the next call goes on from there. Threads: safe. Blocks. */
dil_status dil_pull(const char *what, const dil_pull_opts *o, dil_pulled *out, dil_err *err);

#ifdef __cplusplus
}
#endif
#endif
