/* Tasks, their scheduler, the clock, and pthreads made of them. A task is a coroutine: a switch costs 0.2 us, between
 * threads that pass a baton through a condition 3.8 us of CPU (100,000 switches each, two cores). */
#include "netsim/world.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif
#ifdef SIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

enum { TASKS_MAX = 256, STACK_BYTES = 1 << 20, STEP_NS = 700 /* what a turn costs, so that who spins sees time pass */ };

typedef enum task_state { TASK_READY, TASK_WAITS, TASK_DONE } task_state;

struct sim_task {
    ucontext_t context;
    void *stack;
    sim_host *host;
    task_state state;
    const void *const *object; /* [n_objects] waited for; on the task's own stack */
    int n_objects;
    int64_t until;
    bool woken;
    void *(*fn)(void *arg);
    void *arg, *result;
#ifdef SIM_ASAN
    void *fake;
#endif
};

typedef struct event {
    int64_t when;
    uint64_t order, arg;
    void (*fn)(void *ctx, uint64_t arg);
    void *ctx;
} event;

static struct world {
    sim_options o;
    dil_rng rng;
    double yield; /* chance that a call lets others run */
    int64_t now;
    uint64_t steps, order;
    sim_host host[SIM_HOSTS_MAX];
    int n_hosts;
    sim_task *task[TASKS_MAX];
    int n_tasks;
    sim_task *running;
    ucontext_t scheduler;
    event *heap;
    size_t n_events, cap_events;
} w;

static void *spare_stack[TASKS_MAX];
static int n_spare;
#ifdef SIM_ASAN
static const void *main_stack;
static size_t main_bytes;
#endif

/* --- the world ------------------------------------------------------------------------------------------------------------------------ */

void sim_begin(const sim_options *o)
{
    memset(&w, 0, sizeof w);
    w.o = *o;
    dil_rng_init(&w.rng, o->seed);
    w.now = 1000000000;
    w.yield = (double[]){0, 0.02, 0.1, 0.3}[dil_rng_below(&w.rng, 4)];
    sim_system_begin();
}

dil_rng *sim_rng(void) { return &w.rng; }
bool sim_chance(double p) { return p > 0 && dil_rng_unit(&w.rng) < p; }
int64_t sim_now(void) { return w.now; }
uint64_t sim_steps(void) { return w.steps; }
sim_host *sim_host_at(int i) { return i < w.n_hosts ? &w.host[i] : NULL; }
sim_host *sim_here(void) { return w.running ? w.running->host : NULL; }

void sim_trace(const char *fmt, ...)
{
    if (!w.o.trace) return;
    const sim_host *h = sim_here();
    printf("%12.6f %-3s ", (double)w.now * 1e-9, h ? h->name : "-");
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

sim_host *sim_host_new(const char *name)
{
    assert(w.n_hosts < SIM_HOSTS_MAX);
    sim_host *h = &w.host[w.n_hosts];
    *h = (sim_host){.id = w.n_hosts++, .up = true, .slow = 1, .clock_offset = (int64_t)dil_rng_below(&w.rng, 1000000) * 1000000000};
    snprintf(h->name, sizeof h->name, "%s", name);
    return h;
}

sim_host *sim_host_find(const char *name)
{
    for (int i = 0; i < w.n_hosts; i++) {
        if (strcmp(w.host[i].name, name) == 0) return &w.host[i];
    }
    return NULL;
}

/* --- events: a binary heap by time, then by order ------------------------------------------------------------------------------------------ */

static bool sooner(const event *a, const event *b)
{
    return a->when != b->when ? a->when < b->when : a->order < b->order;
}

static void swap(size_t a, size_t b)
{
    event t = w.heap[a];
    w.heap[a] = w.heap[b];
    w.heap[b] = t;
}

void sim_at(int64_t when, void (*fn)(void *ctx, uint64_t arg), void *ctx, uint64_t arg)
{
    if (w.n_events == w.cap_events) {
        size_t cap = w.cap_events ? 2 * w.cap_events : 256;
        event *grown = sim_alloc(cap * sizeof *grown);
        if (w.n_events) memcpy(grown, w.heap, w.n_events * sizeof *grown);
        sim_free(w.heap);
        w.heap = grown;
        w.cap_events = cap;
    }
    size_t i = w.n_events++;
    w.heap[i] = (event){.when = when < w.now ? w.now : when, .order = w.order++, .fn = fn, .ctx = ctx, .arg = arg};
    for (; i > 0 && sooner(&w.heap[i], &w.heap[(i - 1) / 2]); i = (i - 1) / 2) swap(i, (i - 1) / 2);
}

static event pop_event(void)
{
    event top = w.heap[0];
    w.heap[0] = w.heap[--w.n_events];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t c = 2 * i + 1; c <= 2 * i + 2 && c < w.n_events; c++) least = sooner(&w.heap[c], &w.heap[least]) ? c : least;
        if (least == i) return top;
        swap(i, least);
        i = least;
    }
}

