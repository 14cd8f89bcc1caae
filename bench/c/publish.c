/* publish PORT SYMBOLS: the same trades as exchange.c, for NATS: v1 batches of one record on subjects t.0000, t.0001,
 * ... Its first line is {"port":PORT}. It obeys its standard input: `rate MESSAGES` a second from now on; it ends with
 * it, or after 10 minutes. While NATS takes nothing (it slows fast publishers down) no message is made, so none ages
 * in this program. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "market.h"
#include "pace.h"
#include "wire.h"

enum { MESSAGE_BYTES = 64, BURST = 1000 };

/* Sends what is due in one system call, BURST messages at most. */
static void send_due(int fd, struct pace *pace, unsigned symbols)
{
    static char burst[BURST * MESSAGE_BYTES];
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    if (poll(&room, 1, 0) <= 0)
        return;
    char *at = burst;
    for (int due = pace_due(pace); due > 0 && at < burst + sizeof burst - MESSAGE_BYTES; due--, pace->sent++) {
        unsigned symbol = (unsigned)(pace->sent % symbols);
        at += sprintf(at, "PUB t.%04u %d\r\n", symbol, ONE_RECORD);
        one_record((uint8_t *)at, (uint16_t)(symbol + 1), monotonic_ns());
        at += ONE_RECORD;
        at = mempcpy(at, "\r\n", 2);
    }
    if (send_all(fd, burst, (size_t)(at - burst)) < 0)
        fail("NATS closed the publisher's connection, or took nothing for 10 s.");
}

int main(int argc, char **argv)
{
    static const char hello[] = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
    struct pace pace = {0};
    if (argc != 3)
        fail("usage: publish PORT SYMBOLS");
    int port = (int)number(argv[1], "PORT", 1, 65535);
    unsigned symbols = (unsigned)number(argv[2], "SYMBOLS", 1, SYMBOLS_MAX);
    int fd = connect_loopback(port);
    set_nonblocking(fd);
    if (send_all(fd, hello, sizeof hello - 1) < 0)
        fail("NATS on port %d closed the publisher's connection.", port);
    setvbuf(stdin, NULL, _IONBF, 0);
    printf("{\"port\":%d}\n", port);
    fflush(stdout);
    int64_t end = monotonic_ns() + LIFE_S * 1000000000ll;
    struct pollfd watched[3] = {{.fd = fd, .events = POLLIN},
                                {.fd = STDIN_FILENO, .events = POLLIN},
                                {.fd = pace_timer(), .events = POLLIN}};
    while (monotonic_ns() < end) {
        uint64_t ticks;
        char line[128], heard[4096];
        watched[2].events = pace.rate > 0 ? POLLIN : 0;
        if (poll(watched, 3, 1000) < 0 && errno != EINTR)
            fail("poll failed: %s.", strerror(errno));
        if (watched[0].revents) {
            ssize_t got = recv(fd, heard, sizeof heard, 0);
            if (got == 0 || (got > 0 && memmem(heard, (size_t)got, "-ERR", 4)))
                fail("NATS refused the publisher: %.*s", (int)got, heard);
            if (got > 0 && memmem(heard, (size_t)got, "PING", 4))
                send_all(fd, "PONG\r\n", 6);
        }
        if (watched[1].revents) {
            if (!fgets(line, sizeof line, stdin))
                return 0;
            if (strncmp(line, "rate ", 5))
                fail("publish does not know the command '%s': use `rate MESSAGES`.", line);
            pace_set(&pace, fraction(line + 5, "the rate", 0, 1e7));
        }
        if (watched[2].revents && read(watched[2].fd, &ticks, sizeof ticks) > 0 && pace.rate > 0)
            send_due(fd, &pace, symbols);
    }
    fail("publish was left running for %d s and ends itself.", LIFE_S);
}
