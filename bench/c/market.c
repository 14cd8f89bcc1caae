#define _GNU_SOURCE
#include "market.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"
#include "wire.h"

enum {
    CONNECTIONS_MAX = 64,
    RECEIVE_BYTES = 1 << 18, /* a SUBSCRIBE of 1024 streams has 30 KB */
    QUEUE_BYTES = 1 << 24,
    EVENTS = 64
};

enum state { FREE, HTTP, WEBSOCKET };

struct connection {
    int fd;
    enum state state;
    int combined;
    size_t have;        /* bytes in `received` */
    size_t from, until; /* what of `queue` is not sent yet */
    uint8_t *received, *queue;
    uint8_t carried[KINDS][SYMBOLS_MAX];
};

struct market {
    int listener, epoll, symbols;
    uint64_t last_id[SYMBOLS_MAX], quote_id;
    char price[SYMBOLS_MAX][32]; /* of the last trade */
    int64_t time[SYMBOLS_MAX];
    uint64_t messages, cuts;
    struct connection connections[CONNECTIONS_MAX];
};

static const char *const STREAMS[KINDS] = {"trade", "aggTrade", "bookTicker"};

struct market *market_open(int *port, int symbols)
{
    struct market *m = calloc(1, sizeof *m);
    if (!m)
        fail("No memory for the exchange.");
    m->symbols = symbols;
    m->quote_id = 1000000;
    for (int i = 0; i < symbols; i++)
        m->last_id[i] = 1000000;
    m->listener = listen_loopback(port);
    m->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (m->epoll < 0 || epoll_ctl(m->epoll, EPOLL_CTL_ADD, m->listener, &event) < 0)
        fail("Cannot set up epoll: %s.", strerror(errno));
    return m;
}

int market_fd(const struct market *m)
{
    return m->epoll;
}

static void drop(struct connection *c)
{
    close(c->fd);
    free(c->received);
    free(c->queue);
    memset(c, 0, sizeof *c);
}

