#define _GNU_SOURCE
#include "measure.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The first 64 slots hold 0..63 ns one by one; then each power of two is cut in 64 steps. */
static unsigned slot_of(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned power = 63 - (unsigned)__builtin_clzll(value);
    unsigned slot = (power - 5) * HISTOGRAM_STEPS + (unsigned)((value >> (power - 6)) & (HISTOGRAM_STEPS - 1));
    return slot < HISTOGRAM_SLOTS ? slot : HISTOGRAM_SLOTS - 1;
}

static uint64_t value_of(unsigned slot)
{
    if (slot < HISTOGRAM_STEPS)
        return slot;
    unsigned power = slot / HISTOGRAM_STEPS + 5;
    return (HISTOGRAM_STEPS + slot % HISTOGRAM_STEPS) * (1ull << (power - 6));
}

void histogram_add(struct histogram *h, int64_t value_ns)
{
    uint64_t value = value_ns > 0 ? (uint64_t)value_ns : 0;
    h->slots[slot_of(value)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

uint64_t histogram_at(const struct histogram *h, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)h->count);
    uint64_t seen = 0;
    for (unsigned slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
        seen += h->slots[slot];
        if (seen > wanted)
            return value_of(slot);
    }
    return h->max;
}

void histogram_print(const struct histogram *h, const char *name)
{
    printf("\"%s_us\":{\"p50\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f}", name, histogram_at(h, .5) / 1e3,
           histogram_at(h, .99) / 1e3, histogram_at(h, .999) / 1e3, h->max / 1e3);
}

int64_t cpu_ns(int pid)
{
    char path[64];
    int64_t total = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = pid ? opendir(path) : NULL;
    if (!tasks)
        return 0;
    for (struct dirent *task; (task = readdir(tasks));) {
        char stat[384];
        long long used;
        if (task->d_name[0] == '.')
            continue;
        snprintf(stat, sizeof stat, "%s/%s/schedstat", path, task->d_name);
        FILE *f = fopen(stat, "r");
        if (!f)
            continue; /* the thread ended while we looked */
        if (fscanf(f, "%lld", &used) == 1)
            total += used;
        fclose(f);
    }
    closedir(tasks);
    return total;
}

void fail(const char *format, ...)
{
    va_list args;
    fflush(stdout);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

long number(const char *text, const char *what, long least, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || (*end && *end != '\n') || value < least || value > most)
        fail("%s is '%s': give a whole number from %ld to %ld.", what, text, least, most);
    return value;
}

double fraction(const char *text, const char *what, double least, double most)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || (*end && *end != '\n') || !(value >= least && value <= most))
        fail("%s is '%s': give a number from %g to %g.", what, text, least, most);
    return value;
}
