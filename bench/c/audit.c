/* audit PORT CLIENTS SYMBOL...: clients that check everything and add up what they were told.
 *
 * Each client subscribes to all symbols. Checked of every frame: its structure, its CRC, and that its client was told
 * each id before. Kept for each client and symbol: the sum of volumes and the last price. When all are subscribed it
 * prints {"ready":CLIENTS} and obeys its standard input:
 *   quiet MS      goes on until nothing came for so long, then prints {"quiet":MS}
 *   stall COUNT   stops reading the first COUNT clients, whose receive buffers are small
 *   resume        reads them again
 *   report        prints {"clients":..,"closed":..,"frames":..,"records":..,"symbols":{"BTCUSDT":{"sums":[..],
 *                 "prices":[..]}}}, a number a client, sums with 12 decimals
 *   end of input  the program ends, as it does by itself after 30 minutes
 * Whatever is wrong ends it at once with a sentence and code 1. One thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"
#include "peer.h"
#include "wire.h"

enum {
    EVENTS = 512,
    SMALL_BUFFER = 4096,
    READY_TIMEOUT_S = 60,
    QUIET_TIMEOUT_S = 120,
    LIFE_S = 1800,
    IDS = 65536
};

struct client {
    struct peer peer;
    int told; /* symbols whose id it was told */
    uint8_t *knows; /* IDS bits */
    long double *sums;
    double *prices;
};

static struct {
    int count, symbols, epoll, stalled, closed;
    char **names;
    struct client *clients;
    int symbol_of[IDS]; /* id -> place in names + 1 */
    uint64_t frames, records;
    int64_t last_ns;
} audit;

static void on_batch(struct peer *p, const uint8_t *batch, size_t size)
{
    struct client *c = (struct client *)p;
    int count = peer_batch(p, batch, size, 1);
    audit.frames++;
    audit.records += (uint64_t)count;
    for (int i = 0; i < count; i++) {
        struct record r = batch_record(batch, i);
        if (!(c->knows[r.id / 8] & 1 << r.id % 8))
            fail("Client %d got a record of id %d before it was told that id.", p->number, r.id);
        if (!(r.price > 0) || !(r.volume >= 0))
            fail("Client %d got price %g and volume %g for id %d.", p->number, r.price, r.volume, r.id);
        c->sums[audit.symbol_of[r.id] - 1] += r.volume;
        c->prices[audit.symbol_of[r.id] - 1] = r.price;
    }
}

static int place_of(const char *name, size_t size)
{
    for (int i = 0; i < audit.symbols; i++)
        if (strlen(audit.names[i]) == size && !memcmp(audit.names[i], name, size))
            return i;
    return -1;
}

/* Learns the ids out of {"type":"subscribed","symbols":[{"symbol":"BTCUSDT","id":1},...]}; an error ends the run. */
static void on_text(struct peer *p, const char *text)
{
    struct client *c = (struct client *)p;
    if (strstr(text, "\"type\":\"error\""))
        fail("The server answered client %d: %s", c->peer.number, text);
    if (!strstr(text, "\"type\":\"subscribed\""))
        return;
    for (const char *at = text; (at = strstr(at, "\"symbol\":\"")); at++) {
        const char *name = at + 10, *end = strchr(name, '"');
        const char *id_at = end ? strstr(end, "\"id\":") : NULL;
        unsigned id;
        int place = end ? place_of(name, (size_t)(end - name)) : -1;
        if (!id_at || sscanf(id_at + 5, "%u", &id) != 1 || id >= IDS || place < 0)
            fail("Client %d cannot read the answer to subscribing: %s", c->peer.number, text);
        if (audit.symbol_of[id] && audit.symbol_of[id] != place + 1)
            fail("The id %u was given to %s and to %s.", id, audit.names[audit.symbol_of[id] - 1], audit.names[place]);
        audit.symbol_of[id] = place + 1;
        c->told += !(c->knows[id / 8] & 1 << id % 8);
        c->knows[id / 8] |= (uint8_t)(1 << id % 8);
    }
}

static size_t on_frames(struct peer *p, uint8_t *data, size_t size)
{
    return peer_frames(p, data, size, on_batch, on_text);
}

static void on_readable(struct client *c)
{
    ssize_t got = peer_read(&c->peer, on_frames);
    if (got > 0)
        audit.last_ns = monotonic_ns();
    audit.closed += got < 0;
}

/* Reads whoever is readable; waits at most `wait_ms`. Returns 1 where standard input has something too. */
static int sweep(int wait_ms)
{
    struct epoll_event events[EVENTS];
    int commanded = 0;
    int count = epoll_wait(audit.epoll, events, EVENTS, wait_ms);
    for (int i = 0; i < count; i++) {
        struct client *c = events[i].data.ptr;
        if (!c)
            commanded = 1;
        else if (c->peer.fd >= 0)
            on_readable(c);
    }
    return commanded;
}

static void watch(struct client *c, int operation)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(audit.epoll, operation, c->peer.fd, &event) < 0)
        fail("Cannot watch client %d: %s.", c->peer.number, strerror(errno));
}

