/* The OpenAPI file describes the routes that there are, all of them and no others, and which ask for a key. */
#include "serve/server.h"

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

extern const unsigned char dil__web_openapi[];
extern const size_t dil__web_openapi_len;

static json_t *paths;

static int load(void **state)
{
    (void)state;
    static json_t *doc;
    dil_err err;
    if (dil__json_parse("openapi.json", (const char *)dil__web_openapi, dil__web_openapi_len, &doc, &err) != DIL_OK) return -1;
    paths = json_object_get(doc, "paths");
    return paths ? 0 : -1;
}

static void every_route_is_described(void **state)
{
    (void)state;
    for (const dil__route *r = dil__routes; r->method; r++) {
        char path[128];
        size_t n = strlen(r->path);
        snprintf(path, sizeof path, "%s%s", r->path, n > 1 && r->path[n - 1] == '/' ? "{model}" : "");
        json_t *op = json_object_get(json_object_get(paths, path), strcmp(r->method, "GET") == 0 ? "get" : strcmp(r->method, "POST") == 0 ? "post" : "delete");
        if (!op) fail_msg("%s %s is not described", r->method, path);
        if (r->open != (json_object_get(op, "security") != NULL)) fail_msg("%s %s: a key is%s asked for", r->method, path, r->open ? " not" : "");
    }
}

static void every_description_is_a_route(void **state)
{
    (void)state;
    const char *path, *method;
    json_t *item, *op;
    json_object_foreach(paths, path, item) {
        json_object_foreach(item, method, op) {
            if (strcmp(method, "parameters") == 0) continue;
            bool wrong;
            const dil__route *r = dil__route_find(strcmp(method, "get") == 0 ? "GET" : strcmp(method, "post") == 0 ? "POST" : "DELETE", path, &wrong);
            if (!r || wrong) fail_msg("there is no %s %s", method, path);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_route_is_described), cmocka_unit_test(every_description_is_a_route)};
    return cmocka_run_group_tests(tests, load, NULL);
}
