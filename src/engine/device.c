/* Devices: finding them, their threads and scratch memory, computing a graph. On the CPU graphs run through ggml's plan
 * directly and not through its backend object: that one grows its scratch with `new`, which ends the process when memory is
 * short, and shares one thread count among all. */
#include "engine/internal.h"
#include "engine/rpc.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define POLL_LEVEL 50 /* how long idle workers spin before they sleep; ggml's own default */

static void forward_log(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_CONT || level == GGML_LOG_LEVEL_NONE) return;
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '\n') n--;
    dil_log(level == GGML_LOG_LEVEL_ERROR ? DIL_LOG_WARN : DIL_LOG_DEBUG, "ggml", "%.*s", (int)n, text);
}

static void setup_once(void)
{
    ggml_log_set(forward_log, NULL);
    ggml_cpu_init();
}

void dil__ggml_setup(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, setup_once);
}

static bool is_gpu(ggml_backend_dev_t dev)
{
    enum ggml_backend_dev_type t = ggml_backend_dev_type(dev);
    return t == GGML_BACKEND_DEVICE_TYPE_GPU || t == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

static void device_memory(ggml_backend_dev_t dev, uint64_t *total, uint64_t *available)
{
    if (ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU) {
        dil_memory(total, available);
        return;
    }
    size_t f = 0, t = 0;
    ggml_backend_dev_memory(dev, &f, &t);
    *total = t;
    *available = f;
}

size_t dil_engine_devices(dil_device_info *out, size_t cap)
{
    dil__ggml_setup();
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
            ggml_backend_dev_t dev = ggml_backend_dev_get(i);
            bool cpu = ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU;
            if (pass == 0 ? !cpu : !is_gpu(dev)) continue;
            if (n < cap) {
                dil_device_info *d = &out[n];
                memset(d, 0, sizeof *d);
                snprintf(d->name, sizeof d->name, "%s", ggml_backend_dev_name(dev));
                snprintf(d->description, sizeof d->description, "%s", ggml_backend_dev_description(dev));
                device_memory(dev, &d->memory_total, &d->memory_free);
                d->is_gpu = !cpu;
            }
            n++;
        }
    }
    return n;
}

uint64_t dil__device_free_bytes(const dil__device *d)
{
    uint64_t total = 0, available = 0;
    device_memory(d->dev, &total, &available);
    return available ? available : UINT64_MAX; /* unknown: let the allocation decide */
}

static void list_extra_bufts(dil__device *d)
{
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(d->dev);
    void *p = ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts");
    if (!p) return;
    ggml_backend_dev_get_extra_bufts_t get;
    memcpy(&get, &p, sizeof get);
    ggml_backend_buffer_type_t *list = get(d->dev);
    for (; list && *list && d->n_extra < DIL__EXTRA_BUFTS; list++) d->extra[d->n_extra++] = *list;
}

static dil_status open_cpu(dil__device *d, int n_threads, dil__start start, dil_err *err)
{
    d->n_threads = n_threads > 0 ? n_threads : dil_cpu_count();
    if (d->n_threads > DIL__THREADS_MAX) d->n_threads = DIL__THREADS_MAX;
    list_extra_bufts(d);
    if (start == DIL__DESCRIBE) return DIL_OK;
    struct ggml_threadpool_params p = ggml_threadpool_params_default(d->n_threads);
    p.poll = start == DIL__START_SPIN ? POLL_LEVEL : 0;
    d->pool = ggml_threadpool_new(&p);
    if (!d->pool) return dil_fail(err, DIL_EMEMORY, "engine: cannot start %d threads", d->n_threads);
    return DIL_OK;
}

dil_status dil__device_open(const char *name, int n_threads, dil__start start, dil__device *out, dil_err *err)
{
    dil__ggml_setup();
    dil__device d = {0};
    if (!name || !*name) name = "CPU";
    if (dil__is_rpc(name)) {
        dil_status status = dil__rpc_open(name, &d.dev, err);
        if (status) return status;
    } else {
        d.dev = ggml_backend_dev_by_name(name);
    }
    if (!d.dev) {
        char known[256] = "";
        size_t used = 0;
        for (size_t i = 0; i < ggml_backend_dev_count() && used < sizeof known; i++)
            used += (size_t)snprintf(known + used, sizeof known - used, " %s", ggml_backend_dev_name(ggml_backend_dev_get(i)));
        return dil_fail(err, DIL_ENOTFOUND, "device '%s' is not on this machine; there are:%s", name, known);
    }
    d.is_cpu = ggml_backend_dev_type(d.dev) == GGML_BACKEND_DEVICE_TYPE_CPU;
    d.buft = ggml_backend_dev_buffer_type(d.dev);
    dil_status status = DIL_OK;
    if (d.is_cpu) {
        status = open_cpu(&d, n_threads, start, err);
    } else if (start != DIL__DESCRIBE) {
        d.backend = ggml_backend_dev_init(d.dev, NULL);
        if (!d.backend) status = dil_fail(err, DIL_EIO, "device '%s' does not start", name);
    }
    if (status) {
        dil__device_close(&d);
        return status;
    }
    *out = d;
    return DIL_OK;
}

void dil__device_close(dil__device *d)
{
    if (d->pool) ggml_threadpool_free(d->pool);
    if (d->backend) ggml_backend_free(d->backend);
    free(d->work);
    memset(d, 0, sizeof *d);
}

dil_status dil__device_reserve(dil__device *d, struct ggml_cgraph *g, dil_err *err)
{
    if (!d->is_cpu) return DIL_OK;
    size_t need = ggml_graph_plan(g, d->n_threads, d->pool).work_size;
    if (need <= d->work_size) return DIL_OK;
    if (!d->pool) { /* only described */
        d->work_size = need;
        return DIL_OK;
    }
    uint8_t *work = NULL;
    if (posix_memalign((void **)&work, 64, need) != 0)
        return dil_fail(err, DIL_EMEMORY, "engine: no memory for %zu bytes of scratch", need);
    free(d->work);
    d->work = work;
    d->work_size = need;
    return DIL_OK;
}

dil_status dil__device_compute(dil__device *d, struct ggml_cgraph *g, dil_err *err)
{
    enum ggml_status s;
    if (d->is_cpu) {
        struct ggml_cplan plan = ggml_graph_plan(g, d->n_threads, d->pool);
        if (plan.work_size > d->work_size) {
            dil_status status = dil__device_reserve(d, g, err);
            if (status) return status;
        }
        plan.work_data = d->work;
        s = ggml_graph_compute(g, &plan);
    } else {
        s = ggml_backend_graph_compute(d->backend, g);
    }
    if (s == GGML_STATUS_SUCCESS) return DIL_OK;
    return dil_fail(err, s == GGML_STATUS_ALLOC_FAILED ? DIL_EMEMORY : DIL_EINTERNAL, "engine: computing failed: %s",
                    ggml_status_to_string(s));
}
