/* The option parser: what it takes, what it refuses, and that a refusal is exit status 2. */
#include "cli/clean.h"
#include "cli/cli.h"
#include "cli/nearest.h"

#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct {
    bool flag, given;
    const char *str;
    int64_t i;
    double num;
    uint64_t bytes;
    dil_cli_list list;
} v;

static dil_cli_list pos;

static const dil_cli_opt opts[] = {
    {.name = "--flag", .letter = 'f', .kind = DIL_CLI_FLAG, .out = &v.flag, .help = "a flag"},
    {.name = "--str", .letter = 's', .kind = DIL_CLI_STR, .out = &v.str, .arg = "TEXT", .help = "a text", .given = &v.given},
    {.name = "--int", .letter = 'i', .kind = DIL_CLI_INT, .out = &v.i, .arg = "N", .help = "a number", .min = -5, .max = 100},
    {.name = "--num", .kind = DIL_CLI_NUM, .out = &v.num, .arg = "X", .help = "a number\nover two lines"},
    {.name = "--bytes", .kind = DIL_CLI_BYTES, .out = &v.bytes, .arg = "SIZE", .help = "a size"},
    {.name = "--list", .kind = DIL_CLI_LIST, .out = &v.list, .arg = "A…", .help = "several"},
    {.letter = 'o', .kind = DIL_CLI_STR, .out = &v.str, .arg = "FILE", .help = "a letter alone"},
    DIL_CLI_END};

/* Splits words at spaces and parses; what goes to the standard streams is kept in `said`. */
static char said[8192];

static int parse(const char *words, size_t min_pos, size_t max_pos)
{
    static char copy[256];
    char *argv[64], path[] = "/tmp/dilemma-cli-XXXXXX";
    int argc = 0;
    memset(&v, 0, sizeof v);
    memset(&pos, 0, sizeof pos);
    snprintf(copy, sizeof copy, "cmd %s", words);
    for (char *p = strtok(copy, " "); p; p = strtok(NULL, " ")) argv[argc++] = p;
    fflush(stdout);
    int fd = mkstemp(path), out = dup(1), err = dup(2);
    dup2(fd, 1);
    dup2(fd, 2);
    int status = dil_cli_parse(argc, argv, "WORDS [options]", "About.", opts, &pos, min_pos, max_pos);
    fflush(stdout);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    memset(said, 0, sizeof said);
    lseek(fd, 0, SEEK_SET);
    assert_true(read(fd, said, sizeof said - 1) >= 0);
    close(fd);
    unlink(path);
    return status;
}

static void refuse(const char *words, const char *says)
{
    int status = parse(words, 0, 2);
    if (status != 2 || !strstr(said, says)) fail_msg("'%s': status %d, said: %s", words, status, said);
}

static void options_take_their_values_in_every_spelling(void **state)
{
    (void)state;
    assert_int_equal(parse("--flag --str x --int 7 --num 1.5e3 --bytes 1.5GiB", 0, 0), -1);
    assert_true(v.flag && v.given && strcmp(v.str, "x") == 0 && v.i == 7 && v.num == 1500 && v.bytes == 1610612736);
    assert_int_equal(parse("-f -s x -i -5 --num=-2", 0, 0), -1);
    assert_true(v.flag && strcmp(v.str, "x") == 0 && v.i == -5 && v.num == -2);
    assert_int_equal(parse("--str=a=b --int=100", 0, 0), -1);
    assert_true(strcmp(v.str, "a=b") == 0 && v.i == 100);
    assert_int_equal(parse("-o -", 0, 0), -1);
    assert_string_equal(v.str, "-");
    assert_int_equal(parse("--num -.5", 0, 0), -1);
    assert_true(v.num == -0.5);
    assert_int_equal(parse("", 0, 0), -1);
    assert_false(v.given);
}

static void lists_take_words_up_to_the_next_option(void **state)
{
    (void)state;
    assert_int_equal(parse("--list a b c --flag d --list=e", 1, 1), -1);
    assert_int_equal(v.list.n, 4);
    assert_string_equal(v.list.item[2], "c");
    assert_string_equal(v.list.item[3], "e");
    assert_string_equal(pos.item[0], "d");
}

