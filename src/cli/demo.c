/* The course of the demo, its table and its report. */
#include "cli/cli.h"
#include "cli/demo.h"

#include "base/json.h"

#include <dilemma/coordinator.h>

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT = 1024, TOKENS_IN = 128, TOKENS_OUT = 64, DAMAGE_TOKENS = 1100, IMATRIX_TOKENS = 4096 };

typedef struct opened { /* a model file, for a runner */
    dil_gguf *file;
    dil_arch arch;
    dil_tokenizer *tok;
    dil_runner *runner;
} opened;

typedef struct demo {
    const dil_cli_demo_opts *o;
    dil_cli_stage stage;
    dil_cli_pipeline p;
    dil_cli_demo_text text;
    opened teacher, student;
    dil_eval_result before, after;
    dil_cli_demo_speed speed;
    dil_ring_timing timing;
    dil_buf teacher_answer[DIL_DEMO_QUESTIONS], student_answer[DIL_DEMO_QUESTIONS];
    bool quantized_already; /* the model as given */
    char report_path[4096];
    int64_t start_ns;
} demo;

static double since(int64_t start_ns)
{
    return (double)(dil_now_ns() - start_ns) * 1e-9;
}

static dil_status open_file(opened *m, const char *path, dil_err *err)
{
    dil_status s = dil_gguf_open(path, &m->file, err);
    if (s == DIL_OK) s = dil_arch_read(m->file, &m->arch, err);
    if (s == DIL_OK) s = dil_tokenizer_new(m->file, &m->tok, err);
    return s;
}

static void close_file(opened *m)
{
    dil_runner_close(m->runner);
    dil_tokenizer_free(m->tok);
    dil_gguf_close(m->file);
    *m = (opened){0};
}

static bool is_quantized(const opened *m)
{
    for (size_t i = 0; i < dil_gguf_n_tensors(m->file); i++) {
        const dil_type_info *t = dil_type_get(dil_gguf_tensor_at(m->file, i)->type);
        if (t && t->is_quantized) return true;
    }
    return false;
}

/* --- quality ------------------------------------------------------------------------------------------------------------------ */

static double number_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static dil_status save_eval(const char *path, const dil_eval_result *r, dil_err *err)
{
    json_t *o = json_object();
    json_object_set_new(o, "tokens", json_integer((json_int_t)r->tokens));
    json_object_set_new(o, "loss", dil__json_real_or_null(r->loss));
    json_object_set_new(o, "teacher_loss", dil__json_real_or_null(r->teacher_loss));
    json_object_set_new(o, "kl_mean", dil__json_real_or_null(r->kl_mean));
    json_object_set_new(o, "kl_stderr", dil__json_real_or_null(r->kl_stderr));
    json_object_set_new(o, "kl_p99", dil__json_real_or_null(r->kl_p99));
    json_object_set_new(o, "top1_agreement", dil__json_real_or_null(r->top1_agreement));
    dil_status s = dil__json_save(path, o, err);
    json_decref(o);
    return s;
}

static dil_status load_eval(const char *path, dil_eval_result *r, dil_err *err)
{
    json_t *o;
    dil_status s = dil__json_load(path, 1u << 20, &o, err);
    if (s != DIL_OK) return s;
    *r = (dil_eval_result){.tokens = (uint64_t)json_integer_value(json_object_get(o, "tokens")), .loss = number_of(o, "loss"),
                           .teacher_loss = number_of(o, "teacher_loss"), .kl_mean = number_of(o, "kl_mean"), .kl_stderr = number_of(o, "kl_stderr"),
                           .kl_p99 = number_of(o, "kl_p99"), .top1_agreement = number_of(o, "top1_agreement"), .em = NAN, .f1 = NAN};
    json_decref(o);
    return DIL_OK;
}

static void measure_size(const dil_gguf *g, dil_eval_result *r)
{
    r->ratio_to_fp32 = dil_gguf_ratio_to_fp32(g, &r->bytes, &r->n_params);
    r->bits_per_weight = 8.0 * (double)r->bytes / (double)r->n_params;
}

