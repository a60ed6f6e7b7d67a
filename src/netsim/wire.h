/* netsim/wire.h - the network between the machines, and the sockets on it as libzmq has them.
 *
 * wire.c: links with delay, bandwidth and faults; TCP as a program above it sees it: connects that are refused or wait, bytes in order, a
 * connection that breaks, at once or silently, with what is on its way. sockets.c: the calls of <zmq.h> that src/net makes. */
#ifndef DIL_NETSIM_WIRE_H
#define DIL_NETSIM_WIRE_H

#include "netsim/world.h"

#include <zmq.h>

enum { SIM_HWM = 64, SIM_FLIGHT = 16 /* messages that TCP's buffers hold */ };

typedef struct sim_message {
    struct sim_message *next;
    void *block;   /* what malloc gave */
    uint8_t *data; /* in it */
    size_t size;
    int64_t at;    /* arrives then */
} sim_message;

typedef struct sim_queue {
    sim_message *first, *last;
    uint32_t n;
} sim_queue;
void sim_push(sim_queue *q, sim_message *m);
sim_message *sim_pop(sim_queue *q);
void sim_drain(sim_queue *q);
void sim_message_free(sim_message *m);

typedef struct sim_socket sim_socket;

/* One end of a connection: what waits to be sent, what is under way from here to the other end, what arrived and is not read. */
typedef struct sim_end {
    sim_socket *socket; /* NULL: closed */
    sim_host *host;
    sim_queue out, fly, in;
    int64_t free_ns;    /* the link has sent what it has then */
    bool up;            /* as this end believes */
} sim_end;

/* A connection, from the first attempt on. When it breaks, the dialling end moves to a new one, with what it has queued; the listening end
 * stays until what had arrived is read. */
typedef struct sim_pipe {
    struct sim_pipe *next;
    uint64_t id;
    sim_end dial, listen;
    uint32_t rid;         /* the listening end's name for it */
    enum { PIPE_DIALS, PIPE_SHAKES, PIPE_UP, PIPE_BROKEN } state; /* as it is, whatever the ends believe */
    char address[64];
    uint32_t n_refused, n_lost; /* attempts */
    int64_t shake_ns;     /* the handshake began */
    int64_t linger_until; /* closed by the dialling end, which still sends until then */
    bool moved;           /* the dialling end is elsewhere */
    void *context;
} sim_pipe;

struct sim_socket {
    struct sim_socket *next;
    int type;
    sim_host *host;
    void *context;
    char address[64];   /* where it listens */
    sim_pipe *pipe;     /* DEALER's */
    int linger;
    bool signaled, asleep; /* ZMQ_FD is edge-triggered: docs in sockets.c */
    int fd;
    sim_pipe *send_to;  /* ROUTER: of the message whose first part was given */
    sim_message *rest;  /* the part that is still to be read */
    sim_socket *watched, *monitor; /* PAIR */
    char monitor_name[64];
    uint16_t event[64];
    uint32_t n_events;
};

/* --- wire.c --------------------------------------------------------------------------------------------------------------------------- */

void sim_wire_begin(void);
void sim_wire_end(void);
void sim_link(sim_host *from, sim_host *to, double latency_sec, double bytes_per_sec);
void sim_link_block(sim_host *from, sim_host *to, bool blocked);   /* nothing passes, nobody is told */
bool sim_link_blocked(const sim_host *from, const sim_host *to);
void sim_link_stretch(sim_host *from, sim_host *to, double times); /* delay, with jitter */
void sim_link_reset(sim_host *a, sim_host *b);  /* every connection between them breaks */
void sim_wire_gone(sim_host *h, bool silently); /* its process ended; silently: the machine lost its power, nobody is told */
void sim_wire_back(sim_host *h);                /* it has power again */
void sim_wire_paused(sim_host *h);              /* paused_until was set */

sim_pipe *sim_dial(sim_socket *s, const char *address, int64_t wait_ns); /* the first attempt after so long */
void sim_pump(sim_pipe *p);     /* something is to be sent, or was read */
void sim_hang_up(sim_pipe *p, int linger_ms); /* by the dialling end, for good */
void sim_stop_listening(sim_socket *s);
sim_pipe *sim_pipes(void);
bool sim_lingers(const void *context);
uint32_t sim_queue_most(void);  /* messages that ever stood in one queue */

/* --- sockets.c -------------------------------------------------------------------------------------------------------------------------- */

void sim_sockets_begin(void);
void sim_sockets_drop(sim_host *h);
sim_socket *sim_listener(const char *address);
void sim_event(sim_socket *s, uint16_t event);  /* for its monitor */
void sim_signal(sim_socket *s);                 /* something arrived */
bool sim_socket_fd_ready(int fd, const void **object);

#endif
