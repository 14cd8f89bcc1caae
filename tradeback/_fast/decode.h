/* What the decoder needs below Cython: literals compared as words, eight digits at a time, strtod without a locale. */
#pragma once
#include <locale.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TB_INLINE static inline __attribute__((always_inline))

/* The powers of ten that a double holds exactly. */
static const double TB_POWERS[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                     1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* The "C" locale, for the decimal point: a host program may have chosen another one. Made once, kept for ever. */
static locale_t tb_c_locale = (locale_t)0;

static int tb_open_locale(void) {
    if (tb_c_locale == (locale_t)0) tb_c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return tb_c_locale != (locale_t)0;
}

/* Correctly rounded, as float() is. `text` ends with NUL. */
static double tb_strtod(const char *text) {
    return strtod_l(text, NULL, tb_c_locale);
}
