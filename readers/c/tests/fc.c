/*
 * The kernels of fully connected layers: every set that this processor can run, against the plain one and against sums
 * in binary64, |difference| <= 1e-5 sum |w x|. All counts up to 300 and a few long ones, one row and several, inputs
 * that end where their memory ends (for ASan and valgrind), outputs between guards.
 */
#include "sets.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 16, MOST_ROWS = 9 };

/* -1 to 1 */
static float random_value(void) { return (float)(int32_t)next_random() * 0x1p-31f; }

static float *random_values(size_t count) {
    float *values = allocate(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = random_value();
    }
    return values;
}

/* Rows of weights, and the sums that they are to have with x. */
typedef struct expected {
    double sum[MOST_ROWS], size[MOST_ROWS];
} expected;

static void add_product(expected *sums, size_t row, double weight, double x) {
    sums->sum[row] += weight * x;
    sums->size[row] += fabs(weight * x);
}

typedef struct outputs {
    float values[GUARD + MOST_ROWS + GUARD];
} outputs;

static outputs make_outputs(void) {
    outputs out;
    memset(&out, 0xA5, sizeof out);
    return out;
}

static bool good_outputs(const outputs *by_set, const outputs *by_plain, size_t rows, const expected *sums) {
    const outputs untouched = make_outputs();
    bool good = memcmp(by_set->values, untouched.values, GUARD * sizeof(float)) == 0;
    good &= memcmp(by_set->values + GUARD + rows, untouched.values, (MOST_ROWS - rows + GUARD) * sizeof(float)) == 0;
    for (size_t i = 0; i < rows; i++) {
        double a = (double)by_set->values[GUARD + i], b = (double)by_plain->values[GUARD + i];
        double allowed = 1e-5 * sums->size[i];
        good &= fabs(a - sums->sum[i]) <= allowed && fabs(b - sums->sum[i]) <= allowed && fabs(a - b) <= allowed;
    }
    return good;
}

static uint32_t sample_of(const uint8_t *row, size_t index, uint32_t depth) {
    uint32_t code = 0;
    for (size_t bit = index * depth; bit < (index + 1) * depth; bit++) {
        code = code << 1 | (row[bit / 8] >> (7 - bit % 8) & 1);
    }
    return code;
}

static double half_value(uint16_t half) {
    double fraction = half & 0x3FF, value;
    int exponent = half >> 10 & 31;
    value = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    return half & 0x8000 ? -value : value;
}

static uint16_t random_half(void) { return (uint16_t)(next_random() & 0xBFFF); /* below 2 */ }

/* ------------------------------------------------------------------------------------------------ packed rows */

static void test_pair(uint32_t depth, const float *x, size_t count, const float *paired) {
    size_t in_byte = 8 / depth, group = 16 * in_byte;
    bool good = true;
    for (size_t i = 0; i < count; i++) {
        size_t first = i / group * group, at = i - first;
        good &= paired[first + group > count ? i : first + at % in_byte * 16 + at / in_byte] == x[i];
    }
    check(good, "pair", "rows", 1, count);
}

static void test_palette(uint32_t k, size_t rows, size_t count) {
    uint32_t depth = 1u << k;
    size_t entries = k == 3 ? 256 : 16;
    size_t row_bytes = (count * depth + 7) / 8, stride = row_bytes + next_random() % 3;
    input codes = random_input((rows - 1) * stride + row_bytes);
    float *table = random_values(entries), *x = random_values(count), *paired = allocate(count * sizeof *paired);
    uint16_t *halves = allocate(entries * sizeof *halves);
    expected floats_sum = {{0}, {0}}, halves_sum = {{0}, {0}};
    for (size_t i = 0; i < entries; i++) {
        halves[i] = random_half();
    }
    set->pair(depth, x, count, paired);
    test_pair(depth, x, count, paired);
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < count; i++) {
            uint32_t code = sample_of(codes.data + row * stride, i, depth);
            add_product(&floats_sum, row, (double)table[code], (double)x[i]);
            add_product(&halves_sum, row, half_value(halves[code]), (double)x[i]);
        }
    }
    outputs a = make_outputs(), b = make_outputs();
    set->dot_palette_f32[k](codes.data, stride, rows, count, table, paired, a.values + GUARD);
    plain->dot_palette_f32[k](codes.data, stride, rows, count, table, paired, b.values + GUARD);
    check(good_outputs(&a, &b, rows, &floats_sum), "dot_palette_f32", "rows", rows, count);
    a = make_outputs();
    b = make_outputs();
    set->dot_palette_f16[k](codes.data, stride, rows, count, halves, paired, a.values + GUARD);
    plain->dot_palette_f16[k](codes.data, stride, rows, count, halves, paired, b.values + GUARD);
    check(good_outputs(&a, &b, rows, &halves_sum), "dot_palette_f16", "rows", rows, count);
    free(codes.block);
    free(table);
    free(x);
    free(paired);
    free(halves);
}

