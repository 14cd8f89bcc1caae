/* libFuzzer against the compiled decoder, under AddressSanitizer and UndefinedBehaviorSanitizer.
 *
 * The decoder's C file, as Cython writes it, is a part of this one; nothing of Python is called. An input is a message
 * in memory of exactly the size that the decoder may read. What must hold for every input:
 *   - nothing is read beyond the padding, and what lies in the padding changes nothing;
 *   - an event of the predicted layout is the same event for the general scanner;
 *   - decimals are what strtod makes of them, the symbol and the times are within their limits.
 */
#include <Python.h>
#include <stdio.h>

/* The module's entry becomes static: then nothing reaches the parts that call Python, and the compiler drops them. */
#undef PyMODINIT_FUNC
#define PyMODINIT_FUNC static PyObject *
#include DECODER

#define EVENT __pyx_t_9tradeback_5_fast_6record_Event
#define DECODE __pyx_f_9tradeback_5_fast_6decode_decode_event
#define DECODE_ANY __pyx_f_9tradeback_5_fast_6decode_decode_any
#define PADDING 64

static void require(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

static int same_double(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

static void require_same(const struct EVENT *a, const struct EVENT *b, ptrdiff_t moved) {
    require(a->kind == b->kind && a->flags == b->flags && a->qty_scale == b->qty_scale, "kind, flags, scale");
    require(a->symbol_len == b->symbol_len && a->symbol + moved == b->symbol, "symbol");
    require(a->id == b->id && a->first_id == b->first_id && a->last_id == b->last_id, "ids");
    require(a->ts_event == b->ts_event && a->ts_sent == b->ts_sent, "times");
    require(a->qty_mantissa == b->qty_mantissa, "mantissa");
    require(same_double(a->price, b->price) && same_double(a->qty, b->qty), "price and quantity");
    require(same_double(a->bid, b->bid) && same_double(a->bid_qty, b->bid_qty), "bid");
    require(same_double(a->ask, b->ask) && same_double(a->ask_qty, b->ask_qty), "ask");
}

static void require_possible(const struct EVENT *event, const char *data, size_t size) {
    char text[32];
    require(event->kind >= 1 && event->kind <= 3, "a kind");
    require(event->symbol_len >= 1 && event->symbol_len <= 50, "the symbol's length");
    require(event->symbol > data && event->symbol + event->symbol_len < data + size, "the symbol lies inside");
    require(event->ts_event >= 0 && event->ts_sent >= 0, "times after 1970");
    require(event->price >= 0 && event->bid >= 0 && event->ask >= 0, "no price below zero, no NaN");
    require(event->qty_scale <= 18, "the scale");
    snprintf(text, sizeof text, "%llue-%d", (unsigned long long)event->qty_mantissa, event->qty_scale);
    require(same_double(event->qty, strtod(text, NULL)), "the quantity is its mantissa and scale");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size > 1 << 16 || !tb_open_locale()) return 0;
    char *first = malloc(size + PADDING), *second = malloc(size + PADDING);
    require(first != NULL && second != NULL, "memory");
    memcpy(first, bytes, size);
    memcpy(second, bytes, size);
    memset(first + size, 0, PADDING);
    /* The other padding goes on as the message's own middle does: the text that could complete a message cut short. */
    for (size_t at = 0; at < PADDING; at++) second[size + at] = size ? (char)bytes[(size / 2 + at) % size] : '1';

    struct EVENT a, b, c;
    memset(&a, 0xA5, sizeof a);
    memset(&b, 0x5A, sizeof b);
    memset(&c, 0x33, sizeof c);
    int status = DECODE(first, (Py_ssize_t)size, &a);
    require(status >= 0 && status <= 4, "a known status");
    require(DECODE(second, (Py_ssize_t)size, &b) == status, "the padding changes no status");
    require(DECODE_ANY(first, (Py_ssize_t)size, &c) == status, "both ways say the same");
    if (status == 0) {
        require_possible(&a, first, size);
        require_same(&a, &b, second - first);
        require_same(&a, &c, 0);
        /* A message that is cut short is never an event, even where the rest of it lies behind. White space after it
         * is not part of it. */
        size_t whole = size;
        while (memchr(" \t\n\r", first[whole - 1], 4))
            whole--;
        size_t cut = whole - 1 - (size_t)(a.id % (whole < PADDING ? whole : PADDING));
        require(DECODE(first, (Py_ssize_t)cut, &b) != 0, "cut short");
    }
    free(first);
    free(second);
    return 0;
}