static dil_status evaluate(demo *d, dil_err *err)
{
    int64_t start = dil_now_ns();
    char path[4096];
    dil_cli_pipeline_path(&d->p, "quality.json", path);
    dil__key k;
    dil__key_init(&k, "quality 1");
    dil__key_str(&k, d->p.model_hash);
    dil_status s = dil__key_file(&k, d->p.student_path, err);
    if (s == DIL_OK) s = dil__key_file(&k, d->text.held_path, err);
    bool kept = s == DIL_OK && dil__steps_done(d->p.steps, "quality", &k, path);
    if (s == DIL_OK && !kept) {
        dil_eval_opts o = {.data = d->text.held_path, .format = DIL_DATA_TEXT, .n_ctx = 512, .n_threads = d->o->n_threads};
        dil_eval_result r;
        s = dil_eval(d->p.student_path, d->p.model, &o, dil_cli_progress(), &r, err);
        if (s == DIL_OK) s = save_eval(path, &r, err);
        if (s == DIL_OK) s = dil__steps_record(d->p.steps, "quality", &k, path, err);
    }
    dil__key_fini(&k);
    if (s == DIL_OK) s = load_eval(path, &d->after, err);
    if (s != DIL_OK) return s;
    d->before = (dil_eval_result){.tokens = d->after.tokens, .loss = d->after.teacher_loss, .em = NAN, .f1 = NAN};
    measure_size(d->teacher.file, &d->before);
    measure_size(d->student.file, &d->after);
    dil_cli_pipeline_note(&d->p, "evaluate", kept, since(start), "loss %.3f before, %.3f after; KL %.4f nats a token on %" PRIu64 " held-out tokens", d->before.loss,
                          d->after.loss, d->after.kl_mean, d->after.tokens);
    return DIL_OK;
}

/* --- the teacher's answers ------------------------------------------------------------------------------------------------------ */

static dil_status save_answers(const char *path, const dil_buf *answer, size_t n, dil_err *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_string(dil_buf_str((dil_buf *)(uintptr_t)&answer[i])));
    dil_status s = dil__json_save(path, list, err);
    json_decref(list);
    return s;
}

static dil_status load_answers(const char *path, dil_buf *answer, size_t n, dil_err *err)
{
    json_t *list;
    dil_status s = dil__json_load(path, 1u << 20, &list, err);
    if (s != DIL_OK) return s;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_string(v)) dil_buf_append(&answer[i], json_string_value(v), json_string_length(v));
    }
    json_decref(list);
    return DIL_OK;
}

static dil_status ask_teacher(demo *d, dil_err *err)
{
    int64_t start = dil_now_ns();
    char path[4096];
    dil_cli_pipeline_path(&d->p, "teacher-answers.json", path);
    dil__key k;
    dil__key_init(&k, "teacher's answers 1");
    dil__key_str(&k, d->p.model_hash);
    for (size_t i = 0; i < d->text.n_ask; i++) dil__key_str(&k, d->text.ask[i]->prompt);
    bool kept = dil__steps_done(d->p.steps, "teacher", &k, path);
    dil_status s = DIL_OK;
    if (kept) s = load_answers(path, d->teacher_answer, d->text.n_ask, err);
    else {
        dil_weights w = dil_gguf_weights(d->teacher.file);
        dil_stage_opts o = {.n_threads = d->o->n_threads, .n_ctx = CONTEXT, .kv_type = DIL_TYPE_F16, .last_layer = d->teacher.arch.n_blocks + 1};
        s = dil_runner_local(&d->teacher.arch, &w, &o, 1, &d->teacher.runner, err);
        if (s == DIL_OK) s = dil_cli_demo_ask(d->teacher.runner, d->teacher.tok, &d->text, d->teacher_answer, err);
        dil_runner_close(d->teacher.runner);
        d->teacher.runner = NULL;
        if (s == DIL_OK) s = save_answers(path, d->teacher_answer, d->text.n_ask, err);
        if (s == DIL_OK) s = dil__steps_record(d->p.steps, "teacher", &k, path, err);
    }
    dil__key_fini(&k);
    if (s == DIL_OK) dil_cli_pipeline_note(&d->p, "teacher", kept, since(start), "answered %zu held-out questions here", d->text.n_ask);
    return s;
}

