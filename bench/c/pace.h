/* How the senders of the bench keep a rate: a timer of 100 us, and what a late tick missed is made up. */
#ifndef BENCH_PACE_H
#define BENCH_PACE_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/timerfd.h>

#include "measure.h"

enum { TICK_NS = 100000, LIFE_S = 600, CATCH_UP_MAX = 100000 };

struct pace {
    double rate;   /* messages a second; 0 is silence */
    int64_t since; /* when this rate was set */
    uint64_t sent; /* messages since then; the sender counts them up */
};

/* A file descriptor that becomes readable at every tick; it stays so until its 8 bytes are read. */
static inline int pace_timer(void)
{
    struct itimerspec tick = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0 || timerfd_settime(fd, 0, &tick, NULL) < 0)
        fail("Cannot set a timer: %s.", strerror(errno));
    return fd;
}

static inline void pace_set(struct pace *pace, double rate)
{
    *pace = (struct pace){.rate = rate, .since = monotonic_ns()};
}

/* How many messages are due now: at most CATCH_UP_MAX, so that a call stays short. */
static inline int pace_due(const struct pace *pace)
{
    double due = pace->rate * (double)(monotonic_ns() - pace->since) / 1e9 - (double)pace->sent;
    return due < 0 ? 0 : due > CATCH_UP_MAX ? CATCH_UP_MAX : (int)due;
}

#endif
