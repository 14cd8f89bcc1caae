#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

ssize_t peer_read(struct peer *p, size_t (*take)(struct peer *p, uint8_t *data, size_t size))
{
    static uint8_t received[PEER_RECEIVE + PEER_REST_MAX];
    if (p->rest_size)
        memcpy(received, p->rest, p->rest_size);
    ssize_t got = recv(p->fd, received + p->rest_size, PEER_RECEIVE, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        close(p->fd); /* epoll forgets it */
        p->fd = -1;
        return -1;
    }
    size_t size = p->rest_size + (size_t)got;
    size_t took = take(p, received, size), rest = size - took;
    if (rest > PEER_REST_MAX)
        fail("Client %d got a message longer than %d bytes.", p->number, PEER_REST_MAX);
    if (rest > p->rest_size && !(p->rest = realloc(p->rest, rest)))
        fail("No memory for the rest of a frame.");
    if (rest) {
        memcpy(p->rest, received + took, rest);
    } else {
        free(p->rest);
        p->rest = NULL;
    }
    p->rest_size = (uint32_t)rest;
    return got;
}

size_t peer_frames(struct peer *p, uint8_t *data, size_t size,
                   void (*on_batch)(struct peer *p, const uint8_t *batch, size_t size),
                   void (*on_text)(struct peer *p, const char *text))
{
    size_t at = 0;
    struct frame frame;
    ssize_t took;
    while ((took = parse_frame(data + at, size - at, &frame)) > 0) {
        uint8_t pong[256];
        if (frame.opcode == OP_BINARY) {
            on_batch(p, frame.payload, frame.size);
        } else if (frame.opcode == OP_TEXT) {
            char *text = strndup((char *)frame.payload, frame.size);
            if (!text)
                fail("No memory for an answer.");
            on_text(p, text);
            free(text);
        } else if (frame.opcode == OP_PING && frame.size <= 125) {
            send_all(p->fd, pong, masked_frame(pong, OP_PONG, frame.payload, frame.size));
        }
        at += (size_t)took;
    }
    if (took < 0)
        fail("Client %d got bytes that are no WebSocket frame.", p->number);
    return at;
}

int peer_batch(const struct peer *p, const uint8_t *batch, size_t size, int with_crc)
{
    uint16_t count;
    uint32_t crc;
    if (size < BATCH_HEADER)
        fail("Client %d got a batch of %zu bytes: a v1 batch has at least 6.", p->number, size);
    memcpy(&crc, batch, 4);
    memcpy(&count, batch + 4, 2);
    if (count < 1 || count > BATCH_RECORDS_MAX || size != BATCH_HEADER + (size_t)count * BATCH_RECORD)
        fail("Client %d got a batch of %zu bytes that claims %d records.", p->number, size, count);
    if (with_crc && crc != crc32_of(batch + 4, size - 4))
        fail("Client %d got a batch of %d records with a wrong CRC.", p->number, count);
    return count;
}