/* --- over the machines ------------------------------------------------------------------------------------------------------------ */

static dil_status run_distributed(demo *d, dil_err *err)
{
    int64_t start = dil_now_ns();
    dil_ring_opts o = {.key = &d->stage.key, .kv_type = DIL_TYPE_F16};
    dil_status s = dil_runner_ring(d->p.plan, d->p.cluster, d->student.file, &d->student.arch, &o, &d->student.runner, err);
    if (s == DIL_OK) s = dil_ring_wait_ready(d->student.runner, 300, dil_cli_progress(), err);
    if (s != DIL_OK) return s;
    uint64_t sent = 0, cached = 0;
    dil_ring_node node[DIL_DEMO_NODES];
    size_t n = dil_ring_nodes(d->student.runner, node, DIL_DEMO_NODES);
    for (size_t i = 0; i < n && i < DIL_DEMO_NODES; i++) {
        sent += node[i].bytes_sent;
        cached += node[i].bytes_cached;
    }
    char a[32], b[32];
    dil_cli_pipeline_note(&d->p, "load", false, since(start), "weights on %zu machines: %s sent, %s found in their caches", n, dil_format_bytes(sent, a),
                          dil_format_bytes(cached, b));
    start = dil_now_ns();
    dil_runner_speculate(d->student.runner, 0); /* what the plan predicts is a token that nobody guessed */
    s = dil_cli_demo_time(d->student.runner, d->student.tok, d->text.data.samples[0].context, TOKENS_IN, TOKENS_OUT, &d->speed, err);
    if (s == DIL_OK) dil_ring_get_timing(d->student.runner, &d->timing);
    dil_runner_speculate(d->student.runner, DIL_SPECULATE_AUTO);
    if (s == DIL_OK) s = dil_cli_demo_ask(d->student.runner, d->student.tok, &d->text, d->student_answer, err);
    if (s == DIL_OK)
        dil_cli_pipeline_note(&d->p, "run", false, since(start), "%.1f ms a token measured over the machines (%.1f to %.1f); %zu questions answered",
                              1e3 * d->speed.token_sec, 1e3 * d->speed.min_sec, 1e3 * d->speed.max_sec, d->text.n_ask);
    return s;
}

/* --- what came of it ----------------------------------------------------------------------------------------------------------- */

static double predicted_compute(const dil_plan *p)
{
    double sum = 0;
    for (uint32_t i = 0; i < p->n_stages; i++) sum += p->stages[i].compute_sec;
    return sum;
}

static void print_times(const demo *d)
{
    const dil_plan *p = d->p.plan;
    double compute = predicted_compute(p), links = p->token_sec - compute, measured = d->timing.round_sec - d->timing.compute_sec;
    printf("\n                         predicted    measured    ratio\n");
    printf("seconds a token          %9.4f   %9.4f   %6.2f\n", p->token_sec, d->speed.token_sec, d->speed.token_sec / p->token_sec);
    if (d->timing.round_sec > 0) {
        printf("  the stages' compute    %9.4f   %9.4f   %6.2f\n", compute, d->timing.compute_sec, d->timing.compute_sec / compute);
        printf("  links and between      %9.4f   %9.4f   %6.2f\n", links, measured, measured / links);
    }
    printf("seconds to the first     %9.4f   %9.4f   %6.2f   (%u tokens in)\n", p->prefill_sec, d->speed.prefill_sec, d->speed.prefill_sec / p->prefill_sec,
           d->speed.n_prompt);
}

