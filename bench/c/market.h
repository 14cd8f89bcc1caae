/* The exchange of the bench: as much of Binance's protocol as a feed needs, for made-up symbols B0000USDT,
 * B0001USDT, ... A price is the moment of sending: CLOCK_MONOTONIC in seconds with eight decimals, so whoever gets
 * it can tell its age to 10 ns. Every quantity is 1, so volumes count trades. */
#ifndef BENCH_MARKET_H
#define BENCH_MARKET_H

#include <stdint.h>

enum { SYMBOLS_MAX = 4096, KINDS = 3 };
enum kind { TRADE, AGG_TRADE, QUOTE };

struct market;

/* Listens on 127.0.0.1:*port (0: the kernel chooses; *port is set) for /stream, /ws and the few REST paths. */
struct market *market_open(int *port, int symbols);

/* For epoll: readable when market_poll has something to do. */
int market_fd(const struct market *m);

/* Accepts, answers, closes: everything that waits, without blocking. */
void market_poll(struct market *m);

/* Queues one message of a symbol for all connections that subscribed to it; returns for how many. An aggTrade
 * repeats the symbol's last trade, as the exchange's second line of the same fact does. */
int market_send(struct market *m, enum kind kind, int symbol);

/* Hands what is queued to the sockets. What a full socket does not take waits in a queue of 16 MiB;
 * a connection that lets it overflow is cut and counted. */
void market_flush(struct market *m);

/* Connections that carry `symbol` as `kind`. */
int market_lines(const struct market *m, enum kind kind, int symbol);

struct market_counts {
    int connections;
    long subscriptions; /* symbol and kind, over all connections */
    uint64_t messages;  /* queued, once for each connection */
    uint64_t cuts;      /* connections cut because they did not read */
    uint64_t waiting;   /* bytes queued now */
};

struct market_counts market_counts(const struct market *m);

#endif