static void connect_all(int port)
{
    char *text = NULL;
    size_t size = 0;
    FILE *command = open_memstream(&text, &size);
    fputs("{\"type\":\"subscribe\",\"symbols\":[", command);
    for (int i = 0; i < audit.symbols; i++)
        fprintf(command, "%s\"%s\"", i ? "," : "", audit.names[i]);
    fputs("]}", command);
    fclose(command);
    uint8_t *frame = malloc(size + FRAME_HEADER_MAX);
    int64_t end = monotonic_ns() + READY_TIMEOUT_S * 1000000000ll;
    int told = 0;
    for (int i = 0; i < audit.count; i++) {
        struct client *c = &audit.clients[i];
        c->knows = calloc(IDS / 8, 1);
        c->sums = calloc((size_t)audit.symbols, sizeof *c->sums);
        c->prices = calloc((size_t)audit.symbols, sizeof *c->prices);
        c->peer.number = i;
        if (!frame || !c->knows || !c->sums || !c->prices)
            fail("No memory for client %d.", i);
        c->peer.fd = websocket_begin(port, "/api/v1/ws");
        websocket_finish(c->peer.fd);
        watch(c, EPOLL_CTL_ADD);
        if (send_all(c->peer.fd, frame, masked_frame(frame, OP_TEXT, text, size)) < 0)
            fail("The server closed client %d while it subscribed.", i);
        sweep(0);
    }
    while (told < audit.count) {
        sweep(100);
        told = 0;
        for (int i = 0; i < audit.count; i++)
            told += audit.clients[i].told == audit.symbols;
        if (monotonic_ns() > end)
            fail("Only %d of %d clients were told all ids within %d s.", told, audit.count, READY_TIMEOUT_S);
    }
    free(frame);
    free(text);
}

static void quiet(int ms)
{
    int64_t end = monotonic_ns() + QUIET_TIMEOUT_S * 1000000000ll;
    audit.last_ns = monotonic_ns();
    while (monotonic_ns() - audit.last_ns < ms * 1000000ll) {
        sweep(10);
        if (monotonic_ns() > end)
            fail("It was not quiet for %d ms within %d s.", ms, QUIET_TIMEOUT_S);
    }
    printf("{\"quiet\":%d}\n", ms);
}

static void stall(int count)
{
    int bytes = SMALL_BUFFER;
    for (; audit.stalled < count; audit.stalled++) {
        struct client *c = &audit.clients[audit.stalled];
        if (c->peer.fd < 0)
            continue;
        setsockopt(c->peer.fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
        watch(c, EPOLL_CTL_DEL);
    }
    printf("{\"stalled\":%d}\n", audit.stalled);
}

static void resume(void)
{
    for (int i = 0; i < audit.stalled; i++)
        if (audit.clients[i].peer.fd >= 0)
            watch(&audit.clients[i], EPOLL_CTL_ADD);
    audit.stalled = 0;
    puts("{\"stalled\":0}");
}

static void report(void)
{
    printf("{\"clients\":%d,\"closed\":%d,\"frames\":%llu,\"records\":%llu,\"symbols\":{", audit.count, audit.closed,
           (unsigned long long)audit.frames, (unsigned long long)audit.records);
    for (int s = 0; s < audit.symbols; s++) {
        printf("%s\"%s\":{\"sums\":[", s ? "," : "", audit.names[s]);
        for (int i = 0; i < audit.count; i++)
            printf("%s%.12Lf", i ? "," : "", audit.clients[i].sums[s]);
        fputs("],\"prices\":[", stdout);
        for (int i = 0; i < audit.count; i++)
            printf("%s%.17g", i ? "," : "", audit.clients[i].prices[s]);
        fputs("]}", stdout);
    }
    puts("}}");
}

int main(int argc, char **argv)
{
    if (argc < 4)
        fail("usage: audit PORT CLIENTS SYMBOL...");
    int port = (int)number(argv[1], "PORT", 1, 65535);
    audit.count = (int)number(argv[2], "CLIENTS", 1, 10000);
    audit.names = argv + 3;
    audit.symbols = argc - 3;
    need_files(audit.count + 64);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    audit.clients = calloc((size_t)audit.count, sizeof *audit.clients);
    audit.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!audit.clients || audit.epoll < 0)
        fail("Cannot set up %d clients: %s.", audit.count, strerror(errno));
    connect_all(port);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(audit.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        fail("Standard input must be a pipe or a terminal: %s.", strerror(errno));
    printf("{\"ready\":%d}\n", audit.count);
    int64_t end = monotonic_ns() + LIFE_S * 1000000000ll;
    while (monotonic_ns() < end) {
        char line[128];
        if (!sweep(100))
            continue;
        if (!fgets(line, sizeof line, stdin))
            return 0;
        if (!strncmp(line, "quiet ", 6))
            quiet((int)number(strtok(line + 6, "\n"), "the silence in ms", 1, 60000));
        else if (!strncmp(line, "stall ", 6))
            stall((int)number(strtok(line + 6, "\n"), "the clients to stall", 0, audit.count));
        else if (!strcmp(line, "resume\n"))
            resume();
        else if (!strcmp(line, "report\n"))
            report();
        else
            fail("audit does not know the command '%s': use quiet, stall, resume or report.", line);
    }
    fail("audit was left running for %d s and ends itself.", LIFE_S);
}