static void accept_all(struct market *m)
{
    for (int fd; (fd = accept_client(m->listener)) >= 0;) {
        struct connection *c = m->connections;
        while (c < m->connections + CONNECTIONS_MAX && c->state != FREE)
            c++;
        if (c == m->connections + CONNECTIONS_MAX) {
            close(fd);
            continue;
        }
        c->fd = fd;
        c->state = HTTP;
        c->received = malloc(RECEIVE_BYTES);
        c->queue = malloc(QUEUE_BYTES);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (!c->received || !c->queue || epoll_ctl(m->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            fail("Cannot serve one more connection: %s.", strerror(errno));
    }
}

/* Queues one frame; 0, or -1 where the queue is full. */
static int queue_frame(struct connection *c, int opcode, const char *head, size_t head_size, const char *body,
                       size_t body_size, const char *tail)
{
    size_t tail_size = strlen(tail), size = head_size + body_size + tail_size;
    if (c->until + size + FRAME_HEADER_MAX > QUEUE_BYTES) {
        memmove(c->queue, c->queue + c->from, c->until - c->from);
        c->until -= c->from;
        c->from = 0;
        if (c->until + size + FRAME_HEADER_MAX > QUEUE_BYTES)
            return -1;
    }
    uint8_t *at = c->queue + c->until;
    at += frame_header(at, opcode, size);
    at = mempcpy(at, head, head_size);
    at = mempcpy(at, body, body_size);
    at = mempcpy(at, tail, tail_size);
    c->until = (size_t)(at - c->queue);
    return 0;
}

static void queue_text(struct connection *c, const char *text)
{
    queue_frame(c, OP_TEXT, "", 0, text, strlen(text), "");
}

/* Takes a stream name such as b0001usdt@trade in or out; what the bench does not have is accepted and stays mute. */
static void carry(struct market *m, struct connection *c, const char *name, size_t size, int on)
{
    char stream[64];
    unsigned symbol;
    int used = 0;
    if (size >= sizeof stream)
        return;
    memcpy(stream, name, size);
    stream[size] = 0;
    if (sscanf(stream, "b%4uusdt@%n", &symbol, &used) != 1 || !used || symbol >= (unsigned)m->symbols)
        return;
    for (int kind = 0; kind < KINDS; kind++)
        if (!strcmp(stream + used, STREAMS[kind]))
            c->carried[kind][symbol] = (uint8_t)on;
}

/* SUBSCRIBE, UNSUBSCRIBE and whatever else has an id: answered as the exchange does. */
static void command(struct market *m, struct connection *c, const char *text)
{
    char answer[64];
    int on = strstr(text, "\"SUBSCRIBE\"") != NULL, off = strstr(text, "\"UNSUBSCRIBE\"") != NULL;
    const char *at = strchr(text, '['), *end = at ? strchr(at, ']') : NULL, *id = strstr(text, "\"id\"");
    while ((on || off) && at && end && (at = strchr(at, '"')) && at < end) {
        const char *close = strchr(at + 1, '"');
        if (!close)
            break;
        carry(m, c, at + 1, (size_t)(close - at - 1), on);
        at = close + 1;
    }
    while (id && *id && !isdigit((unsigned char)*id))
        id++;
    snprintf(answer, sizeof answer, "{\"result\":null,\"id\":%ld}", id ? strtol(id, NULL, 10) : 0);
    queue_text(c, answer);
}

/* The body of a REST answer, to be freed; NULL where there is no such path. */
static char *rest_body(struct market *m, const char *path)
{
    char *body = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&body, &size);
    int known = 1;
    if (!strncmp(path, "/api/v3/exchangeInfo", 20)) {
        fprintf(f, "{\"timezone\":\"UTC\",\"serverTime\":%lld,\"rateLimits\":[{\"rateLimitType\":\"REQUEST_WEIGHT\","
                   "\"interval\":\"MINUTE\",\"intervalNum\":1,\"limit\":6000}],\"exchangeFilters\":[],\"symbols\":[",
                (long long)unix_ms());
        for (int i = 0; i < m->symbols; i++)
            fprintf(f, "%s{\"symbol\":\"B%04dUSDT\",\"status\":\"TRADING\",\"baseAsset\":\"B%04d\","
                       "\"baseAssetPrecision\":8,\"quoteAsset\":\"USDT\",\"quotePrecision\":8,"
                       "\"quoteAssetPrecision\":8,\"isSpotTradingAllowed\":true,\"filters\":["
                       "{\"filterType\":\"PRICE_FILTER\",\"minPrice\":\"0.00000001\","
                       "\"maxPrice\":\"100000000.00000000\",\"tickSize\":\"0.00000001\"},"
                       "{\"filterType\":\"LOT_SIZE\",\"minQty\":\"0.00000001\","
                       "\"maxQty\":\"100000000.00000000\",\"stepSize\":\"0.00000001\"}]}",
                    i ? "," : "", i, i);
        fputs("]}", f);
    } else if (!strncmp(path, "/api/v3/time", 12)) {
        fprintf(f, "{\"serverTime\":%lld}", (long long)unix_ms());
    } else if (!strncmp(path, "/api/v3/ping", 12)) {
        fputs("{}", f);
    } else if (!strncmp(path, "/api/v3/klines", 14) || !strncmp(path, "/api/v3/aggTrades", 17) ||
               !strncmp(path, "/api/v3/historicalTrades", 24) || !strncmp(path, "/api/v3/trades", 14)) {
        fputs("[]", f);
    } else {
        known = 0;
    }
    if (fclose(f) != 0)
        fail("No memory for a REST answer.");
    if (!known) {
        free(body);
        body = NULL;
    }
    return body;
}

/* Answers one plain HTTP request; the connection then closes. A few hundred KB fit any loopback socket. */
static void answer_rest(struct market *m, struct connection *c, const char *path)
{
    char head[256];
    char *body = rest_body(m, path);
    const char *text = body ? body : "{\"code\":-1,\"msg\":\"The exchange of the bench has no such path.\"}";
    int size = snprintf(head, sizeof head,
                        "HTTP/1.1 %s\r\nContent-Type: application/json\r\nX-MBX-USED-WEIGHT-1M: 1\r\n"
                        "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                        body ? "200 OK" : "404 Not Found", strlen(text));
    if (send_all(c->fd, head, (size_t)size) == 0)
        send_all(c->fd, text, strlen(text));
    free(body);
}

/* Handles the request of a connection in state HTTP; 0, or -1 where the connection is done. */
static int on_request(struct market *m, struct connection *c)
{
    char answer[256], *request = (char *)c->received;
    size_t size = request_size(request, c->have);
    if (!size)
        return c->have < 8192 ? 0 : -1;
    if (c->have < 5 || memcmp(request, "GET ", 4))
        return -1;
    request[size - 1] = 0;
    char *path = request + 4, *rest = path + strcspn(path, " \r\n");
    size_t answer_size = upgrade_answer(rest, size - (size_t)(rest - request), answer);
    *rest = 0;
    if (!answer_size) {
        answer_rest(m, c, path);
        return -1;
    }
    if (send_all(c->fd, answer, answer_size) < 0)
        return -1;
    c->state = WEBSOCKET;
    c->combined = !strncmp(path, "/stream", 7);
    char *names = c->combined ? strstr(path, "streams=") : strncmp(path, "/ws/", 4) ? NULL : path + 4;
    if (names && c->combined)
        names += 8;
    while (names && *names && *names != '&') {
        size_t length = strcspn(names, "/&");
        carry(m, c, names, length, 1);
        names += length + (names[length] == '/');
    }
    c->have -= size;
    memmove(c->received, c->received + size, c->have);
    return 0;
}

/* Handles whole frames of a connection in state WEBSOCKET; 0, or -1 where the connection is done. */
static int on_frames(struct market *m, struct connection *c)
{
    size_t at = 0;
    struct frame frame;
    ssize_t took;
    while ((took = parse_frame(c->received + at, c->have - at, &frame)) > 0) {
        if (frame.opcode == OP_CLOSE)
            return -1;
        if (frame.opcode == OP_PING)
            queue_frame(c, OP_PONG, "", 0, (char *)frame.payload, frame.size, "");
        if (frame.opcode == OP_TEXT) {
            char *text = strndup((char *)frame.payload, frame.size);
            if (!text)
                fail("No memory for a command.");
            command(m, c, text);
            free(text);
        }
        at += (size_t)took;
    }
    c->have -= at;
    memmove(c->received, c->received + at, c->have);
    return took < 0 ? -1 : 0;
}

static void on_readable(struct market *m, struct connection *c)
{
    ssize_t got = recv(c->fd, c->received + c->have, RECEIVE_BYTES - c->have - 1, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        drop(c);
        return;
    }
    c->have += (size_t)got;
    if ((c->state == HTTP && on_request(m, c) < 0) || (c->state == WEBSOCKET && on_frames(m, c) < 0) ||
        c->have + 1 >= RECEIVE_BYTES)
        drop(c);
}

void market_poll(struct market *m)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(m->epoll, events, EVENTS, 0);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c)
            accept_all(m);
        else if (c->state != FREE)
            on_readable(m, c);
    }
    market_flush(m);
}

