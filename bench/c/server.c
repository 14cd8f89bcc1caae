/* server PORT CLIENTS: the limit to measure against. A raw WebSocket server on epoll that, once CLIENTS are connected,
 * sends one v1 batch of one record to each, one send a client, over and over, and does nothing else: no symbols, no
 * limits, no commands. Its first line is {"port":N}; it ends with its standard input, or after 10 minutes. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"
#include "wire.h"

enum { EVENTS = 512, REQUEST_MAX = 4096, LIFE_S = 600 };

struct peer {
    int fd;
    int open; /* upgraded */
    size_t have;
    char request[REQUEST_MAX];
};

static struct peer listener, input;

/* Reads a request and answers it, or reads on and discards; 0, or -1 where the peer is gone. */
static int on_readable(struct peer *p)
{
    char answer[256], discarded[4096];
    if (p->open)
        return recv(p->fd, discarded, sizeof discarded, 0) == 0 ? -1 : 0;
    ssize_t got = recv(p->fd, p->request + p->have, REQUEST_MAX - p->have, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN ? 0 : -1;
    p->have += (size_t)got;
    if (!request_size(p->request, p->have))
        return p->have < REQUEST_MAX ? 0 : -1;
    size_t size = upgrade_answer(p->request, p->have, answer);
    p->open = size && send_all(p->fd, answer, size) == 0;
    return p->open ? 1 : -1;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage: server PORT CLIENTS");
    int port = (int)number(argv[1], "PORT", 0, 65535), wanted = (int)number(argv[2], "CLIENTS", 1, 100000), open = 0;
    need_files(wanted + 64);
    struct peer **peers = calloc((size_t)wanted, sizeof(struct peer *));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    listener.fd = listen_loopback(&port);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener}, events[EVENTS];
    struct epoll_event input_event = {.events = EPOLLIN, .data.ptr = &input};
    if (!peers || epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener.fd, &event) < 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input_event) < 0)
        fail("Cannot set up epoll: %s. Standard input must be a pipe or a terminal.", strerror(errno));
    printf("{\"port\":%d}\n", port);
    fflush(stdout);
    int64_t now, end = monotonic_ns() + LIFE_S * 1000000000ll;
    while ((now = monotonic_ns()) < end) {
        uint8_t frame[2 + ONE_RECORD];
        int count = epoll_wait(epoll, events, EVENTS, open == wanted ? 0 : 1000);
        for (int i = 0; i < count; i++) {
            struct peer *p = events[i].data.ptr;
            if (p == &input)
                return 0;
            if (p != &listener) {
                int answered = on_readable(p);
                if (answered < 0 && p->open)
                    return 0; /* the load is over */
                if (answered < 0)
                    fail("A client sent no WebSocket request, or closed before its answer.");
                if (answered > 0)
                    peers[open++] = p;
                continue;
            }
            for (int fd; open < wanted && (fd = accept_client(listener.fd)) >= 0;) {
                struct peer *added = calloc(1, sizeof *added);
                event = (struct epoll_event){.events = EPOLLIN, .data.ptr = added};
                if (!added || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
                    fail("Cannot serve one more client: %s.", strerror(errno));
                added->fd = fd;
            }
        }
        if (open < wanted)
            continue;
        size_t header = frame_header(frame, OP_BINARY, ONE_RECORD);
        one_record(frame + header, 1, now);
        for (int i = 0; i < open; i++)
            if (send_all(peers[i]->fd, frame, header + ONE_RECORD) < 0)
                return 0;
    }
    fail("server was left running for %d s and ends itself.", LIFE_S);
}