static void print_table(demo *d)
{
    const dil_plan *p = d->p.plan;
    char m[32], w[32];
    printf("\nmachine        memory   slowed  layers     weights   compute    hop to the next\n");
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const dil_plan_stage *g = &p->stages[i];
        uint32_t n = dil_cluster_find(d->p.cluster, g->node);
        printf("%-12s %9s   %5.3gx  %2u to %-3u %9s  %6.2f ms   %6.2f ms\n", g->node, dil_format_bytes(d->p.cluster->nodes[n].memory_bytes, m),
               d->p.cluster->nodes[n].throttle, g->first_layer, g->last_layer, dil_format_bytes(g->bytes, w), 1e3 * g->compute_sec, 1e3 * g->hop_sec);
    }
    printf("the whole student with its cache takes %s: no machine holds it alone\n", dil_format_bytes(d->stage.alone_bytes, m));
    print_times(d);
    printf("\n                            before       after\n");
    printf("loss, nats a token       %9.4f   %9.4f   (%+.2f %%; %" PRIu64 " held-out tokens)\n", d->before.loss, d->after.loss,
           100 * (d->after.loss / d->before.loss - 1), d->after.tokens);
    printf("KL divergence, mean              0   %9.4f   (+- %.4f)\n", d->after.kl_mean, d->after.kl_stderr);
    printf("  predicted by the plan             %9.4f   (%.2f of it measured; %.4f before the student was measured on text kept apart)\n", p->predicted_damage,
           d->after.kl_mean / p->predicted_damage, d->p.first_damage);
    printf("size, %% of fp32          %9.2f   %9.2f   (budget %.2f)\n", 100 * d->before.ratio_to_fp32, 100 * d->after.ratio_to_fp32, 100 * d->o->max_ratio);
    if (d->quantized_already) printf("\"before\" is the file as given: quantized already, and its own reference here.\n");
    putchar('\n');
    for (size_t i = 0; i < d->text.n_ask; i++)
        printf("%s\n  student   %s\n  teacher   %s\n  expected  %s\n", d->text.ask[i]->question, dil_buf_str(&d->student_answer[i]), dil_buf_str(&d->teacher_answer[i]),
               d->text.ask[i]->answers[0]);
    printf("\nreport: %s   (%.0f s in all)\n", d->report_path, since(d->start_ns));
    printf("next:   dilemma chat %s     talks with what was made (make install puts dilemma into the path)\n"
           "        docs/START.md: the same over machines of yours\n", d->p.student_path);
}

static dil_status print_json(demo *d, dil_err *err)
{
    const dil_plan *p = d->p.plan;
    json_t *o = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:b, s:f, s:s}", "predicted_token_sec", p->token_sec, "measured_token_sec",
                          d->speed.token_sec, "predicted_prefill_sec", p->prefill_sec, "measured_prefill_sec", d->speed.prefill_sec, "loss_before", d->before.loss,
                          "loss_after", d->after.loss, "kl_mean", d->after.kl_mean, "predicted_damage", p->predicted_damage, "ratio_to_fp32", d->after.ratio_to_fp32,
                          "max_ratio", d->o->max_ratio, "gap", p->gap, "netlab", d->stage.lab != NULL, "total_sec", since(d->start_ns), "report", d->report_path);
    json_object_set_new(o, "predicted_compute_sec", json_real(predicted_compute(p)));
    json_object_set_new(o, "first_predicted_damage", json_real(d->p.first_damage));
    json_object_set_new(o, "measured_compute_sec", d->timing.round_sec > 0 ? json_real(d->timing.compute_sec) : json_null());
    json_object_set_new(o, "measured_round_sec", d->timing.round_sec > 0 ? json_real(d->timing.round_sec) : json_null());
    json_t *stages = json_array(), *answers = json_array();
    for (uint32_t i = 0; i < p->n_stages; i++)
        json_array_append_new(stages, json_pack("{s:s, s:i, s:i, s:I}", "node", p->stages[i].node, "first_layer", (int)p->stages[i].first_layer, "last_layer",
                                                (int)p->stages[i].last_layer, "bytes", (json_int_t)p->stages[i].bytes));
    for (size_t i = 0; i < d->text.n_ask; i++)
        json_array_append_new(answers, json_pack("{s:s, s:s, s:s, s:s}", "question", d->text.ask[i]->question, "student", dil_buf_str(&d->student_answer[i]), "teacher",
                                                 dil_buf_str(&d->teacher_answer[i]), "expected", d->text.ask[i]->answers[0]));
    json_object_set_new(o, "stages", stages);
    json_object_set_new(o, "answers", answers);
    dil_status s = dil__json_save("-", o, err);
    json_decref(o);
    return s;
}