int market_send(struct market *m, enum kind kind, int symbol)
{
    char text[384], head[64];
    int size, lines = 0;
    if (kind != AGG_TRADE) {
        int64_t ticks = monotonic_ns() / 10;
        m->time[symbol] = unix_ms();
        snprintf(m->price[symbol], sizeof m->price[symbol], "%lld.%08lld", (long long)(ticks / 100000000),
                 (long long)(ticks % 100000000));
    }
    const char *price = m->price[symbol];
    long long id = (long long)m->last_id[symbol], time = (long long)m->time[symbol];
    if (kind == TRADE) {
        id = (long long)++m->last_id[symbol];
        size = snprintf(text, sizeof text,
                        "{\"e\":\"trade\",\"E\":%lld,\"s\":\"B%04dUSDT\",\"t\":%lld,\"p\":\"%s\","
                        "\"q\":\"1.00000000\",\"T\":%lld,\"m\":true,\"M\":true}",
                        time, symbol, id, price, time);
    } else if (kind == AGG_TRADE) {
        size = snprintf(text, sizeof text,
                        "{\"e\":\"aggTrade\",\"E\":%lld,\"s\":\"B%04dUSDT\",\"a\":%lld,\"p\":\"%s\","
                        "\"q\":\"1.00000000\",\"f\":%lld,\"l\":%lld,\"T\":%lld,\"m\":true,\"M\":true}",
                        time, symbol, id, price, id, id, time);
    } else {
        size = snprintf(text, sizeof text,
                        "{\"u\":%lld,\"s\":\"B%04dUSDT\",\"b\":\"%s\",\"B\":\"1.00000000\",\"a\":\"%s\","
                        "\"A\":\"1.00000000\"}",
                        (long long)++m->quote_id, symbol, price, price);
    }
    int head_size = snprintf(head, sizeof head, "{\"stream\":\"b%04dusdt@%s\",\"data\":", symbol, STREAMS[kind]);
    for (struct connection *c = m->connections; c < m->connections + CONNECTIONS_MAX; c++) {
        if (c->state != WEBSOCKET || !c->carried[kind][symbol])
            continue;
        if (queue_frame(c, OP_TEXT, head, c->combined ? (size_t)head_size : 0, text, (size_t)size,
                        c->combined ? "}" : "") < 0) {
            m->cuts++;
            drop(c);
            continue;
        }
        m->messages++;
        lines++;
    }
    return lines;
}

void market_flush(struct market *m)
{
    for (struct connection *c = m->connections; c < m->connections + CONNECTIONS_MAX; c++) {
        if (c->state == FREE || c->from == c->until)
            continue;
        ssize_t sent = send(c->fd, c->queue + c->from, c->until - c->from, MSG_NOSIGNAL);
        if (sent > 0)
            c->from += (size_t)sent;
        else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            drop(c);
            continue;
        }
        if (c->from == c->until)
            c->from = c->until = 0;
    }
}

int market_lines(const struct market *m, enum kind kind, int symbol)
{
    int lines = 0;
    for (int i = 0; i < CONNECTIONS_MAX; i++)
        lines += m->connections[i].state == WEBSOCKET && m->connections[i].carried[kind][symbol];
    return lines;
}

struct market_counts market_counts(const struct market *m)
{
    struct market_counts counts = {.messages = m->messages, .cuts = m->cuts};
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        const struct connection *c = &m->connections[i];
        counts.connections += c->state == WEBSOCKET;
        counts.waiting += c->until - c->from;
        for (int kind = 0; kind < KINDS && c->state == WEBSOCKET; kind++)
            for (int symbol = 0; symbol < m->symbols; symbol++)
                counts.subscriptions += c->carried[kind][symbol];
    }
    return counts;
}
