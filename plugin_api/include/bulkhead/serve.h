/* How the workers of a cluster get connections: what a plugin follows that wants to serve a port. Plain C11.
 *
 * The plugin has a method
 *     "(handle control, handle table, handle doorbell, map<str,str> settings) -> nil"
 * named BULKHEAD_SERVE_METHOD. The host calls it once in each worker; the call lasts for as long as the worker serves.
 *
 *   control   a Unix socket, SOCK_SEQPACKET, on which the host sends messages and reads nothing. A message is one
 *             bulkhead_serve_message, with a descriptor where that is said. End of file: the host is gone.
 *   table     memory to map shared, for reading and writing: a bulkhead_serve_table, then `slots` words of 64 bits. In it
 *             the worker keeps what the host must know of each connection even if the worker dies the next moment.
 *   doorbell  an eventfd. Adding 1 to it has the host look at the table.
 *   settings  what the application passes on, and "pid": the worker's, as the host sees it.
 *
 * A connection has a slot in the table. Its word is (generation << 32 | state). The worker says
 *   BUSY      before it reads from the connection: from there on what the client sends may be lost with the worker;
 *   IDLE      when all that was read has been answered, and the answer has been given to the kernel: should the worker
 *             die now, the host passes the connection to another;
 *   RETURNED  to give it back, when idle: it closes its descriptor without shutdown(), and rings the doorbell;
 *   DONE      when it has ended: then shutdown(SHUT_RDWR), for the host holds a duplicate, and close(). The host may use
 *             the slot for another connection at once.
 * All words are stored with release order. Where a worker accepts for itself (LISTENER), it chooses the slots, any whose
 * state is neither BUSY nor IDLE, and counts their generations up. */
#ifndef BULKHEAD_SERVE_H
#define BULKHEAD_SERVE_H

#include <stdint.h>

/* The method's name. */
#define BULKHEAD_SERVE_METHOD "serve"
/* Of what is said here; raised when any of it changes. */
#define BULKHEAD_SERVE_VERSION 1u

/* What the host sends on the control socket. */
typedef struct bulkhead_serve_message {
  uint32_t type;            /* one of those below; others are to be ignored */
  uint32_t slot;            /* CONNECTION */
  uint32_t generation;      /* CONNECTION */
  uint32_t value;           /* DRAIN, END: milliseconds; PING: what to store */
} bulkhead_serve_message_t; /* see struct bulkhead_serve_message */

#define BULKHEAD_SERVE_LISTENER 1u   /* + descriptor, a listening socket that does not block: accept on it */
#define BULKHEAD_SERVE_CONNECTION 2u /* + descriptor: serve it, or say RETURNED at once to refuse it */
#define BULKHEAD_SERVE_DRAIN \
  3u                           /* close the listener, return or end every connection as soon as it is idle, then \
                                       answer the call; all within `value` milliseconds */
#define BULKHEAD_SERVE_END 4u  /* as DRAIN, but nobody takes returned connections any more: end them */
#define BULKHEAD_SERVE_PING 5u /* store `value` into the table's `pong`; a worker that is silent is killed as hung */
#define BULKHEAD_SERVE_PUBLISHED \
  6u /* something that the plugin may read has been published or withdrawn since the last one of these: what it \
        has opened before may be old. BULKHEAD_PUBLISHED (bulkhead/plugin.h) opens the new version. */

/* The memory that both see. The slots' words follow it. */
typedef struct bulkhead_serve_table {
  uint32_t version; /* BULKHEAD_SERVE_VERSION */
  uint32_t slots;   /* how many connections there can be */
  /* The worker's, stored atomically. */
  uint32_t serving;       /* 1, and a ring, once it takes connections */
  uint32_t pong;          /* the value of the last PING */
  uint64_t requests;      /* answered */
  uint64_t accepted;      /* by itself, on a LISTENER */
  uint64_t unused[4];     /* 0 */
} bulkhead_serve_table_t; /* see struct bulkhead_serve_table */

#define BULKHEAD_SERVE_PASSED 1u   /* the host's: on its way to the worker */
#define BULKHEAD_SERVE_IDLE 2u     /* the worker's: no request is in progress */
#define BULKHEAD_SERVE_BUSY 3u     /* the worker's: what the client sends may be lost with it */
#define BULKHEAD_SERVE_RETURNED 4u /* the worker's: for another worker to serve */
#define BULKHEAD_SERVE_DONE 5u     /* the worker's: it has ended */

#endif
