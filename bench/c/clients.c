/* clients PROTOCOL PORT CLIENTS EACH SYMBOLS NAP PID: the load of the bench.
 *
 * PROTOCOL  `tradeback` (WebSocket, v1 batches) or `nats` (NATS' own protocol, each message a v1 batch)
 * EACH      symbols a client subscribes to, out of SYMBOLS, starting at another one for each client; 0 sends no
 *           subscription: for the raw servers of the bench, which send to everybody
 * NAP       microseconds to sleep between two sweeps, so that a read finds several frames: for throughput alone,
 *           since it delays what is received; 0 waits in epoll
 * PID       the server, whose CPU time is taken over the same window; 0 for none
 *
 * When all are connected and subscribed it prints {"ready":CLIENTS} and obeys its standard input:
 *   measure SECONDS   receives for so long and prints one line of JSON
 *   stall COUNT       stops reading the first COUNT clients for good, with small receive buffers from now on
 *   unread            prints how many bytes wait in the sockets of the stalled clients
 *   end of input      the program ends, as it does by itself after 10 minutes
 *
 * Every frame's structure is checked, every 64th one's CRC, and that each record is of a symbol its client asked for.
 * A record's age is the time of reading minus its price, which is the moment of its sending (market.h). One thread;
 * all memory belongs to it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "market.h"
#include "measure.h"
#include "peer.h"
#include "wire.h"

enum {
    EVENTS = 1024,
    CRC_EVERY = 64,
    HANDSHAKES = 64,
    READY_TIMEOUT_S = 120,
    LIFE_S = 600
};

struct client {
    struct peer peer;
    int first_symbol;
    int subscribed;
};

/* What one window of measuring counts. */
struct window {
    uint64_t updates;   /* records with a volume above zero */
    uint64_t snapshots; /* records with volume 0: the price on subscribing */
    double trades;      /* the sum of volumes: every trade's quantity is 1 */
    uint64_t frames, reads, bytes, closed;
    struct histogram age;
};

static struct {
    int nats, port, count, each, symbols, nap_us, pid;
    int epoll, subscribed, stalled;
    struct client *clients;
    uint16_t symbol_of[65536]; /* wire id -> symbol + 1; 0 where the server did not name it */
    struct window window;
    int64_t read_ns; /* when what is being handled was read */
} load;

/* Checks and counts one v1 batch. */
static void on_batch(struct peer *p, const uint8_t *batch, size_t size)
{
    struct client *c = (struct client *)p;
    int count = peer_batch(p, batch, size, load.window.frames++ % CRC_EVERY == 0);
    for (int i = 0; i < count; i++) {
        struct record r = batch_record(batch, i);
        if (load.each && !load.nats) {
            int place = load.symbol_of[r.id] - 1 - c->first_symbol;
            place += place < 0 ? load.symbols : 0;
            if (!load.symbol_of[r.id] || place >= load.each)
                fail("Client %d got a record of id %d, to which it did not subscribe.", p->number, r.id);
        }
        if (r.volume == 0) {
            load.window.snapshots++;
            continue;
        }
        load.window.updates++;
        load.window.trades += r.volume;
        histogram_add(&load.window.age, load.read_ns - (int64_t)(r.price * 1e9));
    }
}

/* Learns the ids out of {"type":"subscribed","symbols":[{"symbol":"B0001USDT","id":1},...]}; an error ends the run. */
static void on_text(struct peer *p, const char *text)
{
    struct client *c = (struct client *)p;
    if (strstr(text, "\"error\""))
        fail("The server answered client %d: %s", c->peer.number, text);
    if (!strstr(text, "\"subscribed\""))
        return;
    for (const char *at = text; (at = strstr(at, "\"symbol\":\"B")); at++) {
        unsigned symbol, id;
        const char *id_at = strstr(at, "\"id\":");
        if (!id_at || sscanf(at + 11, "%4u", &symbol) != 1 || sscanf(id_at + 5, "%u", &id) != 1 || id > 65535)
            fail("Cannot read the server's answer to subscribing: %s", text);
        load.symbol_of[id] = (uint16_t)(symbol + 1);
    }
    load.subscribed += !c->subscribed;
    c->subscribed = 1;
}

