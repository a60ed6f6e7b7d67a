/* What whole students teach the sum of the layers' damages. */
#include <dilemma/plan.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two blocks and a tied table, levels of 8, 4.5 and 3 bits, each with its damage alone. */
static dil_profile *profile(const char *students)
{
    static const char *const level[] = {"a", "b", "c"};
    static const double bits[] = {8, 4.5, 3}, alone[] = {0.001, 0.02, 0.1};
    char text[8192];
    int n = snprintf(text, sizeof text, "{\"version\": 1, \"model\": {\"path\": \"m\", \"hash\": \"\", \"arch\": \"llama\", \"n_blocks\": 2, \"n_params\": 1000, \"tied_head\": true, "
                     "\"hidden_bytes\": 8}, \"data\": {\"path\": null, \"tokens\": 9, \"held_from\": 100, \"held_to\": 900}, \"students\": [%s], \"context\": 8, \"nodes\": [\"x\"], \"layers\": [",
                     students);
    for (int l = 0; l < 4; l++) {
        n += snprintf(text + n, sizeof text - (size_t)n, "%s{\"name\": \"l%d\", \"levels\": [", l ? ", " : "", l);
        for (int q = 0; q < 3; q++)
            n += snprintf(text + n, sizeof text - (size_t)n, "%s{\"name\": \"%s\", \"types\": {\"w\": \"Q8_0\"}, \"bytes\": 10, \"bits\": %g, \"damage\": {\"alone\": %.9g, \"kl\": %.9g}, "
                          "\"decode_sec\": [1], \"prefill_sec\": [1]}", q ? ", " : "", level[q], bits[q], alone[q], alone[q]);
        n += snprintf(text + n, sizeof text - (size_t)n, "]}");
    }
    n += snprintf(text + n, sizeof text - (size_t)n, "]}");
    dil_profile *p = NULL;
    dil_err err = {0};
    assert_int_equal(dil_profile_parse("t", text, (size_t)n, &p, &err), DIL_OK);
    return p;
}

