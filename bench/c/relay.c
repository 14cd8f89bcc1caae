/* relay EXCHANGE_PORT SYMBOL spin|wait: the latency floor. Carries one symbol's trades from an exchange's WebSocket to
 * one client's, each message as it came, in a frame of its own. It decodes, keeps and checks nothing. `wait` sleeps in
 * epoll, `spin` never sleeps. Its first line is {"port":N}; it ends with either side or its standard input, or after 10
 * minutes. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "market.h"
#include "measure.h"
#include "wire.h"

enum { RECEIVE_BYTES = 1 << 16, LIFE_S = 600 };

/* Waits for the one client and upgrades it; -1 where standard input ends first. */
static int serve_one(int listener)
{
    char request[4096], answer[256];
    size_t have = 0;
    int64_t end = monotonic_ns() + 30 * 1000000000ll;
    int fd = -1;
    while (monotonic_ns() < end) {
        struct pollfd watched[2] = {{.fd = fd < 0 ? listener : fd, .events = POLLIN},
                                    {.fd = STDIN_FILENO, .events = POLLIN}};
        if (poll(watched, 2, 1000) > 0 && watched[1].revents)
            return -1;
        if (fd < 0)
            fd = accept_client(listener);
        ssize_t got = fd < 0 ? -1 : recv(fd, request + have, sizeof request - have, 0);
        if (got > 0)
            have += (size_t)got;
        size_t size = request_size(request, have) ? upgrade_answer(request, have, answer) : 0;
        if (size && send_all(fd, answer, size) == 0)
            return fd;
    }
    fail("No client asked the relay for a WebSocket within 30 s.");
}

int main(int argc, char **argv)
{
    static uint8_t received[RECEIVE_BYTES];
    char text[128];
    uint8_t command[256];
    if (argc != 4 || (strcmp(argv[3], "spin") && strcmp(argv[3], "wait")))
        fail("usage: relay EXCHANGE_PORT SYMBOL spin|wait");
    int spin = !strcmp(argv[3], "spin"), port = 0, listener = listen_loopback(&port);
    int exchange = websocket_begin((int)number(argv[1], "EXCHANGE_PORT", 1, 65535), "/ws");
    websocket_finish(exchange);
    int size = snprintf(text, sizeof text, "{\"method\":\"SUBSCRIBE\",\"params\":[\"b%04ldusdt@trade\"],\"id\":1}",
                        number(argv[2], "SYMBOL", 0, SYMBOLS_MAX - 1));
    if (send_all(exchange, command, masked_frame(command, OP_TEXT, text, (size_t)size)) < 0)
        fail("The exchange closed the relay's connection.");
    printf("{\"port\":%d}\n", port);
    fflush(stdout);
    int client = serve_one(listener), epoll = epoll_create1(EPOLL_CLOEXEC);
    if (client < 0)
        return 0;
    int watched[] = {exchange, client, STDIN_FILENO};
    struct epoll_event ready[3];
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = watched[i]};
        if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, watched[i], &event) < 0)
            fail("Cannot set up epoll: %s. Standard input must be a pipe or a terminal.", strerror(errno));
    }
    size_t have = 0;
    int64_t end = monotonic_ns() + LIFE_S * 1000000000ll;
    while (monotonic_ns() < end) {
        int count = epoll_wait(epoll, ready, 3, spin ? 0 : 1000);
        for (int i = 0; i < count; i++) {
            uint8_t ignored[4096];
            if (ready[i].data.fd == STDIN_FILENO)
                return 0;
            if (ready[i].data.fd == client) {
                if (recv(client, ignored, sizeof ignored, 0) == 0)
                    return 0;
                continue;
            }
            ssize_t got = recv(exchange, received + have, RECEIVE_BYTES - have, 0), took;
            if (got <= 0)
                return 0;
            have += (size_t)got;
            size_t at = 0;
            struct frame frame;
            /* Server frames carry no mask, so each can go on as it is, header and all. */
            while ((took = parse_frame(received + at, have - at, &frame)) > 0) {
                if (frame.opcode == OP_TEXT && send_all(client, received + at, (size_t)took) < 0)
                    return 0;
                at += (size_t)took;
            }
            have -= at;
            memmove(received, received + at, have);
        }
    }
    fail("relay was left running for %d s and ends itself.", LIFE_S);
}