/* --- switching ------------------------------------------------------------------------------------------------------------------------------ */

static void to_scheduler(sim_task *t)
{
#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(t->state == TASK_DONE ? NULL : &t->fake, main_stack, main_bytes);
#endif
    swapcontext(&t->context, &w.scheduler);
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(t->fake, NULL, NULL);
#endif
}

static void to_task(sim_task *t)
{
    w.running = t;
    w.now += STEP_NS;
    w.steps++;
#ifdef SIM_ASAN
    void *fake;
    __sanitizer_start_switch_fiber(&fake, t->stack, STACK_BYTES);
#endif
    swapcontext(&w.scheduler, &t->context);
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
    w.running = NULL;
}

static void enter(void)
{
    sim_task *t = w.running;
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(NULL, &main_stack, &main_bytes);
#endif
    t->result = t->fn(t->arg);
    t->state = TASK_DONE;
    sim_wake(t, INT32_MAX);
    to_scheduler(t);
    abort();
}

void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);

static void *new_stack(void)
{
    if (n_spare) return spare_stack[--n_spare];
    uint8_t *p = __real_mmap(NULL, STACK_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(p != MAP_FAILED);
    mprotect(p, 4096, PROT_NONE);
    return p + 4096;
}

sim_task *sim_spawn(sim_host *h, void *(*fn)(void *arg), void *arg)
{
    assert(w.n_tasks < TASKS_MAX);
    sim_task *t = sim_alloc(sizeof *t);
    t->stack = new_stack();
    t->host = h;
    t->fn = fn;
    t->arg = arg;
    getcontext(&t->context);
    t->context.uc_stack.ss_sp = t->stack;
    t->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&t->context, enter, 0);
    w.task[w.n_tasks++] = t;
    return t;
}

static void forget(int i)
{
    sim_task *t = w.task[i];
    w.task[i] = w.task[--w.n_tasks];
#ifdef SIM_ASAN
    extern void __asan_unpoison_memory_region(void const volatile *addr, size_t size);
    __asan_unpoison_memory_region(t->stack, STACK_BYTES);
#endif
    spare_stack[n_spare++] = t->stack;
    sim_free(t);
}

void sim_host_kill(sim_host *h)
{
    assert(sim_here() != h);
    for (int i = w.n_tasks; i-- > 0;) {
        if (w.task[i]->host == h) forget(i);
    }
    sim_heap_drop(h);
    sim_system_drop(h);
    h->paused_until = 0;
}

void sim_finish(void)
{
    while (w.n_tasks) forget(w.n_tasks - 1);
    for (int i = 0; i < w.n_hosts; i++) sim_heap_drop(&w.host[i]);
    sim_free(w.heap);
    w.heap = NULL;
    w.n_events = w.cap_events = 0;
}

/* --- waiting ------------------------------------------------------------------------------------------------------------------------------------ */

bool sim_wait(const void *const *object, int n, int64_t until_ns)
{
    sim_task *t = w.running;
    t->state = TASK_WAITS;
    t->object = object;
    t->n_objects = n;
    t->until = until_ns;
    t->woken = false;
    to_scheduler(t);
    t->object = NULL;
    t->n_objects = 0;
    return t->woken;
}

void sim_wake(const void *object, int most)
{
    int start = w.n_tasks ? (int)dil_rng_below(&w.rng, (uint64_t)w.n_tasks) : 0;
    for (int k = 0; k < w.n_tasks && most > 0; k++) {
        sim_task *t = w.task[(start + k) % w.n_tasks];
        if (t->state != TASK_WAITS) continue;
        for (int i = 0; i < t->n_objects; i++) {
            if (t->object[i] != object) continue;
            t->state = TASK_READY;
            t->woken = true;
            most--;
            break;
        }
    }
}

void sim_sleep(int64_t ns)
{
    if (ns > 0) sim_wait(NULL, 0, w.now + ns);
}

void sim_maybe_yield(void)
{
    if (w.running && sim_chance(w.yield)) to_scheduler(w.running);
}

/* --- the scheduler -------------------------------------------------------------------------------------------------------------------------------- */