static void words_are_counted(void **state)
{
    (void)state;
    assert_int_equal(parse("a - -7", 3, 3), -1); /* a dash and a negative number are words */
    assert_string_equal(pos.item[1], "-");
    assert_int_equal(parse("a -- --flag", 2, 2), -1);
    assert_true(!v.flag && strcmp(pos.item[1], "--flag") == 0);
    assert_int_equal(parse("a", 2, 2), 2);
    assert_non_null(strstr(said, "too few arguments"));
    refuse("a b c", "unexpected word 'c'");
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    refuse("--nope", "unknown option '--nope'");
    refuse("--nope=3", "unknown option '--nope'");
    refuse("-x", "unknown option '-x'");
    refuse("--fla", "unknown option '--fla'");
    refuse("--str", "--str wants TEXT");
    refuse("--int x", "--int wants a whole number, not 'x'");
    refuse("--int 1.5", "whole number");
    refuse("--int 101", "--int is 101, allowed -5 to 100");
    refuse("--int -6", "allowed -5 to 100");
    refuse("--int 99999999999999999999", "whole number");
    refuse("--num nan", "--num wants a number, not 'nan'");
    refuse("--num 1x", "wants a number");
    refuse("--num 1e999", "wants a number");
    refuse("--bytes many", "wants a size such as");
    refuse("--flag=1", "--flag takes no value");
}

static void help_lists_every_option(void **state)
{
    (void)state;
    assert_int_equal(parse("--help", 5, 5), 0);
    assert_non_null(strstr(said, "usage: dilemma cmd WORDS [options]"));
    static const char *const has[] = {"-f, --flag", "-s, --str TEXT", "--list A…", "-o FILE", "over two lines", "--quiet", "--verbose"};
    for (size_t i = 0; i < sizeof has / sizeof *has; i++) assert_non_null(strstr(said, has[i]));
    assert_int_equal(parse("x -h", 0, 0), 2); /* errors before it count */
}

static void a_mistyped_option_is_guessed(void **state)
{
    (void)state;
    assert_int_equal(parse("--flga", 0, 0), 2);
    assert_int_equal(dil_cli_distance("flga", 4, "flag", 4), 1);
    assert_int_equal(dil_cli_distance("ca", 2, "abc", 3), 3);
    assert_int_equal(dil_cli_distance("", 0, "abc", 3), 3);
    assert_int_equal(dil_cli_distance("kitten", 6, "sitting", 7), 3);
    unsigned best = 99;
    assert_true(dil_cli_nearer("pul", 3, "pull", &best));
    assert_int_equal(best, 1);
    assert_false(dil_cli_nearer("pul", 3, "pulx", &best)); /* no nearer */
    best = 99;
    assert_false(dil_cli_nearer("xyz", 3, "up", &best));
}

static void a_models_text_cannot_command_a_terminal(void **state)
{
    (void)state;
    static const char bad[] = "a\033]52;c;x\007b\tc\nd\x7f \xc2\x9b" "31m \xc3\xa9 \xe2\x82\xac";
    char out[sizeof bad];
    dil_cli_clean_text(bad, sizeof bad - 1, out);
    out[sizeof bad - 1] = 0;
    assert_string_equal(out, "a?]52;c;x?b\tc\nd? \xc2\xbf" "31m \xc3\xa9 \xe2\x82\xac");
    FILE *f = tmpfile(); /* no terminal: as it is */
    assert_non_null(f);
    assert_true(dil_cli_print_model_text(bad, sizeof bad, f));
    rewind(f);
    assert_int_equal(fread(out, 1, sizeof out, f), sizeof bad);
    assert_memory_equal(out, bad, sizeof bad);
    fclose(f);
}

static void quiet_is_remembered(void **state)
{
    (void)state;
    assert_false(dil_cli_quiet);
    assert_int_equal(parse("--quiet", 0, 0), -1);
    assert_true(dil_cli_quiet);
    dil_cli_quiet = false;
}

static void failures_give_the_status_of_their_class(void **state)
{
    (void)state;
    dil_err err;
    dil_fail(&err, DIL_ELIMIT, "too much");
    assert_int_equal(dil_cli_fail("test", &err), dil_status_exit(DIL_ELIMIT));
    dil_progress *p = dil_cli_progress();
    assert_true(dil_progress_step(p, "x", 0, 1) && dil_progress_step(p, "x", 1, 1));
    dil_cli_progress_done();
    raise(SIGINT);
    assert_true(dil_cli_interrupted());
    assert_false(dil_progress_step(p, "x", 0, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_take_their_values_in_every_spelling),
        cmocka_unit_test(lists_take_words_up_to_the_next_option),
        cmocka_unit_test(words_are_counted),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(help_lists_every_option),
        cmocka_unit_test(a_mistyped_option_is_guessed),
        cmocka_unit_test(a_models_text_cannot_command_a_terminal),
        cmocka_unit_test(quiet_is_remembered),
        cmocka_unit_test(failures_give_the_status_of_their_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
