/* Time, latency histograms, and how a program of the bench ends: with a sentence, or with a line of JSON. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdint.h>

/* Log-linear: 64 steps to each power of two, so a value is known to 1.6%. 40 powers reach beyond an hour. */
enum { HISTOGRAM_STEPS = 64, HISTOGRAM_POWERS = 40, HISTOGRAM_SLOTS = HISTOGRAM_STEPS * HISTOGRAM_POWERS };

struct histogram {
    uint64_t slots[HISTOGRAM_SLOTS];
    uint64_t count;
    uint64_t max;
};

/* CLOCK_MONOTONIC in ns: the one clock that all processes of a machine share. */
int64_t monotonic_ns(void);

/* CLOCK_REALTIME in ms: what an exchange writes as event time. */
int64_t unix_ms(void);

/* Counts one value in ns; what is below zero counts as zero. */
void histogram_add(struct histogram *h, int64_t value_ns);

/* The value in ns that `share` (0 to 1) of all values do not exceed; 0 where there is none. */
uint64_t histogram_at(const struct histogram *h, double share);

/* Prints `"NAME_us":{"p50":..,"p99":..,"p999":..,"max":..}`, in microseconds. */
void histogram_print(const struct histogram *h, const char *name);

/* CPU time in ns that all threads of `pid` have used; 0 where there is no such process, or pid is 0. */
int64_t cpu_ns(int pid);

/* Ends the program with one sentence on stderr: the thing, the value, the remedy. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* strtol for options and commands: fails with a sentence that names `what`. */
long number(const char *text, const char *what, long least, long most);

/* The same for a decimal fraction such as a number of seconds. */
double fraction(const char *text, const char *what, double least, double most);

#endif