static void test_codes(size_t rows, size_t count) {
    size_t stride = count + next_random() % 3;
    input high = random_input((rows - 1) * stride + count), low = random_input((rows - 1) * stride + count);
    int32_t zero8 = (int32_t)(next_random() % 256), zero16 = (int32_t)(next_random() % 65536);
    float *x = random_values(count);
    expected sums8 = {{0}, {0}}, sums16 = {{0}, {0}};
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < count; i++) {
            int32_t a = high.data[row * stride + i], b = low.data[row * stride + i];
            add_product(&sums8, row, a - zero8, (double)x[i]);
            add_product(&sums16, row, 256 * a + b - zero16, (double)x[i]);
        }
    }
    outputs a = make_outputs(), b = make_outputs();
    set->dot_codes8(high.data, stride, rows, count, zero8, x, a.values + GUARD);
    plain->dot_codes8(high.data, stride, rows, count, zero8, x, b.values + GUARD);
    check(good_outputs(&a, &b, rows, &sums8), "dot_codes8", "rows", rows, count);
    a = make_outputs();
    b = make_outputs();
    set->dot_codes16(high.data, low.data, stride, rows, count, zero16, x, a.values + GUARD);
    plain->dot_codes16(high.data, low.data, stride, rows, count, zero16, x, b.values + GUARD);
    check(good_outputs(&a, &b, rows, &sums16), "dot_codes16", "rows", rows, count);
    free(high.block);
    free(low.block);
    free(x);
}

/* ------------------------------------------------------------------------------------------------ one row */

static void test_floats(size_t count) {
    float *w = random_values(count), *x = random_values(count), *y = random_values(count + 1);
    input halves = random_input(2 * count);
    expected sums = {{0}, {0}}, half_sums = {{0}, {0}};
    for (size_t i = 0; i < count; i++) {
        uint16_t half = random_half();
        halves.data[2 * i] = (uint8_t)half;
        halves.data[2 * i + 1] = (uint8_t)(half >> 8);
        add_product(&sums, 0, (double)w[i], (double)x[i]);
        add_product(&half_sums, 0, half_value(half), (double)x[i]);
    }
    outputs a = make_outputs(), b = make_outputs();
    a.values[GUARD] = set->dot_f32(w, x, count);
    b.values[GUARD] = plain->dot_f32(w, x, count);
    check(good_outputs(&a, &b, 1, &sums), "dot_f32", "rows", 1, count);
    a.values[GUARD] = set->dot_f16(halves.data, x, count);
    b.values[GUARD] = plain->dot_f16(halves.data, x, count);
    check(good_outputs(&a, &b, 1, &half_sums), "dot_f16", "rows", 1, count);

    float behind = y[count], factor = random_value();
    float *before = allocate(count * sizeof *before);
    bool good = true;
    if (count > 0) {
        memcpy(before, y, count * sizeof *before);
    }
    set->axpy_f32(factor, x, count, y);
    for (size_t i = 0; i < count; i++) {
        double product = (double)factor * (double)x[i];
        good &= fabs((double)y[i] - (double)before[i] - product) <= 1e-6 * (fabs((double)before[i]) + fabs(product));
    }
    check(good && y[count] == behind, "axpy_f32", "rows", 1, count);
    free(w);
    free(x);
    free(y);
    free(before);
    free(halves.block);
}

