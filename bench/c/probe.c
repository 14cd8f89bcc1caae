/* probe SYMBOLS: exchange and client in one thread, to time the way through a server from socket to socket.
 *
 * Its first line is {"port":N}, the exchange of market.h. It obeys its standard input:
 *   connect PORT           connects client 0, 1, ... to a server and subscribes it to symbol 0, 1, ...; prints
 *                          {"client":I} once an exchange connection carries that symbol's trades
 *   measure I COUNT GAP    COUNT times: waits GAP microseconds (half to one and a half, at random), sends one trade of
 *                          symbol I, and spins until client I has its record; prints the times as one line of JSON
 *   end of input           the program ends, as it does by itself after 10 minutes
 *
 * The time taken is from before the exchange's send to after the client's recv. Spinning keeps this core awake; what a
 * sleeping server needs to be woken is part of the time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "market.h"
#include "measure.h"
#include "wire.h"

enum { CLIENTS_MAX = 16, RECEIVE_BYTES = 1 << 16, LIFE_S = 600, ARRIVAL_TIMEOUT_NS = 2000000000, CARRY_TIMEOUT_S = 30 };

struct client {
    int fd;
    size_t have;
    uint8_t received[RECEIVE_BYTES];
};

static struct market *market;
static struct client clients[CLIENTS_MAX];
static int client_count;

/* Whether a frame brings a trade: a v1 batch with a volume (not a snapshot), or the relay's raw message. */
static int is_trade(const struct frame *frame)
{
    static const char raw[] = "{\"e\":\"trade\"";
    double volume = 0;
    if (frame->opcode == OP_TEXT)
        return frame->size > sizeof raw && !memcmp(frame->payload, raw, sizeof raw - 1);
    if (frame->opcode == OP_BINARY && frame->size == ONE_RECORD)
        memcpy(&volume, frame->payload + ONE_RECORD - 8, 8);
    return volume > 0;
}

/* Reads what a client has; returns how many trades came. */
static int receive(struct client *c)
{
    ssize_t got = recv(c->fd, c->received + c->have, RECEIVE_BYTES - c->have, 0), took;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0)
        fail("The server closed client %ld of the probe.", (long)(c - clients));
    c->have += (size_t)got;
    int trades = 0;
    size_t at = 0;
    struct frame frame;
    while ((took = parse_frame(c->received + at, c->have - at, &frame)) > 0) {
        uint8_t pong[256];
        trades += is_trade(&frame);
        if (frame.opcode == OP_PING && frame.size <= 125)
            send_all(c->fd, pong, masked_frame(pong, OP_PONG, frame.payload, frame.size));
        at += (size_t)took;
    }
    if (took < 0)
        fail("Client %ld of the probe got bytes that are no WebSocket frame.", (long)(c - clients));
    c->have -= at;
    memmove(c->received, c->received + at, c->have);
    return trades;
}

static void connect_client(int port)
{
    char text[64];
    uint8_t command[128];
    if (client_count == CLIENTS_MAX)
        fail("The probe has %d clients: it can have no more.", CLIENTS_MAX);
    int symbol = client_count++;
    struct client *c = &clients[symbol];
    c->fd = websocket_begin(port, "/api/v1/ws");
    websocket_finish(c->fd);
    int size = snprintf(text, sizeof text, "{\"type\":\"subscribe\",\"symbols\":[\"B%04dUSDT\"]}", symbol);
    if (send_all(c->fd, command, masked_frame(command, OP_TEXT, text, (size_t)size)) < 0)
        fail("The server on port %d closed the probe's client.", port);
    int64_t end = monotonic_ns() + CARRY_TIMEOUT_S * 1000000000ll;
    while (!market_lines(market, TRADE, symbol)) {
        struct pollfd wait = {.fd = market_fd(market), .events = POLLIN};
        poll(&wait, 1, 100);
        market_poll(market);
        if (monotonic_ns() > end)
            fail("The server on port %d did not subscribe to b%04dusdt@trade within %d s.", port, symbol,
                 CARRY_TIMEOUT_S);
    }
    printf("{\"client\":%d}\n", symbol);
}

static void measure(int which, int count, int gap_us)
{
    static struct histogram times;
    memset(&times, 0, sizeof times);
    for (int i = 0; i < count; i++) {
        int64_t until = monotonic_ns() + (int64_t)(gap_us * (500.0 + (double)(random() % 1000)));
        while (monotonic_ns() < until)
            market_poll(market);
        receive(&clients[which]); /* a snapshot or an answer must not be taken for the trade */
        int64_t start = monotonic_ns();
        market_send(market, TRADE, which);
        market_flush(market);
        while (!receive(&clients[which]))
            if (monotonic_ns() - start > ARRIVAL_TIMEOUT_NS)
                fail("Trade %d of client %d did not arrive within 2 s.", i, which);
        histogram_add(&times, monotonic_ns() - start);
    }
    printf("{\"count\":%d,", count);
    histogram_print(&times, "latency");
    puts("}");
}

int main(int argc, char **argv)
{
    if (argc != 2)
        fail("usage: probe SYMBOLS");
    int port = 0;
    market = market_open(&port, (int)number(argv[1], "SYMBOLS", 1, SYMBOLS_MAX));
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    printf("{\"port\":%d}\n", port);
    int64_t end = monotonic_ns() + LIFE_S * 1000000000ll;
    struct pollfd watched[2] = {{.fd = market_fd(market), .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    while (monotonic_ns() < end) {
        char line[128];
        int which, count, gap;
        if (poll(watched, 2, 1000) < 0 && errno != EINTR)
            fail("poll failed: %s.", strerror(errno));
        if (watched[0].revents)
            market_poll(market);
        if (!watched[1].revents)
            continue;
        if (!fgets(line, sizeof line, stdin))
            return 0;
        if (!strncmp(line, "connect ", 8))
            connect_client((int)number(line + 8, "the port to connect to", 1, 65535));
        else if (sscanf(line, "measure %d %d %d", &which, &count, &gap) == 3 && which >= 0 && which < client_count &&
                 count > 0 && gap >= 0)
            measure(which, count, gap);
        else
            fail("probe does not know the command '%s': use `connect PORT` or `measure CLIENT COUNT GAP`.", line);
    }
    fail("probe was left running for %d s and ends itself.", LIFE_S);
}
