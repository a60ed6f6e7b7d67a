/* cli/procs.h - node processes of our own: started, awaited, and always ended. */
#ifndef DIL_CLI_PROCS_H
#define DIL_CLI_PROCS_H

#include "netlab/lab.h"

#include <sys/types.h>

typedef struct dil_cli_proc {
    pid_t pid;
    char name[32], log_path[4096];
    char address[64]; /* what the node said it listens on */
} dil_cli_proc;

/* Starts this program again as `argv` (argv[0] is the subcommand, NULL-terminated), in a lab's namespace where lab is given, with
 * its standard error in log_path. It ends when this process does, however that ends. Call from the main thread. */
dil_status dil_cli_proc_start(dil_cli_proc *p, const char *name, const char *log_path, const char *const *argv, dil__lab *lab,
                              uint32_t node, double timeout_sec, dil_err *err);
void dil_cli_proc_stop(dil_cli_proc *p); /* asks, waits, insists */
bool dil_cli_proc_runs(dil_cli_proc *p);

#endif
