/* Sockets on loopback, and as much of WebSocket (RFC 6455) and of the v1 frame as the bench needs. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    OP_TEXT = 1,
    OP_BINARY = 2,
    OP_CLOSE = 8,
    OP_PING = 9,
    OP_PONG = 10,
    FRAME_HEADER_MAX = 14,   /* 2 + 8 bytes of length + 4 of mask */
    BATCH_HEADER = 6,        /* v1: CRC32 u32, count u16 */
    BATCH_RECORD = 18,       /* v1: symbol_id u16, price f64, volume f64 */
    BATCH_RECORDS_MAX = 50,
    ONE_RECORD = BATCH_HEADER + BATCH_RECORD
};

/* A listening socket on 127.0.0.1, non-blocking. Port 0 lets the kernel choose; *port is the one it got. */
int listen_loopback(int *port);

/* A non-blocking connection accepted from `listener` with TCP_NODELAY on, or -1 when none waits. */
int accept_client(int listener);

/* A blocking connection to 127.0.0.1:port with TCP_NODELAY on. */
int connect_loopback(int port);

void set_nonblocking(int fd);

/* Connects and asks for a WebSocket. The server may take its time: websocket_finish waits for the answer. */
int websocket_begin(int port, const char *path);

/* Reads the answer of the server; non-blocking from then on. Nothing behind the answer is swallowed. */
void websocket_finish(int fd);

/* Sends everything, waiting (at most 10 s) where the socket is full. 0, or -1 where the peer is gone. */
int send_all(int fd, const void *data, size_t size);

/* Raises the limit of open files to its hard limit and fails where that is below `files`. */
void need_files(long files);

/* Where a request's headers end: the bytes up to and with the empty line, or 0 while it is incomplete. */
size_t request_size(const char *data, size_t size);

/* Writes the 101 answer to the upgrade request in `request` into `out` (256 bytes) and returns its size;
 * 0 where the request asks for no WebSocket. */
size_t upgrade_answer(const char *request, size_t size, char *out);

/* Writes the header of an unmasked final frame into `out` (10 bytes) and returns its size. */
size_t frame_header(uint8_t *out, int opcode, size_t payload);

/* Writes a whole masked frame, as a client must send it, into `out` (payload + 14 bytes); returns its size. */
size_t masked_frame(uint8_t *out, int opcode, const void *payload, size_t size);

struct frame {
    int opcode;
    uint8_t *payload; /* points into the parsed bytes */
    size_t size;
};

/* Parses one frame at `data` and unmasks it in place. Returns the bytes it takes, 0 while it is incomplete,
 * -1 where it is none: fragmented, a reserved bit or opcode, or larger than 1 MiB. */
ssize_t parse_frame(uint8_t *data, size_t size, struct frame *frame);

/* zlib's CRC-32. */
uint32_t crc32_of(const uint8_t *data, size_t size);

/* A v1 batch of one record: 24 bytes. The price is `stamp_ns` in seconds, the volume 1. */
void one_record(uint8_t *out, uint16_t symbol_id, int64_t stamp_ns);

#endif