static void test_split(size_t count) {
    input plane = random_input((count + 7) / 8);
    uint32_t density = next_random() % 4; /* all; none; a tenth; half of them */
    float *table = random_values(256), *x = random_values(count);
    size_t ones = 0;
    expected sums = {{0}, {0}};
    for (size_t i = 0; i < count; i++) {
        bool one =
            density == 0 || (density == 2 && next_random() % 10 == 0) || (density == 3 && next_random() % 2 == 0);
        uint8_t bit = (uint8_t)(0x80 >> i % 8);
        plane.data[i / 8] =
            (uint8_t)(one ? plane.data[i / 8] | bit : plane.data[i / 8] & ~bit); /* spare bits stay random */
        ones += one;
    }
    input codes = random_input(ones);
    for (size_t i = 0, n = 0; i < count; i++) {
        if (sample_of(plane.data, i, 1) == 1) {
            add_product(&sums, 0, (double)table[codes.data[n++]], (double)x[i]);
        }
    }
    outputs a = make_outputs(), b = make_outputs();
    a.values[GUARD] = set->dot_split(plane.data, count, codes.data, ones, table, x);
    b.values[GUARD] = plain->dot_split(plane.data, count, codes.data, ones, table, x);
    check(good_outputs(&a, &b, 1, &sums), "dot_split", "rows", 1, count);
    free(plane.block);
    free(codes.block);
    free(table);
    free(x);
}

/* ------------------------------------------------------------------------------------------------ sub-vectors */

static void test_inner_products(size_t vector) {
    size_t entries = 1 + next_random() % 20;
    float *table = random_values(entries * vector), *x = random_values(vector), *products = random_values(entries + 1);
    float behind = products[entries];
    bool good = true;
    set->inner_products(table, entries, vector, x, products);
    for (size_t entry = 0; entry < entries; entry++) {
        expected sums = {{0}, {0}};
        for (size_t j = 0; j < vector; j++) {
            add_product(&sums, 0, (double)table[entry * vector + j], (double)x[j]);
        }
        good &= fabs((double)products[entry] - sums.sum[0]) <= 1e-5 * sums.size[0];
    }
    check(good && products[entries] == behind, "inner_products", "entries", entries, vector);
    free(table);
    free(x);
    free(products);
}

static void test_sum_products(size_t rows, size_t count) {
    size_t entries = 1 + next_random() % 256, stride = count + next_random() % 3;
    input codes = random_input((rows - 1) * stride + count);
    float *products = random_values(count * entries);
    expected sums = {{0}, {0}};
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < count; i++) {
            size_t code = codes.data[row * stride + i];
            add_product(&sums, row, (double)products[i * entries + (code < entries ? code : entries - 1)], 1);
        }
    }
    outputs a = make_outputs(), b = make_outputs();
    set->sum_products8(codes.data, stride, rows, count, products, entries, a.values + GUARD);
    plain->sum_products8(codes.data, stride, rows, count, products, entries, b.values + GUARD);
    check(good_outputs(&a, &b, rows, &sums), "sum_products8", "rows", rows, count);
    free(codes.block);
    free(products);
}

static void test_count(size_t count) {
    size_t rows = 1 + next_random() % MOST_ROWS;
    for (uint32_t k = 0; k < 4; k++) {
        test_palette(k, 1, count);
        test_palette(k, rows, count);
    }
    test_codes(1, count);
    test_codes(rows, count);
    test_floats(count);
    test_split(count);
    if (count <= 300) {
        test_inner_products(count);
        test_sum_products(1, count);
        test_sum_products(rows, count);
    }
}

int main(void) {
    static const size_t long_ones[] = {511, 512, 777, 1024, 2047, 2048};
    return run_sets(long_ones, sizeof long_ones / sizeof *long_ones, test_count, NULL);
}
