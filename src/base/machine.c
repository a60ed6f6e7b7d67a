/* What this machine has to give, as the kernel and the control group tell. */
#include <dilemma/base.h>

#include <inttypes.h>
#include <string.h>

/* The first number in a small file; false when there is none ("max" of a control group, say). */
static bool read_number(const char *path, uint64_t *out)
{
    FILE *f = fopen(path, "r");
    if (!f) return false;
    int got = fscanf(f, "%" SCNu64, out);
    fclose(f);
    return got == 1;
}

static uint64_t meminfo_bytes(const char *key)
{
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return 0;
    char line[128];
    uint64_t kib = 0;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, n) == 0 && sscanf(line + n, " %" SCNu64, &kib) == 1) break;
    }
    fclose(f);
    return kib * 1024;
}

void dil_memory(uint64_t *total, uint64_t *available)
{
    *total = meminfo_bytes("MemTotal:");
    *available = meminfo_bytes("MemAvailable:");
    uint64_t max, used, cache = 0;
    if (!read_number("/sys/fs/cgroup/memory.max", &max) || !read_number("/sys/fs/cgroup/memory.current", &used)) return;
    FILE *f = fopen("/sys/fs/cgroup/memory.stat", "r"); /* the page cache counts as used, yet gives way */
    if (f) {
        char line[128];
        while (fgets(line, sizeof line, f)) {
            if (sscanf(line, "inactive_file %" SCNu64, &cache) == 1) break;
        }
        fclose(f);
    }
    used = used > cache ? used - cache : 0;
    uint64_t left = max > used ? max - used : 0;
    if (max < *total) *total = max;
    if (left < *available) *available = left;
}
