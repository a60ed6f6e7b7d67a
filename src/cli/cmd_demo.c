/* dilemma demo: the whole path once, over three unequal machines made on this one. The machines are processes of this program
 * in network namespaces with links of their own (as root; else over loopback, and said so), slowed down by --throttle, each
 * with too little memory for the model. Everything that takes long is kept in --dir. */
#include "cli/cli.h"
#include "cli/demo.h"

#include <math.h>
#include <string.h>

static int run(int argc, char **argv)
{
    const char *model = NULL, *dir = NULL, *report = NULL;
    double max_ratio = 0.1275;
    bool json = false;
    int64_t threads = 0;
    const dil_cli_opt opts[] = {
        {.name = "--model", .letter = 'm', .kind = DIL_CLI_STR, .out = &model, .arg = "FILE", .help = "the model, GGUF (required)"},
        {.name = "--dir", .kind = DIL_CLI_STR, .out = &dir, .arg = "DIR", .help = "where everything is kept (required)"},
        {.name = "--max-ratio", .kind = DIL_CLI_NUM, .out = &max_ratio, .arg = "R", .help = "size budget as a share of fp32 (0.1275)", .min = 0.01, .max = 1},
        {.name = "--report", .kind = DIL_CLI_STR, .out = &report, .arg = "FILE", .help = "the HTML report (DIR/report.html)"},
        {.name = "--threads", .letter = 't', .kind = DIL_CLI_INT, .out = &threads, .arg = "N", .help = "threads for profiling and quantizing (all)", .min = 1, .max = 256},
        {.name = "--json", .kind = DIL_CLI_FLAG, .out = &json, .help = "the figures as one JSON object on standard output"},
        DIL_CLI_END};
    int status = dil_cli_parse(argc, argv, "--model F --dir DIR [--max-ratio 0.1275]",
                               "Measures three unequal machines and their links, profiles the model, plans placement and bits together, quantizes,\n"
                               "runs the result over the three, compares prediction with measurement and the answers with the teacher's, and\n"
                               "writes a report. As root the machines stand in network namespaces with links of their own.\n\n"
                               "  dilemma demo --model SmolLM2-135M-Instruct.Q4_1.gguf --dir demo",
                               opts, NULL, 0, 0);
    if (status >= 0) return status;
    if (!model || !dir) return dil_cli_usage("demo: --model FILE and --dir DIR are needed");
    dil_err err;
    dil_cli_demo_opts o = {.model = model, .dir = dir, .report = report, .max_ratio = max_ratio, .json = json, .n_threads = (int)threads};
    return dil_cli_demo_run(&o, &err) == DIL_OK ? 0 : dil_cli_fail("demo", &err);
}

const dil_cli_cmd dil_cli_demo = {"demo", "the whole path once: three unequal machines on this one, with a report", run};
