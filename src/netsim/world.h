/* netsim/world.h - machines, threads and time that exist only in one process: the ground on which the real coordinator and the real nodes
 * run in sim_test.
 *
 * Nothing in src/net knows of this. The seams are at the linker: sim_test is linked with `--wrap` for the calls by which the code meets the
 * operating system (threads, locks, conditions, clocks, sleep, eventfd, poll, memory, random numbers: tasks.c, system.c, heap.c) and with
 * a ZeroMQ of its own (sockets.c, wire.c). A thread of the real code is a task with a stack of its own; a task runs until it waits, locks, sends
 * or receives, and then the seed chooses who is next. When nobody can run, the clock jumps to the next event. So a seed is a whole run,
 * the same on every machine.
 *
 * One world at a time, one thread. What is called on a machine's behalf is called from one of its tasks. */
#ifndef DIL_NETSIM_WORLD_H
#define DIL_NETSIM_WORLD_H

#include <dilemma/base.h>

enum { SIM_HOSTS_MAX = 8 };

typedef struct sim_host { /* one machine with one program on it */
    int id;
    char name[8];
    bool up;
    int64_t paused_until; /* SIGSTOP until then; 0: runs */
    int64_t clock_offset; /* every machine's monotonic clock has a zero of its own */
    double slow;          /* its computing takes so many times longer */
    bool disk_full;
    uint64_t heap_bytes, heap_peak;
    uint32_t heap_blocks, maps, sockets;
} sim_host;

/* --- the world ---------------------------------------------------------------------------------------------------------------------- */

typedef struct sim_options {
    uint64_t seed;
    bool trace;
} sim_options;

void sim_begin(const sim_options *o);
void sim_finish(void); /* whatever still runs is dropped */
dil_rng *sim_rng(void);
bool sim_chance(double p);
int64_t sim_now(void);
void sim_trace(const char *fmt, ...) DIL_PRINTF(1, 2);
uint64_t sim_steps(void); /* times that a task was run: what a seed costs */

sim_host *sim_host_at(int i);
sim_host *sim_host_new(const char *name);
sim_host *sim_host_find(const char *name); /* NULL */
void sim_host_kill(sim_host *h);           /* as kill -9: threads, memory, descriptors; sockets are wire.c's */

/* fn runs at that time between tasks; it must not wait. */
void sim_at(int64_t when, void (*fn)(void *ctx, uint64_t arg), void *ctx, uint64_t arg);

/* Runs until done says so. False: nobody can ever run again, or the clock passed until_ns. */
bool sim_run(int64_t until_ns, bool (*done)(void *ctx), void *ctx);
void sim_list_tasks(void); /* who waits for what, for the report of a deadlock */

/* --- tasks -------------------------------------------------------------------------------------------------------------------------- */

typedef struct sim_task sim_task;
sim_task *sim_spawn(sim_host *h, void *(*fn)(void *arg), void *arg);
sim_host *sim_here(void); /* of the task that runs; NULL between tasks */
/* Waits for a wake of one of the objects, at most until the time (INT64_MAX: for ever). True: woken. */
bool sim_wait(const void *const *object, int n, int64_t until_ns);
void sim_wake(const void *object, int most);
void sim_sleep(int64_t ns);
void sim_maybe_yield(void); /* the seed may let others run */

/* --- memory: heap.c ------------------------------------------------------------------------------------------------------------------ */

void *sim_alloc(size_t bytes); /* zeroed, of the simulator itself */
void sim_free(void *p);
void sim_heap_own(void *p, size_t bytes, sim_host *h); /* from now on h's */
void sim_heap_disown(void *p);
void sim_heap_drop(sim_host *h); /* frees and unmaps everything of h's */
void sim_heap_list(sim_host *h);

/* --- descriptors: system.c ------------------------------------------------------------------------------------------------------------- */

void sim_system_begin(void);
void sim_system_drop(sim_host *h);
uint32_t sim_fds(const sim_host *h);
bool sim_fd_ready(int fd, const void **object); /* object: what a wait for it waits for; NULL: not one of ours */

#endif
