#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

enum { FRAME_LIMIT = 1 << 20, SEND_TIMEOUT_MS = 10000, HANDSHAKE_TIMEOUT_S = 30 };

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

void set_nonblocking(int fd)
{
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        fail("Cannot make a socket non-blocking: %s.", strerror(errno));
}

static void set_nodelay(int fd)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        fail("Cannot set TCP_NODELAY: %s.", strerror(errno));
}

int listen_loopback(int *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = loopback(*port);
    socklen_t size = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (void *)&address, size) < 0 || listen(fd, 4096) < 0)
        fail("Cannot listen on 127.0.0.1:%d: %s. Give port 0 to let the kernel choose.", *port, strerror(errno));
    getsockname(fd, (void *)&address, &size);
    *port = ntohs(address.sin_port);
    set_nonblocking(fd);
    return fd;
}

int accept_client(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        set_nodelay(fd);
    else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
        fail("Cannot accept a connection: %s. Raise the limit of open files (ulimit -n).", strerror(errno));
    return fd;
}

int connect_loopback(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(port);
    if (fd < 0)
        fail("Cannot make a socket: %s. Raise the limit of open files (ulimit -n).", strerror(errno));
    if (connect(fd, (void *)&address, sizeof address) < 0)
        fail("Cannot connect to 127.0.0.1:%d: %s. Is the server up?", port, strerror(errno));
    set_nodelay(fd);
    return fd;
}

int websocket_begin(int port, const char *path)
{
    char text[512];
    int fd = connect_loopback(port);
    struct timeval limit = {.tv_sec = HANDSHAKE_TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int size = snprintf(text, sizeof text,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        path, port);
    if (send_all(fd, text, (size_t)size) < 0)
        fail("127.0.0.1:%d closed before the WebSocket request was sent.", port);
    return fd;
}

void websocket_finish(int fd)
{
    char text[4096];
    /* Byte for byte: what follows the answer's empty line is the first frame and must stay in the socket. */
    size_t have = 0;
    while (have < 4 || memcmp(text + have - 4, "\r\n\r\n", 4)) {
        ssize_t got = have + 1 < sizeof text ? recv(fd, text + have, 1, 0) : 0;
        if (got <= 0)
            fail("The server did not answer a WebSocket request within %d s, or closed.", HANDSHAKE_TIMEOUT_S);
        have++;
    }
    text[have] = 0;
    if (!strstr(text, " 101 "))
        fail("The server refused a WebSocket: %.*s.", (int)strcspn(text, "\r\n"), text);
    set_nonblocking(fd);
}

int send_all(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            if (poll(&wait, 1, SEND_TIMEOUT_MS) == 0)
                return -1;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

void need_files(long files)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if ((long)limit.rlim_max < files)
        fail("This needs %ld open files and the hard limit is %ld: raise it (ulimit -Hn).", files,
             (long)limit.rlim_max);
}

size_t request_size(const char *data, size_t size)
{
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    return end ? (size_t)(end - data) + 4 : 0;
}

/* SHA-1 (FIPS 180-4) of at most 119 bytes: two blocks, all that Sec-WebSocket-Accept needs. */
static void sha1_short(const uint8_t *data, size_t size, uint8_t digest[20])
{
    uint8_t blocks[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    size_t total = size < 56 ? 64 : 128;
    memcpy(blocks, data, size);
    blocks[size] = 0x80;
    blocks[total - 2] = (uint8_t)(size * 8 >> 8);
    blocks[total - 1] = (uint8_t)(size * 8);
    for (size_t block = 0; block < total; block += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++) {
            memcpy(&w[i], blocks + block + 4 * i, 4);
            w[i] = ntohl(w[i]);
        }
        for (int i = 16; i < 80; i++) {
            uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
            w[i] = x << 1 | x >> 31;
        }
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                         : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                         : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                  : (b ^ c ^ d) + 0xCA62C1D6;
            uint32_t next = (a << 5 | a >> 27) + f + e + w[i];
            e = d;
            d = c;
            c = b << 30 | b >> 2;
            b = a;
            a = next;
        }
        h[0] += a;
        h[1] += b;
        h[2] += c;
        h[3] += d;
        h[4] += e;
    }
    for (int i = 0; i < 5; i++) {
        uint32_t big = htonl(h[i]);
        memcpy(digest + 4 * i, &big, 4);
    }
}

