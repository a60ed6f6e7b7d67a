/* Oracle: every mix, by brute force. */
#include "quant/levels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROLES = 4 };
static const dil_type types[] = {DIL_TYPE_Q8_0, DIL_TYPE_Q5_1, DIL_TYPE_Q4_1, DIL_TYPE_IQ4_NL, DIL_TYPE_MXFP4};
enum { TYPES = 5 };

static void random_roles(dil_rng *r, dil__role_choice c[ROLES])
{
    memset(c, 0, sizeof(dil__role_choice[ROLES]));
    for (size_t k = 0; k < ROLES; k++) {
        c[k].elems = 1000 + (double)dil_rng_below(r, 100000);
        for (size_t i = 0; i < TYPES; i++) {
            c[k].type[i] = types[i];
            c[k].bytes[i] = c[k].elems * dil_type_bits(types[i]) / 8;
            c[k].damage[i] = exp(-dil_type_bits(types[i]) + 1.5 * dil_rng_normal(r));
        }
        c[k].n = TYPES;
    }
}

/* Is (bytes, damage) on or below every segment between two other mixes, that is: on the lower hull of all mixes? */
static bool on_hull(const dil__role_choice *c, double bytes, double damage)
{
    /* The hull of a sum: for some price λ >= 0 the mix minimises damage + λ bytes. Try the prices between any two choices. */
    for (size_t k = 0; k < ROLES; k++) {
        for (size_t i = 0; i < TYPES; i++) {
            for (size_t j = 0; j <= TYPES; j++) {
                double price = 0;
                if (j < TYPES && c[k].bytes[i] > c[k].bytes[j])
                    price = (c[k].damage[j] - c[k].damage[i]) / (c[k].bytes[i] - c[k].bytes[j]);
                if (price < 0) continue;
                for (int side = -1; side <= 1; side++) {
                    double p = price * (1 + 1e-9 * side), least = 0;
                    for (size_t r = 0; r < ROLES; r++) {
                        double best = INFINITY;
                        for (size_t t = 0; t < TYPES; t++) best = fmin(best, c[r].damage[t] + p * c[r].bytes[t]);
                        least += best;
                    }
                    if (damage + p * bytes <= least * (1 + 1e-7)) return true;
                }
            }
        }
    }
    return false;
}

static void every_level_is_on_the_hull_of_all_mixes(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 99);
    static const double ladder[] = {8.5, 6, 5.5, 5, 4.75, 4.6, 4.5, 4.4, 4.3, 4.25};
    for (int round = 0; round < 200; round++) {
        dil__role_choice c[ROLES];
        random_roles(&r, c);
        dil__level out[DIL__LEVELS_MAX];
        size_t n = dil__levels_design(c, ROLES, ladder, 10, NULL, 0, out, DIL__LEVELS_MAX);
        assert_true(n >= 1);
        for (size_t i = 0; i < n; i++) {
            double bytes = 0, damage = 0, elems = 0;
            for (size_t k = 0; k < ROLES; k++) {
                size_t t = 0;
                while (c[k].type[t] != out[i].type[k]) t++;
                bytes += c[k].bytes[t];
                damage += c[k].damage[t];
                elems += c[k].elems;
            }
            assert_true(fabs(out[i].bits - 8 * bytes / elems) < 1e-9 && fabs(out[i].damage - damage) < 1e-12);
            assert_true(on_hull(c, bytes, damage));
            if (i) assert_true(out[i].bits < out[i - 1].bits && out[i].damage > out[i - 1].damage);
            for (size_t j = 0; j < i; j++) assert_string_not_equal(out[i].name, out[j].name);
        }
    }
}

static void uniform_levels_are_offered_where_every_role_takes_them(void **state)
{
    (void)state;
    dil_rng r;
    dil_rng_init(&r, 5);
    dil__role_choice c[ROLES];
    random_roles(&r, c);
    static const dil_type uniform[] = {DIL_TYPE_Q4_1, DIL_TYPE_Q4_0};
    static const double ladder[] = {8.5};
    dil__level out[DIL__LEVELS_MAX];
    size_t n = dil__levels_design(c, ROLES, ladder, 1, uniform, 2, out, DIL__LEVELS_MAX);
    size_t found = 0;
    for (size_t i = 0; i < n; i++) found += strcmp(out[i].name, "Q4_1") == 0;
    assert_int_equal(found, 1);
    for (size_t i = 0; i < n; i++) assert_string_not_equal(out[i].name, "Q4_0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_level_is_on_the_hull_of_all_mixes),
                                       cmocka_unit_test(uniform_levels_are_offered_where_every_role_takes_them)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
