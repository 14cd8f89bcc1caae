/* audit PORT CLIENTS SYMBOL...: clients that check everything and add up what they were told.
 *
 * Each client subscribes to all symbols. Checked of every frame: its structure, its CRC, and that its client was told
 * each id before. Kept for each client and symbol: the sum of volumes and the last price. When all are subscribed it
 * prints {"ready":CLIENTS} and obeys its standard input:
 *   quiet MS      goes on until nothing came for so long, then prints {"quiet":MS}
 *   stall COUNT   stops reading the first COUNT clients, whose receive buffers are small
 *   resume        reads them again
 *   renew COUNT   the next COUNT clients leave, every other one without a word, and new ones come in their places, whose
 *                 sums begin at 0; prints {"renewed":COUNT} once they are subscribed
 *   report        prints {"clients":..,"closed":..,"frames":..,"records":..,"symbols":{"BTCUSDT":{"sums":[..],
 *                 "prices":[..]}}}, a number a client, sums with 12 decimals
 *   end of input  the program ends, as it does by itself after 4 hours
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
    LIFE_S = 4 * 3600,
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
    int port, count, symbols, epoll, stalled, closed, renewed;
    char **names;
    char *subscription; /* the command that subscribes to all symbols */
    size_t subscription_size;
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

static void write_subscription(void)
{
    FILE *command = open_memstream(&audit.subscription, &audit.subscription_size);
    if (!command)
        fail("No memory for a subscription.");
    fputs("{\"type\":\"subscribe\",\"symbols\":[", command);
    for (int i = 0; i < audit.symbols; i++)
        fprintf(command, "%s\"%s\"", i ? "," : "", audit.names[i]);
    fputs("]}", command);
    fclose(command);
}

static void open_client(struct client *c)
{
    uint8_t *frame = malloc(audit.subscription_size + FRAME_HEADER_MAX);
    if (!frame)
        fail("No memory for client %d.", c->peer.number);
    c->peer.fd = websocket_begin(audit.port, "/api/v1/ws");
    websocket_finish(c->peer.fd);
    watch(c, EPOLL_CTL_ADD);
    size_t size = masked_frame(frame, OP_TEXT, audit.subscription, audit.subscription_size);
    if (send_all(c->peer.fd, frame, size) < 0)
        fail("The server closed client %d while it subscribed.", c->peer.number);
    free(frame);
}

/* Goes on until all clients know all ids. */
static void await_told(void)
{
    int64_t end = monotonic_ns() + READY_TIMEOUT_S * 1000000000ll;
    for (int told = 0; told < audit.count;) {
        sweep(100);
        told = 0;
        for (int i = 0; i < audit.count; i++)
            told += audit.clients[i].told == audit.symbols || audit.clients[i].peer.fd < 0;
        if (monotonic_ns() > end)
            fail("Only %d of %d clients were told all ids within %d s.", told, audit.count, READY_TIMEOUT_S);
    }
}

static void connect_all(void)
{
    for (int i = 0; i < audit.count; i++) {
        struct client *c = &audit.clients[i];
        c->knows = calloc(IDS / 8, 1);
        c->sums = calloc((size_t)audit.symbols, sizeof *c->sums);
        c->prices = calloc((size_t)audit.symbols, sizeof *c->prices);
        c->peer.number = i;
        if (!c->knows || !c->sums || !c->prices)
            fail("No memory for client %d.", i);
        open_client(c);
        sweep(0);
    }
    await_told();
}

/* Ends a client: with a close frame, or, where it is `rude`, by a reset in the middle of whatever it was sent. */
static void leave(struct client *c, int rude)
{
    static const uint8_t going_away[] = {0x03, 0xe9};
    uint8_t frame[sizeof going_away + FRAME_HEADER_MAX];
    struct linger reset = {.l_onoff = 1};
    if (rude)
        setsockopt(c->peer.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    else
        send_all(c->peer.fd, frame, masked_frame(frame, OP_CLOSE, going_away, sizeof going_away));
    close(c->peer.fd); /* epoll forgets it */
    free(c->peer.rest);
    c->peer.rest = NULL;
    c->peer.rest_size = 0;
    c->told = 0;
    memset(c->knows, 0, IDS / 8);
    memset(c->sums, 0, (size_t)audit.symbols * sizeof *c->sums);
    memset(c->prices, 0, (size_t)audit.symbols * sizeof *c->prices);
}

static void renew(int count)
{
    for (int i = 0; i < count; i++) {
        struct client *c = &audit.clients[audit.renewed % audit.count];
        if (c->peer.fd < 0)
            fail("Client %d was closed by the server.", c->peer.number);
        leave(c, audit.renewed++ % 2);
        open_client(c);
        sweep(0);
    }
    await_told();
    printf("{\"renewed\":%d}\n", count);
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
    audit.port = (int)number(argv[1], "PORT", 1, 65535);
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
    write_subscription();
    connect_all();
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
        else if (!strncmp(line, "renew ", 6))
            renew((int)number(strtok(line + 6, "\n"), "the clients to renew", 1, audit.count));
        else if (!strcmp(line, "report\n"))
            report();
        else
            fail("audit does not know the command '%s': use quiet, stall, resume, renew or report.", line);
    }
    fail("audit was left running for %d s and ends itself.", LIFE_S);
}