/* Base64 of a SHA-1: 20 bytes become 28 characters, the last of them a '='. */
static void base64_digest(const uint8_t digest[20], char out[29])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t padded[21] = {0};
    memcpy(padded, digest, 20);
    for (int i = 0; i < 7; i++) {
        uint32_t v = (uint32_t)padded[3 * i] << 16 | (uint32_t)padded[3 * i + 1] << 8 | padded[3 * i + 2];
        for (int k = 0; k < 4; k++)
            out[4 * i + k] = letters[v >> (18 - 6 * k) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

size_t upgrade_answer(const char *request, size_t size, char *out)
{
    static const char field[] = "Sec-WebSocket-Key:", magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t seed[24 + sizeof magic], digest[20];
    char accept[29];
    const char *end = request + size, *key = NULL;
    for (const char *line = request; line && line < end; line = memchr(line, '\n', (size_t)(end - line)), line += !!line)
        if ((size_t)(end - line) > sizeof field && !strncasecmp(line, field, sizeof field - 1))
            key = line + sizeof field - 1;
    while (key && key < end && *key == ' ')
        key++;
    if (!key || end - key < 24)
        return 0;
    memcpy(seed, key, 24);
    memcpy(seed + 24, magic, sizeof magic);
    sha1_short(seed, 24 + sizeof magic - 1, digest);
    base64_digest(digest, accept);
    return (size_t)snprintf(out, 256,
                            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Accept: %s\r\n\r\n",
                            accept);
}

size_t frame_header(uint8_t *out, int opcode, size_t payload)
{
    out[0] = (uint8_t)(0x80 | opcode);
    if (payload < 126) {
        out[1] = (uint8_t)payload;
        return 2;
    }
    if (payload < 65536) {
        out[1] = 126;
        out[2] = (uint8_t)(payload >> 8);
        out[3] = (uint8_t)payload;
        return 4;
    }
    out[1] = 127;
    for (int i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)(payload >> (56 - 8 * i));
    return 10;
}

size_t masked_frame(uint8_t *out, int opcode, const void *payload, size_t size)
{
    static const uint8_t mask[4] = {0x3d, 0x91, 0xa7, 0x5c};
    const uint8_t *from = payload;
    size_t header = frame_header(out, opcode, size);
    out[1] |= 0x80;
    memcpy(out + header, mask, 4);
    for (size_t i = 0; i < size; i++)
        out[header + 4 + i] = from[i] ^ mask[i & 3];
    return header + 4 + size;
}

ssize_t parse_frame(uint8_t *data, size_t size, struct frame *frame)
{
    if (size < 2)
        return 0;
    int opcode = data[0] & 15;
    if ((data[0] & 0xF0) != 0x80 || !(opcode == OP_TEXT || opcode == OP_BINARY || (opcode >= OP_CLOSE && opcode <= OP_PONG)))
        return -1;
    size_t header = 2, payload = data[1] & 127, masked = data[1] & 128 ? 4 : 0;
    if (payload == 126) {
        if (size < 4)
            return 0;
        payload = (size_t)data[2] << 8 | data[3];
        header = 4;
    } else if (payload == 127) {
        if (size < 10)
            return 0;
        payload = 0;
        for (int i = 0; i < 8; i++)
            payload = payload << 8 | data[2 + i];
        header = 10;
    }
    if (payload > FRAME_LIMIT)
        return -1;
    if (size < header + masked + payload)
        return 0;
    frame->opcode = opcode;
    frame->payload = data + header + masked;
    frame->size = payload;
    if (masked)
        for (size_t i = 0; i < payload; i++)
            frame->payload[i] ^= data[header + (i & 3)];
    return (ssize_t)(header + masked + payload);
}

uint32_t crc32_of(const uint8_t *data, size_t size)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? 0xEDB88320 ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++)
        crc = table[(crc ^ data[i]) & 255] ^ crc >> 8;
    return ~crc;
}

void one_record(uint8_t *out, uint16_t symbol_id, int64_t stamp_ns)
{
    uint16_t count = 1;
    double price = (double)stamp_ns / 1e9, volume = 1;
    memcpy(out + 4, &count, 2);
    memcpy(out + 6, &symbol_id, 2);
    memcpy(out + 8, &price, 8);
    memcpy(out + 16, &volume, 8);
    uint32_t crc = crc32_of(out + 4, ONE_RECORD - 4);
    memcpy(out, &crc, 4);
}
