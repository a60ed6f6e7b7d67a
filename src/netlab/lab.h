/* netlab/lab.h - a network in a box: network namespaces whose directed links have a delay, rate, loss and outage of their own.
 *
 *   dil__lab_spec_load("lab.json", &spec, err);  dil__lab_start(&spec, "demo", true, &lab, err);
 *   fork, dil__lab_enter(lab, node, err), exec ...   dil__lab_set(lab, &change, err);   dil__lab_stop(lab);
 *
 * Every node is an unnamed network namespace with one TUN device; one child process, the switch, holds them all and moves the
 * packets. Nothing of it can be left behind: devices and namespaces end with the descriptors of the process that holds them.
 * Needs root and /dev/net/tun (dil__lab_available says why not). For tests, benchmarks and the demo; not a simulator of TCP:
 * real kernels talk over it. Cost: tools/netlab --help. */
#ifndef DIL_NETLAB_LAB_H
#define DIL_NETLAB_LAB_H

#include <dilemma/base.h>

#define DIL_LAB_NODES_MAX 64
#define DIL_LAB_NAME_MAX 32
#define DIL_LAB_DELAY_MAX_SEC 60.0
#define DIL_LAB_QUEUE_MAX (256u << 20)  /* bytes waiting on one link */
#define DIL_LAB_HELD_MAX (1024u << 20)  /* bytes inside the switch, queued or on their way */
#define DIL_LAB_COMMAND_MAX 512

typedef struct dil__lab_link {
    double delay_sec;           /* one way */
    double rate_bytes_per_sec;  /* 0: not limited */
    double loss;                /* probability that a packet is lost, [0,1] */
    uint64_t queue_bytes;       /* drop-tail queue before the link; 0: 50 ms at its rate, at least 256 KiB */
    bool down;
} dil__lab_link;

typedef struct dil__lab_spec {
    uint32_t n_nodes, mtu;
    uint64_t seed;
    char name[DIL_LAB_NODES_MAX][DIL_LAB_NAME_MAX];
    dil__lab_link link[DIL_LAB_NODES_MAX][DIL_LAB_NODES_MAX]; /* [from][to]; the diagonal is not used */
} dil__lab_spec;

/* {"nodes": ["a", "b"], "mtu": 1500, "seed": 1, "default": LINK, "links": [{"from": "a", "to": "b", LINK…}]} where LINK is
 * {"delay_ms", "rate_mbit", "loss", "queue_bytes", "down"}, and "both": true sets the opposite direction as well. */
dil_status dil__lab_spec_parse(const char *what, const char *text, size_t len, dil__lab_spec *out, dil_err *err);
dil_status dil__lab_spec_load(const char *path, dil__lab_spec *out, dil_err *err);
int dil__lab_spec_node(const dil__lab_spec *s, const char *name); /* -1 */
void dil__lab_spec_init(dil__lab_spec *s);

/* Applies one word to a link: delay=20ms rate=100mbit loss=1% queue=1MiB down up. */
dil_status dil__lab_link_word(dil__lab_link *l, const char *word, dil_err *err);
/* "10.77.0.2" of node 1. */
const char *dil__lab_address(uint32_t node, char out[16]);

typedef struct dil__lab dil__lab;

/* Whether this process may make one; the reason in why. Makes and drops a namespace and a device to find out. */
bool dil__lab_available(dil_err *why);
/* Starts the switch in a child process and returns when it carries packets. `name`: of its control socket, unique on this
 * machine. owned: the switch ends with the calling *thread's* process (tests, demo); else it is a daemon (`netlab up`).
 * Call before the program starts threads. */
dil_status dil__lab_start(const dil__lab_spec *spec, const char *name, bool owned, dil__lab **out, dil_err *err);
void dil__lab_stop(dil__lab *lab); /* ends the switch of dil__lab_start and waits for it */
/* Moves the calling thread (and what it starts from here on) into the node's namespace. */
dil_status dil__lab_enter(dil__lab *lab, uint32_t node, dil_err *err);
dil_status dil__lab_leave(dil__lab *lab, dil_err *err); /* back to where dil__lab_start was called */
int dil__lab_pid(const dil__lab *lab);

/* One command to a running lab by name ("set a b delay=5ms", "show", "quit", "enter a"), the answer's text into out. */
dil_status dil__lab_command(const char *name, const char *command, dil_buf *out, dil_err *err);
dil_status dil__lab_only_name(char out[DIL_LAB_NAME_MAX * 2], dil_err *err); /* the one lab that runs; an error if none or several */
const char *dil__lab_socket_path(const char *name, char out[108]);
#define DIL_LAB_DIR "/run/dilemma-netlab"
#define DIL_LAB_ENV "DILEMMA_NETLAB" /* set by `netlab exec`: marks the processes that `down` ends */

/* The switch itself: forwards between the devices until told to quit. tun [n_nodes], ns [n_nodes] descriptors are its own. */
dil_status dil__lab_switch(const dil__lab_spec *spec, const int *tun, const int *ns, int control, int quit_signals, dil_err *err);
/* Whether the kernel may hand over segmented super-packets of up to 64 KiB (fast) or must cut them (exact loss). */
bool dil__lab_tun_offload(int tun, bool on);

#endif
