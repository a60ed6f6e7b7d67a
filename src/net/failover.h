/* net/failover.h - the pipe that keeps going: a ring, and a thread that builds another one when the ring cannot go on.
 *
 * The scheduler sees one pipe. Behind it rings come and go; each swap is a RESET, after which the streams start over with the tokens
 * they have. Losing a node or link, a node that comes back and a node that got slow all end in the same question to the planner. */
#ifndef DIL_NET_FAILOVER_H
#define DIL_NET_FAILOVER_H

#include "net/linkwatch.h"
#include "net/member.h"
#include "net/replan.h"
#include "net/ring.h"

typedef struct dil__failover {
    dil__pipe pipe;
    const dil_plan *first_plan;
    const dil_cluster *cluster;
    const dil_gguf *model;
    dil_arch arch;
    dil_keypair key;
    dil_ring_opts o;          /* key points to the copy above */
    pthread_t thread;
    bool started;
    atomic_bool closing;
    int fd;                   /* the thread's eventfd */

    pthread_mutex_t lock;     /* guards what follows up to `replan` */
    dil__ring *ring;          /* the scheduler's; the scheduler alone replaces it */
    dil__ring *next;          /* built, not yet taken by the scheduler */
    dil__ring *old;           /* to be closed by the thread */
    uint32_t n_lookers;       /* outsiders that hold `ring` */
    bool was_ready;           /* once, any ring */
    bool stuck;               /* patience is over */
    bool give_up;             /* tell the scheduler */
    dil_err stuck_err;
    char doing[320];          /* since the loss, in words; "" when nothing was lost */
    char lost[DIL_NAME_MAX];
    int64_t lost_ns;          /* 0: nothing is lost */

    /* thread only */
    dil__replan *replan;
    dil_plan *plan;           /* that runs; owned unless it is first_plan */
    dil__members members;
    struct dil__fate {        /* [n_nodes of the cluster] */
        uint32_t n_lost;      /* how often it was lost: the longer it must prove itself */
        int64_t refused_ns;   /* refused its layers then */
        int64_t lost_ns;      /* was lost last */
        bool offered;         /* since it is back, the planner was asked */
        uint8_t *had;         /* [n_layers] its cache holds the layer */
        double slower;        /* than measured; 0: not */
        int64_t slow_ns;      /* found so then */
        dil__tempo_watch tempo;
    } *fate;
    dil__linkwatch *links;    /* NULL: links are not measured again */
    dil_cluster_link *link_now; /* [n_links] what is believed of them */
    uint8_t *there;           /* [n_nodes] scratch */
    dil__round_watch rounds;
    double round_seen_sec;
    int64_t rounds_ns;        /* of the next look at the rounds */
    int64_t *link_down_ns;    /* [n_links] swallowed a work then; 0: never */
    int64_t seen_ns;          /* of the loss that is not yet decided; 0: none */
    int64_t decide_ns;        /* not before */
    bool news;                /* membership changed since the last decision */
    bool ready_seen;
    dil__ring *fetch;         /* fills the caches for fetch_plan, while the ring goes on; NULL: nothing of the kind */
    dil_plan *fetch_plan;
    int64_t start_ns;
    int64_t tempo_ns;         /* of the next look at the nodes' pace */
} dil__failover;

extern const dil__pipe_ops dil__failover_ops;
void *dil__failover_run(void *failover); /* the thread: failover.c */

/* The ring for a short look, from any thread; NULL when the runner has none. Every borrow is ended by a return. */
dil__ring *dil__failover_borrow(dil_runner *r);
void dil__failover_return(dil_runner *r);

#endif
