/* Clock, sleep, eventfd, poll, random numbers and the disk, as the machine of the running task sees them. Descriptors of the world begin where
 * real ones never come; all others go to the operating system, so the chunk cache is real files in a folder of the run. */
#include "netsim/wire.h"
#include "netsim/world.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { FD_FIRST = 1000000, FDS_MAX = 512 };

static struct { bool used; uint64_t count; sim_host *host; } counter[FDS_MAX];

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __real_clock_nanosleep(clockid_t id, int flags, const struct timespec *t, struct timespec *left);
ssize_t __real_read(int fd, void *p, size_t n);
ssize_t __real_write(int fd, const void *p, size_t n);
int __real_close(int fd);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __real_eventfd(unsigned int value, int flags);
FILE *__real_fopen(const char *path, const char *mode);
void __real_randombytes_buf(void *p, size_t n);
int __real_dil_cpu_count(void);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_nanosleep(clockid_t id, int flags, const struct timespec *t, struct timespec *left);
ssize_t __wrap_read(int fd, void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n);
int __wrap_close(int fd);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_eventfd(unsigned int value, int flags);
FILE *__wrap_fopen(const char *path, const char *mode);
void __wrap_randombytes_buf(void *p, size_t n);
int __wrap_dil_cpu_count(void);

void sim_system_begin(void)
{
    memset(counter, 0, sizeof counter);
}

void sim_system_drop(sim_host *h)
{
    for (int i = 0; i < FDS_MAX; i++) {
        if (counter[i].host == h) counter[i].used = false;
    }
}

uint32_t sim_fds(const sim_host *h)
{
    uint32_t n = 0;
    for (int i = 0; i < FDS_MAX; i++) n += counter[i].used && counter[i].host == h;
    return n;
}

/* --- time -------------------------------------------------------------------------------------------------------------------------------- */

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    sim_host *h = sim_here();
    if (!h) return __real_clock_gettime(id, t);
    int64_t now = sim_now() + (id == CLOCK_REALTIME ? INT64_C(1700000000000000000) : h->clock_offset);
    *t = (struct timespec){.tv_sec = now / 1000000000, .tv_nsec = now % 1000000000};
    return 0;
}

int __wrap_clock_nanosleep(clockid_t id, int flags, const struct timespec *t, struct timespec *left)
{
    if (!sim_here()) return __real_clock_nanosleep(id, flags, t, left);
    sim_sleep((int64_t)t->tv_sec * 1000000000 + t->tv_nsec);
    return 0;
}

/* --- descriptors -------------------------------------------------------------------------------------------------------------------------- */

static bool is_counter(int fd)
{
    return fd >= FD_FIRST && fd < FD_FIRST + FDS_MAX;
}

int __wrap_eventfd(unsigned int value, int flags)
{
    sim_host *h = sim_here();
    if (!h) return __real_eventfd(value, flags);
    for (int i = 0; i < FDS_MAX; i++) {
        if (counter[i].used) continue;
        counter[i].used = true;
        counter[i].count = value;
        counter[i].host = h;
        return FD_FIRST + i;
    }
    errno = EMFILE;
    return -1;
}

ssize_t __wrap_read(int fd, void *p, size_t n)
{
    if (!is_counter(fd)) return __real_read(fd, p, n);
    uint64_t *count = &counter[fd - FD_FIRST].count;
    if (*count == 0) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(p, count, sizeof *count);
    *count = 0;
    return sizeof *count;
}

ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    sim_host *h = sim_here();
    if (!is_counter(fd)) {
        if (!h || !h->disk_full) return __real_write(fd, p, n);
        errno = ENOSPC;
        return -1;
    }
    counter[fd - FD_FIRST].count++;
    sim_wake(&counter[fd - FD_FIRST], INT32_MAX);
    sim_maybe_yield();
    return (ssize_t)n;
}

int __wrap_close(int fd)
{
    if (!is_counter(fd)) return __real_close(fd);
    counter[fd - FD_FIRST].used = false;
    return 0;
}

bool sim_fd_ready(int fd, const void **object)
{
    if (!is_counter(fd)) return sim_socket_fd_ready(fd, object);
    *object = &counter[fd - FD_FIRST];
    return counter[fd - FD_FIRST].count > 0;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    if (!sim_here()) return __real_poll(fds, n, timeout_ms);
    int64_t until = timeout_ms < 0 ? INT64_MAX : sim_now() + (int64_t)timeout_ms * 1000000;
    const void *object[8];
    sim_maybe_yield();
    for (;;) {
        int ready = 0;
        for (nfds_t i = 0; i < n; i++) {
            fds[i].revents = sim_fd_ready(fds[i].fd, &object[i]) ? POLLIN : 0;
            ready += fds[i].revents != 0;
        }
        if (ready || sim_now() >= until) return ready;
        sim_wait(object, (int)n, until);
    }
}

/* --- the rest -------------------------------------------------------------------------------------------------------------------------------- */

FILE *__wrap_fopen(const char *path, const char *mode)
{
    return sim_here() && strncmp(path, "/proc/", 6) == 0 ? NULL : __real_fopen(path, mode);
}

void __wrap_randombytes_buf(void *p, size_t n)
{
    if (!sim_here()) {
        __real_randombytes_buf(p, n);
        return;
    }
    for (uint8_t *b = p; n-- > 0; b++) *b = (uint8_t)dil_rng_u64(sim_rng());
}

int __wrap_dil_cpu_count(void)
{
    return sim_here() ? 1 : __real_dil_cpu_count();
}
