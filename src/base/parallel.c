/* Threads for data-parallel loops, and how many CPUs there really are (affinity mask and cgroup quota: `nproc` ignores the
 * quota, and threads beyond it only wait for each other). */
#define _GNU_SOURCE
#include <dilemma/base.h>

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

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

/* CPUs that a "quota period" file allows, rounded up; 0: no limit or no such file. */
static int quota_of(const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    long long quota, period;
    int n = fscanf(f, "%lld %lld", &quota, &period);
    fclose(f);
    if (n != 2 || quota <= 0 || period <= 0) return 0;
    long long cpus = quota / period + (quota % period != 0);
    return cpus > INT_MAX ? 0 : (int)cpus;
}

/* The group that this process is in, "/system.slice/x.service"; a container usually sees itself as "/". */
static void own_group(char *out, size_t size)
{
    char line[4096];
    out[0] = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, size, "%s", line + 3);
    }
    if (f) fclose(f);
}

/* The least quota on the way from our group to the root. */
static int quota_cpus(void)
{
    static const char root[] = "/sys/fs/cgroup";
    char group[4096], path[sizeof root + sizeof group + 16];
    int least = 0;
    own_group(group, sizeof group);
    for (;;) {
        snprintf(path, sizeof path, "%s%s/cpu.max", root, group);
        int cpus = quota_of(path);
        if (cpus > 0 && (least == 0 || cpus < least)) least = cpus;
        char *slash = strrchr(group, '/');
        if (!slash) return least;
        *slash = 0;
    }
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