/* Who may run now; NULL: nobody before *next. */
static sim_task *pick(int64_t *next)
{
    sim_task *can[TASKS_MAX];
    int n = 0;
    *next = INT64_MAX;
    for (int i = 0; i < w.n_tasks; i++) {
        sim_task *t = w.task[i];
        if (t->state == TASK_DONE) continue;
        int64_t from = t->state == TASK_WAITS ? t->until : 0;
        if (t->host->paused_until > from) from = t->host->paused_until;
        if (from <= w.now) can[n++] = t;
        else if (from < *next) *next = from;
    }
    return n ? can[n > 1 ? dil_rng_below(&w.rng, (uint64_t)n) : 0] : NULL;
}

bool sim_run(int64_t until_ns, bool (*done)(void *ctx), void *ctx)
{
    while (!done(ctx)) {
        while (w.n_events && w.heap[0].when <= w.now) {
            event e = pop_event();
            e.fn(e.ctx, e.arg);
        }
        int64_t next;
        sim_task *t = pick(&next);
        if (t) {
            t->state = TASK_READY;
            to_task(t);
            continue;
        }
        if (w.n_events && w.heap[0].when < next) next = w.heap[0].when;
        if (next > until_ns) return false;
        if (next > w.now) w.now = next;
    }
    return true;
}

void sim_list_tasks(void)
{
    for (int i = 0; i < w.n_tasks; i++) {
        const sim_task *t = w.task[i];
        if (t->state != TASK_DONE)
            printf("    a thread of %s %s%s\n", t->host->name, t->state == TASK_READY ? "can run" : t->until == INT64_MAX ? "waits for ever" : "waits",
                   t->host->paused_until > w.now ? ", its machine is stopped" : "");
    }
}

/* --- pthreads ----------------------------------------------------------------------------------------------------------------------------------------- */

typedef struct sim_mutex { /* lies in a pthread_mutex_t; zeros: unlocked */
    sim_task *owner;
    uint32_t n_waiting;
} sim_mutex;
_Static_assert(sizeof(sim_mutex) <= sizeof(pthread_mutex_t), "a lock must fit");

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __real_pthread_join(pthread_t thread, void **result);
int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr);
int __wrap_pthread_cond_destroy(pthread_cond_t *c);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t);
int __wrap_pthread_cond_signal(pthread_cond_t *c);
int __wrap_pthread_cond_broadcast(pthread_cond_t *c);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    if (!w.running) return __real_pthread_create(thread, attr, fn, arg);
    *thread = (pthread_t)(uintptr_t)sim_spawn(w.running->host, fn, arg);
    sim_maybe_yield();
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    if (!w.running) return __real_pthread_join(thread, result);
    sim_task *t = (sim_task *)(uintptr_t)thread;
    while (t->state != TASK_DONE) sim_wait(&(const void *){t}, 1, INT64_MAX);
    if (result) *result = t->result;
    for (int i = 0; i < w.n_tasks; i++) {
        if (w.task[i] == t) forget(i);
    }
    return 0;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    (void)attr;
    memset(m, 0, sizeof *m);
    return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m)
{
    assert(!((sim_mutex *)m)->owner || !w.running);
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    if (!w.running) return __real_pthread_mutex_lock(m);
    sim_mutex *s = (sim_mutex *)m;
    sim_maybe_yield();
    assert(s->owner != w.running);
    while (s->owner) {
        s->n_waiting++;
        sim_wait(&(const void *){s}, 1, INT64_MAX);
        s->n_waiting--;
    }
    s->owner = w.running;
    return 0;
}

static void release(pthread_mutex_t *m)
{
    sim_mutex *s = (sim_mutex *)m;
    assert(s->owner == w.running);
    s->owner = NULL;
    if (s->n_waiting) sim_wake(s, INT32_MAX);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    if (!w.running) return __real_pthread_mutex_unlock(m);
    release(m);
    sim_maybe_yield();
    return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr)
{
    (void)attr;
    memset(c, 0, sizeof *c);
    return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *c)
{
    (void)c;
    return 0;
}

/* Spurious wakes are allowed, so there are some. */
static bool wait_on(pthread_cond_t *c, pthread_mutex_t *m, int64_t until)
{
    if (sim_chance(0.01)) until = w.now;
    release(m); /* and nobody runs before the wait: that is what a condition promises */
    bool woken = sim_wait(&(const void *){c}, 1, until);
    __wrap_pthread_mutex_lock(m);
    return woken;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    wait_on(c, m, INT64_MAX);
    return 0;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t)
{
    int64_t until = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec - w.running->host->clock_offset;
    return wait_on(c, m, until) || w.now < until ? 0 : ETIMEDOUT;
}

int __wrap_pthread_cond_signal(pthread_cond_t *c)
{
    sim_wake(c, 1);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
    sim_wake(c, INT32_MAX);
    return 0;
}