/* Handles NATS' lines and the payloads that follow `MSG subject sid size`; returns how many bytes they took. */
static size_t on_nats(struct peer *p, uint8_t *data, size_t size)
{
    struct client *c = (struct client *)p;
    size_t at = 0;
    uint8_t *newline;
    while ((newline = memchr(data + at, '\n', size - at))) {
        uint8_t *line = data + at, *size_at = newline - 1;
        size_t used = (size_t)(newline + 1 - data);
        if (newline - line >= 8 && !memcmp(line, "MSG ", 4)) {
            size_t payload = 0;
            while (size_at > line && size_at[-1] != ' ')
                size_at--;
            for (; *size_at >= '0' && *size_at <= '9'; size_at++)
                payload = payload * 10 + (size_t)(*size_at - '0');
            if (size < used + payload + 2)
                break;
            on_batch(p, data + used, payload);
            used += payload + 2;
        } else if (!memcmp(line, "PING", 4)) {
            send_all(c->peer.fd, "PONG\r\n", 6);
        } else if (!memcmp(line, "PONG", 4)) {
            load.subscribed += !c->subscribed;
            c->subscribed = 1;
        } else if (*line == '-') {
            fail("NATS answered client %d: %.*s", c->peer.number, (int)(newline - line), (char *)line);
        }
        at = used;
    }
    return at;
}

static size_t on_data(struct peer *p, uint8_t *data, size_t size)
{
    load.read_ns = monotonic_ns();
    return load.nats ? on_nats(p, data, size) : peer_frames(p, data, size, on_batch, on_text);
}

static void on_readable(struct client *c)
{
    ssize_t got = peer_read(&c->peer, on_data);
    load.window.closed += got < 0;
    load.window.reads += got > 0;
    load.window.bytes += got > 0 ? (uint64_t)got : 0;
}

/* Reads whoever is readable; waits at most `wait_ms`. Returns 1 where standard input has something too. */
static int sweep(int wait_ms)
{
    struct epoll_event events[EVENTS];
    int commanded = 0;
    if (load.nap_us && wait_ms) {
        struct timespec nap = {.tv_nsec = load.nap_us * 1000L};
        nanosleep(&nap, NULL);
    }
    int count = epoll_wait(load.epoll, events, EVENTS, wait_ms);
    for (int i = 0; i < count; i++) {
        struct client *c = events[i].data.ptr;
        if (!c)
            commanded = 1;
        else if (c->peer.fd >= 0)
            on_readable(c);
    }
    return commanded;
}

/* Writes the command that subscribes client c into `out`; returns its size. */
static size_t subscription(const struct client *c, char *out, size_t room)
{
    FILE *f = fmemopen(out, room, "w");
    if (!f)
        fail("No memory for a subscription.");
    if (load.nats) {
        fputs("CONNECT {\"verbose\":false,\"pedantic\":false}\r\n", f);
        if (load.each == load.symbols)
            fputs("SUB t.* 1\r\n", f);
        for (int i = 0; i < load.each && load.each < load.symbols; i++)
            fprintf(f, "SUB t.%04d %d\r\n", (c->first_symbol + i) % load.symbols, i + 1);
        fputs("PING\r\n", f);
    } else {
        fputs("{\"type\":\"subscribe\",\"symbols\":[", f);
        for (int i = 0; i < load.each; i++)
            fprintf(f, "%s\"B%04dUSDT\"", i ? "," : "", (c->first_symbol + i) % load.symbols);
        fputs("]}", f);
    }
    long size = ftell(f);
    fclose(f);
    return (size_t)size;
}

/* Finishes the handshake of client c, subscribes it and has epoll watch it. */
static void open_client(struct client *c)
{
    static char text[1 << 17];
    static uint8_t frame[sizeof text + FRAME_HEADER_MAX];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (load.nats)
        set_nonblocking(c->peer.fd);
    else
        websocket_finish(c->peer.fd);
    if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->peer.fd, &event) < 0)
        fail("Cannot watch client %d: %s.", c->peer.number, strerror(errno));
    if (!load.each && !load.nats)
        return;
    size_t size = subscription(c, text, sizeof text);
    const void *data = load.nats ? (void *)text : frame;
    if (send_all(c->peer.fd, data, load.nats ? size : masked_frame(frame, OP_TEXT, text, size)) < 0)
        fail("The server closed client %d while it subscribed.", c->peer.number);
}