/* The embedding (and tied head) at a, the blocks at the given levels. */
static dil_plan *plan(const char *first, const char *second, double ratio)
{
    char text[4096];
    int n = snprintf(text, sizeof text, "{\"version\": 1, \"model\": {\"path\": \"m\", \"hash\": \"\"}, \"entry\": \"x\", \"context\": 8, \"sequences\": 1, \"tokens_in\": 1, \"tokens_out\": 1, "
                     "\"token_sec\": 1, \"prefill_sec\": 1, \"total_sec\": 1, \"bound_sec\": 1, \"gap\": 0, \"solver\": \"t\", \"solve_sec\": 0, \"ratio_to_fp32\": %g, \"layers\": [", ratio);
    const char *level[] = {"a", first, second, "a"};
    for (int l = 0; l < 4; l++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s{\"layer\": %d, \"name\": \"l%d\", \"node\": \"x\", \"level\": \"%s\", \"types\": {\"w\": \"Q8_0\"}, \"bytes\": 10}", l ? ", " : "",
                      l, l, level[l]);
    n += snprintf(text + n, sizeof text - (size_t)n, "], \"stages\": [{\"node\": \"x\", \"first_layer\": 0, \"last_layer\": 3, \"bytes\": 40, \"compute_sec\": 1, \"hop_sec\": 0}]}");
    dil_plan *p = NULL;
    dil_err err = {0};
    dil_status s = dil_plan_parse("t", text, (size_t)n, &p, &err);
    if (s != DIL_OK) print_message("%s\n", err.text);
    assert_int_equal(s, DIL_OK);
    return p;
}

static double sum_of(const dil_profile *p, int first, int second)
{
    return p->layers[0].levels[0].damage_kl + p->layers[1].levels[first].damage_kl + p->layers[2].levels[second].damage_kl;
}

static void the_measured_plan_is_predicted_as_measured(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_profile *p = profile("");
    dil_plan *one = plan("b", "c", 0.13), *two = plan("b", "b", 0.15);
    dil_profile_student m = {.method = "layerwise", .kl = 0.0713, .kl_stderr = 0.001, .tokens = 100};
    assert_int_equal(dil_plan_correct(p, one, &m, &err), DIL_OK);
    assert_true(fabs(sum_of(p, 1, 2) - 0.0713) < 1e-12);
    assert_true(fabs(p->students[0].alone - 0.121) < 1e-12 && fabs(p->students[0].bits - 32 * 0.13) < 1e-12);
    m.kl = 0.03;
    assert_int_equal(dil_plan_correct(p, two, &m, &err), DIL_OK);
    assert_true(fabs(sum_of(p, 1, 1) - 0.03) < 1e-12);
    assert_int_equal(p->n_students, 2);
    assert_string_equal(p->method, "layerwise");
    for (int q = 0; q < 3; q++) assert_true(p->layers[1].levels[q].damage_alone == (q == 0 ? 0.001 : q == 1 ? 0.02 : 0.1)); /* what was measured alone stays */
    dil_plan_free(one);
    dil_plan_free(two);
    dil_profile_free(p);
}

static void plainly_rounded_models_give_each_size_its_ratio(void **state)
{
    (void)state;
    dil_profile *p = profile("{\"method\": \"rtn\", \"bits\": 3, \"alone\": 0.2, \"kl\": 0.4}, {\"method\": \"rtn\", \"bits\": 4.5, \"alone\": 0.1, \"kl\": 0.1}");
    dil_profile_correct(p, "rtn");
    assert_true(fabs(p->layers[1].levels[2].damage_kl - 0.2) < 1e-12);   /* twice, as at 3 bits */
    assert_true(fabs(p->layers[1].levels[1].damage_kl - 0.02) < 1e-12);  /* as it is, at 4.5 */
    assert_true(fabs(p->layers[1].levels[0].damage_kl - 0.001) < 1e-12); /* beyond the largest: as at 4.5 */
    dil_profile_correct(p, "layerwise"); /* no such student yet: a usual gain, the same at every size */
    double gain = p->layers[1].levels[1].damage_kl / 0.02;
    assert_true(gain > 0.2 && gain < 1 && fabs(p->layers[1].levels[2].damage_kl / 0.2 - gain) < 1e-12);
    dil_profile_correct(p, "rtn"); /* nothing is lost by turns */
    assert_true(fabs(p->layers[1].levels[2].damage_kl - 0.2) < 1e-12);
    dil_profile_free(p);
}

static void two_students_span_the_sizes_between(void **state)
{
    (void)state;
    dil_profile *p = profile("{\"method\": \"layerwise\", \"bits\": 6, \"alone\": 1, \"kl\": 0.25}, {\"method\": \"layerwise\", \"bits\": 3, \"alone\": 1, \"kl\": 1}");
    dil_profile_correct(p, "layerwise");
    assert_true(fabs(p->layers[2].levels[2].damage_kl / 0.1 - 1) < 1e-12);
    assert_true(fabs(p->layers[2].levels[1].damage_kl / 0.02 - 0.5) < 1e-12); /* half the way in bits: the geometric mean */
    assert_true(fabs(p->layers[2].levels[0].damage_kl / 0.001 - 0.25) < 1e-12);
    dil_profile_free(p);
}

static void rounding_of_activations_is_added_and_not_scaled(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_profile *p = profile("{\"method\": \"layerwise\", \"bits\": 4, \"alone\": 0.1, \"run\": 0.004, \"kl\": 0.054}");
    for (uint32_t l = 0; l < 3; l++)
        for (uint32_t q = 0; q < 3; q++) p->layers[l].levels[q].damage_run = 0.001;
    dil_profile_correct(p, "layerwise"); /* half of what is alone, and the activations' share */
    for (int q = 0; q < 3; q++) assert_true(fabs(p->layers[1].levels[q].damage_kl - (0.5 * p->layers[1].levels[q].damage_alone + 0.001)) < 1e-12);
    dil_plan *one = plan("b", "b", 0.15);
    dil_profile_student m = {.method = "layerwise", .kl = 0.043, .kl_stderr = 0.001};
    assert_int_equal(dil_plan_correct(p, one, &m, &err), DIL_OK);
    assert_true(fabs(sum_of(p, 1, 1) - 0.043) < 1e-12 && fabs(p->students[1].run - 0.003) < 1e-12);
    assert_true(p->layers[1].levels[0].damage_kl > 0.0019 && p->layers[1].levels[0].damage_kl < 0.0024); /* the share stays beside small damages */
    m.kl = 0.002; /* less than the activations' share was measured to be: still met, all above zero */
    assert_int_equal(dil_plan_correct(p, one, &m, &err), DIL_OK);
    assert_true(fabs(sum_of(p, 1, 1) - 0.002) < 1e-12 && p->layers[1].levels[0].damage_kl > 0);
    dil_plan_free(one);
    dil_profile_free(p);
}

static void students_and_text_kept_apart_survive_writing(void **state)
{
    (void)state;
    dil_err err = {0};
    char path[] = "/tmp/dilemma-correct-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    dil_profile *p = profile("{\"method\": \"rtn\", \"bits\": 3, \"alone\": 0.2, \"kl\": 0.4, \"kl_stderr\": null, \"tokens\": 77}"), *q = NULL;
    dil_profile_correct(p, "layerwise");
    assert_int_equal(dil_profile_write(path, p, &err), DIL_OK);
    assert_int_equal(dil_profile_read(path, &q, &err), DIL_OK);
    unlink(path);
    assert_true(q->held_from == 100 && q->held_to == 900 && q->n_students == 1 && q->students[0].tokens == 77 && isnan(q->students[0].kl_stderr));
    assert_string_equal(q->method, "layerwise");
    assert_true(q->layers[1].levels[1].bits == 4.5 && q->layers[1].levels[1].damage_alone == 0.02);
    assert_true(q->layers[1].levels[1].damage_kl == p->layers[1].levels[1].damage_kl);
    dil_profile_free(p);
    dil_profile_free(q);
}

static void what_does_not_belong_is_refused(void **state)
{
    (void)state;
    dil_err err = {0};
    dil_profile *p = profile(""), *q = NULL;
    dil_plan *other = plan("b", "unknown", 0.13);
    dil_profile_student m = {.method = "rtn", .kl = 0.1, .kl_stderr = NAN};
    assert_int_equal(dil_plan_correct(p, other, &m, &err), DIL_EFORMAT);
    assert_int_equal(p->n_students, 0);
    const char *bad = "{\"version\": 1, \"model\": {\"n_blocks\": 0, \"n_params\": 1, \"hidden_bytes\": 1}, \"students\": [{\"method\": \"rtn\", \"bits\": 4, \"alone\": 0, \"kl\": 1}], "
                      "\"context\": 8, \"nodes\": [\"x\"], \"layers\": [{\"name\": \"a\", \"levels\": [{\"name\": \"q\", \"types\": {}, \"bytes\": 1, \"damage\": {}, \"decode_sec\": [1], \"prefill_sec\": [1]}]}, "
                      "{\"name\": \"b\", \"levels\": [{\"name\": \"q\", \"types\": {}, \"bytes\": 1, \"damage\": {}, \"decode_sec\": [1], \"prefill_sec\": [1]}]}]}";
    assert_int_equal(dil_profile_parse("t", bad, strlen(bad), &q, &err), DIL_EFORMAT);
    assert_non_null(strstr(err.text, "students[0]"));
    dil_plan_free(other);
    dil_profile_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_measured_plan_is_predicted_as_measured), cmocka_unit_test(plainly_rounded_models_give_each_size_its_ratio),
        cmocka_unit_test(two_students_span_the_sizes_between), cmocka_unit_test(rounding_of_activations_is_added_and_not_scaled), cmocka_unit_test(students_and_text_kept_apart_survive_writing),
        cmocka_unit_test(what_does_not_belong_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
