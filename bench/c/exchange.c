/* exchange PORT SYMBOLS: the exchange of market.h at a steady rate, under command of its standard input.
 *
 *   rate MESSAGES KINDS   from now on so many messages a second in all, over the symbols in turn. KINDS is a word of
 *                         the letters t (trade), a (the same trade as aggTrade) and q (bookTicker), sent in that order
 *   status                answers with one line of JSON
 *   end of input          the program ends, as it does by itself after 10 minutes
 *
 * Its first line is {"port":N}.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "market.h"
#include "pace.h"

enum { KINDS_MAX = 16 };

static struct pace pace;
static enum kind kinds[KINDS_MAX];
static int kind_count;

/* Takes one line of commands; a rate counts from now. */
static void obey(struct market *m, const char *line)
{
    char letters[KINDS_MAX + 1];
    double rate;
    if (sscanf(line, "rate %lf %16s", &rate, letters) == 2 && rate >= 0 && rate <= 1e7) {
        pace_set(&pace, rate);
        kind_count = 0;
        for (const char *k = letters; *k; k++) {
            if (!strchr("taq", *k))
                fail("'%c' is no kind of message: use t (trade), a (aggTrade) and q (bookTicker).", *k);
            kinds[kind_count++] = *k == 't' ? TRADE : *k == 'a' ? AGG_TRADE : QUOTE;
        }
    } else if (!strcmp(line, "status\n")) {
        struct market_counts c = market_counts(m);
        printf("{\"connections\":%d,\"subscriptions\":%ld,\"messages\":%llu,\"cuts\":%llu,\"waiting\":%llu}\n",
               c.connections, c.subscriptions, (unsigned long long)c.messages, (unsigned long long)c.cuts,
               (unsigned long long)c.waiting);
    } else {
        fail("exchange does not know the command '%s': use `rate MESSAGES KINDS` or `status`.", line);
    }
}

/* Sends what is due: round by round, one symbol a round and every kind of it in turn. */
static void send_due(struct market *m, unsigned symbols)
{
    for (int due = pace_due(&pace); due > 0; due--, pace.sent++) {
        uint64_t round = pace.sent / (unsigned)kind_count;
        market_send(m, kinds[pace.sent % (unsigned)kind_count], (int)(round % symbols));
    }
    market_flush(m);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage: exchange PORT SYMBOLS");
    int port = (int)number(argv[1], "PORT", 0, 65535);
    int symbols = (int)number(argv[2], "SYMBOLS", 1, SYMBOLS_MAX);
    struct market *m = market_open(&port, symbols);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0); /* or poll would not see a second line that stdio has taken already */
    printf("{\"port\":%d}\n", port);
    int64_t end = monotonic_ns() + LIFE_S * 1000000000ll;
    struct pollfd watched[3] = {{.fd = market_fd(m), .events = POLLIN},
                                {.fd = STDIN_FILENO, .events = POLLIN},
                                {.fd = pace_timer(), .events = POLLIN}};
    while (monotonic_ns() < end) {
        uint64_t ticks;
        char line[128];
        watched[2].events = pace.rate > 0 ? POLLIN : 0;
        if (poll(watched, 3, 1000) < 0 && errno != EINTR)
            fail("poll failed: %s.", strerror(errno));
        if (watched[0].revents)
            market_poll(m);
        if (watched[1].revents) {
            if (!fgets(line, sizeof line, stdin))
                return 0;
            obey(m, line);
        }
        if (watched[2].revents && read(watched[2].fd, &ticks, sizeof ticks) > 0 && pace.rate > 0)
            send_due(m, (unsigned)symbols);
    }
    fail("exchange was left running for %d s and ends itself.", LIFE_S);
}
