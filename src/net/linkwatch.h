/* net/linkwatch.h - the links between nodes, measured again while they are in use.
 *
 * A thread of its own asks nodes to measure (PROBE_LINK), one link at a time: one in turn every so often, and those of the ring at once when the
 * ring's rounds take longer than they did, since the time that frames take costs nothing to watch. What is believed of a link changes only when three
 * measurements in a row differ from it by half and agree with each other; planning again is then asked for once. */
#ifndef DIL_NET_LINKWATCH_H
#define DIL_NET_LINKWATCH_H

#include <dilemma/cluster.h>
#include <dilemma/keys.h>

typedef struct dil__linkwatch dil__linkwatch;

/* cluster: borrowed, its links are what is believed at first. key: NULL: no CURVE; borrowed. every_sec: between two links in turn. news must not call
 * back. Errors: DIL_EMEMORY. Threads: starts one. */
dil_status dil__linkwatch_open(const dil_cluster *cluster, const dil_keypair *key, double every_sec, void (*news)(void *ctx), void *ctx, dil__linkwatch **out,
                               dil_err *err);
void dil__linkwatch_close(dil__linkwatch *w); /* blocks for a measurement under way, at most some seconds */

/* there [n_nodes]: nodes that answer; only links between them are measured. */
void dil__linkwatch_nodes(dil__linkwatch *w, const uint8_t *there);
/* The ring's rounds are slow: these links [n] are measured next. */
void dil__linkwatch_suspect(dil__linkwatch *w, const uint32_t *link, uint32_t n);
/* True: what is believed changed since the last call; links [n_links] is what it is now, why says which link changed last. */
bool dil__linkwatch_take(dil__linkwatch *w, dil_cluster_link *links, char why[160]);

/* --- what is pure ------------------------------------------------------------------------------------------------------------ */

/* By half or more, and by something that a token or a chunk of a prompt would notice. */
bool dil__link_differs(const dil_cluster_link *believed, const dil_cluster_link *measured);

typedef struct dil__round_watch { /* of one ring */
    double usual_sec;          /* the rounds' time beyond computing, as it was; 0: not known yet */
    uint32_t n_slow;
} dil__round_watch;
/* overhead_sec: now, smoothed; 0: nothing was decoded lately. True at the third slow look in a row. */
bool dil__round_is_slow(dil__round_watch *w, double overhead_sec);

#endif
