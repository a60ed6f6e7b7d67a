/* Threads for data-parallel loops, and how many CPUs there really are (affinity mask and cgroup quota: `nproc` ignores the
 * quota, and threads beyond it only wait for each other). */
#define _GNU_SOURCE
#include <dilemma/base.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef struct loop {
    atomic_size_t next;
    size_t n;
    void (*fn)(void *ctx, size_t i);
    void *ctx;
} loop;

static void *work(void *arg)
{
    loop *l = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&l->next, 1);
        if (i >= l->n) return NULL;
        l->fn(l->ctx, i);
    }
}

enum { MAX_THREADS = 256 };

void dil_parallel(int n_threads, size_t n, void (*fn)(void *ctx, size_t i), void *ctx)
{
    loop l = {.n = n, .fn = fn, .ctx = ctx};
    atomic_init(&l.next, 0);
    pthread_t thread[MAX_THREADS];
    size_t started = 0, want = n_threads > 1 ? (size_t)n_threads - 1 : 0;
    if (want > MAX_THREADS) want = MAX_THREADS;
    if (want >= n) want = n > 0 ? n - 1 : 0;
    /* A thread that cannot be started is no error: the others do its share. */
    while (started < want && pthread_create(&thread[started], NULL, work, &l) == 0) started++;
    work(&l);
    for (size_t i = 0; i < started; i++) pthread_join(thread[i], NULL);
}

static int quota_cpus(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f) return 0;
    long long quota, period;
    int n = fscanf(f, "%lld %lld", &quota, &period);
    fclose(f);
    if (n != 2 || quota <= 0 || period <= 0) return 0;
    return (int)((quota + period - 1) / period);
}

int dil_cpu_count(void)
{
    cpu_set_t set;
    int n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    int quota = quota_cpus();
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}
