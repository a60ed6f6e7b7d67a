/* cli/served.h - one of the models that `serve` answers for: its file, its tokenizer, and what computes it. */
#ifndef DIL_CLI_SERVED_H
#define DIL_CLI_SERVED_H

#include "cli/serving.h"

typedef struct dil_cli_one {
    char name[128];
    dil_gguf *gguf;
    dil_arch arch;
    dil_tokenizer *tok;
    dil_grammar_vocab *words;
    dil_runner *runner;
    dil_served *served;
    bool over_nodes;
    dil_plan *plan;       /* owned, or NULL */
    dil_cluster *cluster;
} dil_cli_one;

/* Lists the model at the server and begins to load it. how: of all models (keys, timeouts, contexts); what: borrowed until it is closed. */
dil_status dil_cli_one_open(dil_server *server, const dil_cli_serving *how, const dil_cli_choice *what, uint64_t run, uint64_t number, dil_cli_one **out,
                            dil_err *err);
void dil_cli_one_own(dil_cli_one *m, dil_plan *plan, dil_cluster *cluster);
dil_status dil_cli_one_wait(dil_cli_one *m, const dil_progress *p, dil_err *err); /* until it answers */
/* Takes it from the server first, unless served is NULL; requests that run may go on for grace_sec. */
void dil_cli_one_close(dil_cli_one *m, double grace_sec);

#endif