static dil_status write_report(demo *d, dil_err *err)
{
    dil__report_answer answers[DIL_DEMO_QUESTIONS];
    struct dil__report_step steps[DIL_CLI_STEPS_MAX];
    const char *notes[4];
    size_t n_notes = 0;
    char when[64], lab[700], command[4200];
    time_t now = time(NULL);
    struct tm tm;
    strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &tm));
    for (size_t i = 0; i < d->text.n_ask; i++)
        answers[i] = (dil__report_answer){d->text.ask[i]->question, d->text.ask[i]->answers[0], dil_buf_str(&d->teacher_answer[i]), dil_buf_str(&d->student_answer[i])};
    for (size_t i = 0; i < d->p.n_steps; i++) steps[i] = (struct dil__report_step){d->p.step[i].name, d->p.step[i].sec, d->p.step[i].kept};
    if (d->stage.lab) snprintf(lab, sizeof lab, "The machines are processes in network namespaces of one computer; their links are made by tools/netlab, their speeds by waiting in proportion.");
    else snprintf(lab, sizeof lab, "The machines are processes of one computer over loopback: the links are not those of a real network (%s).", d->stage.why_no_lab.text);
    notes[n_notes++] = lab;
    if (d->quantized_already) notes[n_notes++] = "The model as given is quantized already and is its own reference: what its own quantization lost is not counted.";
    notes[n_notes++] = "Loss and divergence are of text that neither the profile nor the importance matrix has seen.";
    snprintf(command, sizeof command, "dilemma demo --model %s --dir %s --max-ratio %g", d->o->model, d->o->dir, d->o->max_ratio);
    const char *slash = strrchr(d->o->model, '/');
    dil__report r = {.title = "One model over three machines", .model_name = slash ? slash + 1 : d->o->model, .when = when, .command = command, .notes = notes,
                     .n_notes = n_notes, .cluster = d->p.cluster, .profile = d->p.profile, .plan = d->p.plan, .first_damage = d->p.first_damage, .max_ratio = d->o->max_ratio, .before = d->before,
                     .after = d->after, .measured_token_sec = d->speed.token_sec, .measured_prefill_sec = d->speed.prefill_sec, .measured_min_sec = d->speed.min_sec,
                     .measured_max_sec = d->speed.max_sec, .single_token_sec = NAN, .answers = answers, .n_answers = d->text.n_ask, .steps = steps,
                     .n_steps = d->p.n_steps};
    dil_buf b;
    dil_buf_init(&b, DIL_REPORT_MAX);
    dil__report_html(&r, &b);
    dil_status s = b.failed ? dil_fail(err, DIL_EMEMORY, "the report has more than %u bytes", DIL_REPORT_MAX) : dil_file_write(d->report_path, b.data, b.len, err);
    dil_buf_fini(&b);
    return s;
}

/* --- course -------------------------------------------------------------------------------------------------------------------- */