/* Connects everybody, HANDSHAKES at a time, and waits until the server has confirmed all subscriptions. */
static void connect_all(void)
{
    int64_t end = monotonic_ns() + READY_TIMEOUT_S * 1000000000ll;
    for (int from = 0, until; from < load.count; from = until) {
        until = from + HANDSHAKES < load.count ? from + HANDSHAKES : load.count;
        for (int i = from; i < until; i++) {
            load.clients[i].peer.number = i;
            load.clients[i].first_symbol = i * 7 % load.symbols;
            load.clients[i].peer.fd = load.nats ? connect_loopback(load.port) : websocket_begin(load.port, "/api/v1/ws");
        }
        for (int i = from; i < until; i++)
            open_client(&load.clients[i]);
        sweep(0);
    }
    while ((load.each || load.nats) && load.subscribed < load.count) {
        sweep(100);
        if (monotonic_ns() > end)
            fail("Only %d of %d clients were told that they are subscribed within %d s.", load.subscribed, load.count,
                 READY_TIMEOUT_S);
    }
}

static void measure(double seconds)
{
    memset(&load.window, 0, sizeof load.window);
    int64_t start = monotonic_ns(), end = start + (int64_t)(seconds * 1e9), now;
    int64_t own = cpu_ns(getpid()), server = cpu_ns(load.pid);
    do
        sweep(10);
    while ((now = monotonic_ns()) < end);
    const struct window *w = &load.window;
    printf("{\"seconds\":%.6f,\"updates\":%llu,\"trades\":%.0f,\"snapshots\":%llu,\"frames\":%llu,\"reads\":%llu,"
           "\"bytes\":%llu,\"closed\":%llu,\"cpu\":%.3f,\"server_cpu\":%.3f,",
           (double)(now - start) / 1e9, (unsigned long long)w->updates, w->trades, (unsigned long long)w->snapshots,
           (unsigned long long)w->frames, (unsigned long long)w->reads, (unsigned long long)w->bytes,
           (unsigned long long)w->closed, (double)(cpu_ns(getpid()) - own) / (double)(now - start),
           (double)(cpu_ns(load.pid) - server) / (double)(now - start));
    histogram_print(&w->age, "age");
    puts("}");
}

static void stall(int count)
{
    for (; load.stalled < count; load.stalled++) {
        int fd = load.clients[load.stalled].peer.fd, small = 1; /* the kernel raises it to its least */
        if (fd < 0)
            continue;
        epoll_ctl(load.epoll, EPOLL_CTL_DEL, fd, NULL);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    printf("{\"stalled\":%d}\n", load.stalled);
}

static void unread(void)
{
    long total = 0;
    for (int i = 0, waiting; i < load.stalled; i++)
        if (load.clients[i].peer.fd >= 0 && ioctl(load.clients[i].peer.fd, FIONREAD, &waiting) == 0)
            total += waiting;
    printf("{\"unread\":%ld}\n", total);
}

int main(int argc, char **argv)
{
    if (argc != 8 || (strcmp(argv[1], "tradeback") && strcmp(argv[1], "nats")))
        fail("usage: clients tradeback|nats PORT CLIENTS EACH SYMBOLS NAP PID");
    load.nats = !strcmp(argv[1], "nats");
    load.port = (int)number(argv[2], "PORT", 1, 65535);
    load.count = (int)number(argv[3], "CLIENTS", 1, 100000);
    load.symbols = (int)number(argv[5], "SYMBOLS", 1, SYMBOLS_MAX);
    load.each = (int)number(argv[4], "EACH", 0, load.symbols);
    load.nap_us = (int)number(argv[6], "NAP", 0, 999999);
    load.pid = (int)number(argv[7], "PID", 0, 1 << 22);
    need_files(load.count + 64);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    load.clients = calloc((size_t)load.count, sizeof *load.clients);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!load.clients || load.epoll < 0)
        fail("Cannot set up %d clients: %s.", load.count, strerror(errno));
    connect_all();
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        fail("Standard input must be a pipe or a terminal: %s.", strerror(errno));
    printf("{\"ready\":%d}\n", load.count);
    int64_t end = monotonic_ns() + LIFE_S * 1000000000ll;
    while (monotonic_ns() < end) {
        char line[128];
        if (!sweep(100))
            continue;
        if (!fgets(line, sizeof line, stdin))
            return 0;
        if (!strncmp(line, "measure ", 8))
            measure(fraction(line + 8, "the time to measure", 0.01, 300));
        else if (!strncmp(line, "stall ", 6))
            stall((int)number(line + 6, "the clients to stall", 0, load.count));
        else if (!strcmp(line, "unread\n"))
            unread();
        else
            fail("clients does not know the command '%s': use `measure SECONDS`, `stall COUNT` or `unread`.", line);
    }
    fail("clients was left running for %d s and ends itself.", LIFE_S);
}
