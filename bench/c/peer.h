/* The receiving side of one client: reading, whole frames, v1 batches. What is wrong with them ends the program. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "wire.h"

enum {
    PEER_RECEIVE = 1 << 18,
    PEER_REST_MAX = 1 << 17 /* of a client: less than one frame or message stays between two reads */
};

/* The first member of a program's client. `number` is its place, for sentences. */
struct peer {
    int fd; /* -1: closed */
    int number;
    uint32_t rest_size; /* of a frame that is not whole yet */
    uint8_t *rest;
};

struct record {
    uint16_t id;
    double price, volume;
};

/* Reads what waits, once, and hands all that is not taken yet to `take`, which returns how many bytes it took.
 * Returns how many were read; 0: nothing waits; -1: the peer has gone, and its socket is closed. */
ssize_t peer_read(struct peer *p, size_t (*take)(struct peer *p, uint8_t *data, size_t size));

/* Hands the whole WebSocket frames in `data` on, answers pings, and returns how many bytes they took. */
size_t peer_frames(struct peer *p, uint8_t *data, size_t size,
                   void (*on_batch)(struct peer *p, const uint8_t *batch, size_t size),
                   void (*on_text)(struct peer *p, const char *text));

/* Checks the structure of a v1 batch, and its CRC where `with_crc`; returns how many records it has. */
int peer_batch(const struct peer *p, const uint8_t *batch, size_t size, int with_crc);

/* A record of a batch that was checked. */
static inline struct record batch_record(const uint8_t *batch, int place)
{
    const uint8_t *at = batch + BATCH_HEADER + place * BATCH_RECORD;
    struct record r;
    memcpy(&r.id, at, 2);
    memcpy(&r.price, at + 2, 8);
    memcpy(&r.volume, at + 10, 8);
    return r;
}

#endif