static dil_status set_up(demo *d, dil_err *err)
{
    FILE *say = d->o->json ? stderr : stdout;
    int64_t start = dil_now_ns();
    dil_status s = open_file(&d->teacher, d->o->model, err);
    if (s != DIL_OK) return s;
    d->quantized_already = is_quantized(&d->teacher);
    s = dil_cli_stage_open(&d->stage, d->o, &d->teacher.arch, CONTEXT, err);
    if (s != DIL_OK) return s;
    if (!d->stage.lab)
        fprintf(stderr, "NOTE: no network namespaces here (%s): the three machines talk over loopback, so links cost nothing.\n", d->stage.why_no_lab.text);
    s = dil_cli_demo_text_open(&d->text, d->o->dir, err);
    d->p = (dil_cli_pipeline){.model = d->o->model, .dir = d->o->dir, .data = d->text.profile_path, .format = DIL_DATA_TEXT, .key = &d->stage.key,
                              .peers = d->stage.peer, .n_peers = DIL_DEMO_NODES, .entry = d->stage.peer[0].name, .context = CONTEXT, .sequences = 1,
                              .damage_tokens = DAMAGE_TOKENS, .imatrix_tokens = IMATRIX_TOKENS, .probe_limit_sec = 3, .n_threads = d->o->n_threads,
                              .plan_options = dil_plan_options_default(), .say = say};
    d->p.plan_options.max_ratio = d->o->max_ratio;
    d->p.plan_options.tokens_in = TOKENS_IN;
    d->p.plan_options.tokens_out = TOKENS_OUT;
    d->p.plan_options.context = CONTEXT;
    d->p.plan_options.limit_sec = 60;
    if (s == DIL_OK) s = dil_cli_pipeline_open(&d->p, err);
    if (s == DIL_OK)
        dil_cli_pipeline_note(&d->p, "machines", false, since(start), "%s, %s, %s: three processes %s", d->stage.peer[0].name, d->stage.peer[1].name,
                              d->stage.peer[2].name, d->stage.lab ? "in network namespaces with links of their own" : "over loopback");
    return s;
}

static dil_status course(demo *d, dil_err *err)
{
    dil_status s = set_up(d, err);
    if (s == DIL_OK) s = dil_cli_pipeline_probe(&d->p, err);
    if (s == DIL_OK) s = dil_cli_pipeline_profile(&d->p, err);
    if (s == DIL_OK) s = dil_cli_pipeline_plan(&d->p, err);
    if (s == DIL_OK) s = dil_cli_pipeline_quantize(&d->p, err);
    if (s == DIL_OK) s = open_file(&d->student, d->p.student_path, err);
    if (s == DIL_OK) s = evaluate(d, err);
    if (s == DIL_OK) s = ask_teacher(d, err);
    if (s == DIL_OK) s = run_distributed(d, err);
    if (s == DIL_OK) s = write_report(d, err);
    return s;
}

dil_status dil_cli_demo_run(const dil_cli_demo_opts *o, dil_err *err)
{
    demo *d = calloc(1, sizeof *d);
    if (!d) return dil_fail(err, DIL_EMEMORY, "no memory");
    d->o = o;
    d->start_ns = dil_now_ns();
    for (int i = 0; i < DIL_DEMO_QUESTIONS; i++) {
        dil_buf_init(&d->teacher_answer[i], 1u << 16);
        dil_buf_init(&d->student_answer[i], 1u << 16);
    }
    snprintf(d->report_path, sizeof d->report_path, "%s%s", o->report ? o->report : o->dir, o->report ? "" : "/report.html");
    dil_status s = course(d, err);
    dil_cli_progress_done();
    if (s == DIL_OK && !o->json) print_table(d);
    if (s == DIL_OK && o->json) s = print_json(d, err);
    close_file(&d->student); /* the ring first, then the nodes that it runs on */
    close_file(&d->teacher);
    dil_cli_pipeline_close(&d->p);
    dil_cli_demo_text_close(&d->text);
    dil_cli_stage_close(&d->stage);
    for (int i = 0; i < DIL_DEMO_QUESTIONS; i++) {
        dil_buf_fini(&d->teacher_answer[i]);
        dil_buf_fini(&d->student_answer[i]);
    }
    free(d);
    return s;
}
