/* requests PORT CONNECTIONS PATH PID: asks one HTTP server the same GET, one request at a time on each connection.
 *
 * All connections are kept alive. Its first line is {"connections":N}, once each has been answered. It obeys its
 * standard input:
 *   measure SECONDS   prints {"seconds","requests","bytes","cpu","server_cpu","answer_us":{...}}: answers that came
 *                     whole, the bytes of their bodies, the shares of a core that this program and process PID used
 *   end of input      the program ends, as it does by itself after 10 minutes
 *
 * An answer must be 200 with a Content-Length and leave the connection open; anything else ends the program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"
#include "wire.h"

enum { CONNECTIONS_MAX = 1000, RECEIVE_BYTES = 1 << 20, EVENTS = 64, LIFE_S = 600, ANSWER_TIMEOUT_S = 30 };

struct connection {
    int fd;
    int answered;
    size_t have;
    int64_t asked_ns;
};

static struct {
    int port, count, pid, epoll, answered;
    struct connection connections[CONNECTIONS_MAX];
    char *received; /* RECEIVE_BYTES for each */
    char request[1024];
    size_t request_size;
    unsigned long long requests, bytes;
    struct histogram times;
} load;

static void ask(struct connection *c)
{
    c->have = 0;
    c->asked_ns = monotonic_ns();
    if (send_all(c->fd, load.request, load.request_size) < 0)
        fail("The server on port %d closed a connection.", load.port);
}

/* The size of the body that the headers in `text` announce. */
static size_t body_size(char *text, size_t size)
{
    static const char field[] = "\r\nContent-Length:";
    text[size - 1] = 0; /* the last byte of the empty line */
    if (strncmp(text, "HTTP/1.1 200 ", 13))
        fail("The server on port %d answered: %.*s.", load.port, (int)strcspn(text, "\r\n"), text);
    if (strcasestr(text, "\r\nConnection: close"))
        fail("The server on port %d closes its connections.", load.port);
    const char *length = strcasestr(text, field);
    if (!length)
        fail("The server on port %d sent no Content-Length.", load.port);
    return strtoul(length + sizeof field - 1, NULL, 10);
}

/* Reads what has come; where the answer is whole, counts it and asks again. */
static void receive(struct connection *c)
{
    char *text = load.received + (size_t)(c - load.connections) * RECEIVE_BYTES;
    ssize_t got = recv(c->fd, text + c->have, RECEIVE_BYTES - c->have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        fail("The server on port %d closed a connection, or its answer is longer than 1 MiB.", load.port);
    c->have += (size_t)got;
    size_t head = request_size(text, c->have);
    if (!head)
        return;
    char last = text[head - 1];
    size_t body = body_size(text, head);
    text[head - 1] = last;
    if (c->have < head + body)
        return;
    if (c->have > head + body)
        fail("The server on port %d sent more than it announced.", load.port);
    histogram_add(&load.times, monotonic_ns() - c->asked_ns);
    load.requests++;
    load.bytes += body;
    load.answered += !c->answered;
    c->answered = 1;
    ask(c);
}

/* Serves what is ready; whether standard input has something. */
static int sweep(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int input = 0, count = epoll_wait(load.epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr)
            receive(events[i].data.ptr);
        else
            input = 1;
    }
    return input;
}

static void measure(double seconds)
{
    load.requests = load.bytes = 0;
    memset(&load.times, 0, sizeof load.times);
    int64_t start = monotonic_ns(), end = start + (int64_t)(seconds * 1e9), now;
    int64_t own = cpu_ns(getpid()), server = cpu_ns(load.pid);
    do
        sweep(10);
    while ((now = monotonic_ns()) < end);
    printf("{\"seconds\":%.6f,\"requests\":%llu,\"bytes\":%llu,\"cpu\":%.3f,\"server_cpu\":%.4f,",
           (double)(now - start) / 1e9, load.requests, load.bytes,
           (double)(cpu_ns(getpid()) - own) / (double)(now - start),
           (double)(cpu_ns(load.pid) - server) / (double)(now - start));
    histogram_print(&load.times, "answer");
    puts("}");
}

int main(int argc, char **argv)
{
    if (argc != 5)
        fail("usage: requests PORT CONNECTIONS PATH PID");
    load.port = (int)number(argv[1], "PORT", 1, 65535);
    load.count = (int)number(argv[2], "CONNECTIONS", 1, CONNECTIONS_MAX);
    load.pid = (int)number(argv[4], "PID", 0, 1 << 22);
    int size = snprintf(load.request, sizeof load.request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", argv[3],
                        load.port);
    if (size >= (int)sizeof load.request)
        fail("PATH is longer than 900 bytes.");
    load.request_size = (size_t)size;
    load.received = malloc((size_t)load.count * RECEIVE_BYTES);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    if (!load.received || load.epoll < 0 || epoll_ctl(load.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        fail("Cannot set up %d connections: %s.", load.count, strerror(errno));
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    for (int i = 0; i < load.count; i++) {
        struct connection *c = &load.connections[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->fd = connect_loopback(load.port);
        set_nonblocking(c->fd);
        if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
            fail("Cannot watch connection %d: %s.", i, strerror(errno));
        ask(c);
    }
    int64_t end = monotonic_ns() + ANSWER_TIMEOUT_S * 1000000000ll;
    while (load.answered < load.count) {
        sweep(100);
        if (monotonic_ns() > end)
            fail("Only %d of %d connections were answered within %d s.", load.answered, load.count, ANSWER_TIMEOUT_S);
    }
    printf("{\"connections\":%d}\n", load.count);
    end = monotonic_ns() + LIFE_S * 1000000000ll;
    while (monotonic_ns() < end) {
        char line[128];
        if (!sweep(100))
            continue;
        if (!fgets(line, sizeof line, stdin))
            return 0;
        if (strncmp(line, "measure ", 8))
            fail("requests does not know the command '%s': use `measure SECONDS`.", line);
        measure(fraction(line + 8, "the time to measure", 0.01, 300));
    }
    fail("requests was left running for %d s and ends itself.", LIFE_S);
}
