/*
 * Every set of kernels that this processor can run, against the plain one, bit for bit: all counts up to 300 and a few
 * long ones, from each sample of a byte on, inputs that end where their memory ends (for ASan and valgrind), outputs
 * between guards; all halves, ties, subnormal numbers, infinities, NaN. What is made or converted as a NaN is compared
 * as a NaN.
 */
#include "sets.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD  64
#define HALVES 65536u

/* Two outputs, one for each set. */
typedef struct outputs {
    uint8_t *plain_block, *set_block;
    void *by_plain, *by_set;
    size_t size;
} outputs;

static outputs make_outputs(size_t size) {
    outputs out = {allocate(size + 2 * GUARD), allocate(size + 2 * GUARD), NULL, NULL, size};
    memset(out.plain_block, 0xA5, size + 2 * GUARD);
    memset(out.set_block, 0xA5, size + 2 * GUARD);
    out.by_plain = out.plain_block + GUARD;
    out.by_set = out.set_block + GUARD;
    return out;
}

static bool same_float(uint32_t a, uint32_t b) {
    return a == b || ((a & 0x7FFFFFFF) > 0x7F800000 && (b & 0x7FFFFFFF) > 0x7F800000);
}

static bool same_half(uint32_t a, uint32_t b) { return a == b || ((a & 0x7FFF) > 0x7C00 && (b & 0x7FFF) > 0x7C00); }

/* width: 4 for floats, 2 for halves, whose NaN are the same; 1 for bytes. Guards are to be as they were. */
static bool same_outputs(outputs out, size_t width) {
    bool same = true;
    for (size_t i = 0; i < GUARD; i++) {
        same &= out.set_block[i] == 0xA5 && out.set_block[GUARD + out.size + i] == 0xA5;
        same &= out.plain_block[i] == 0xA5 && out.plain_block[GUARD + out.size + i] == 0xA5;
    }
    const uint8_t *a = out.by_plain, *b = out.by_set;
    for (size_t i = 0; i < out.size; i += width) {
        uint32_t first = 0, second = 0;
        memcpy(&first, a + i, width);
        memcpy(&second, b + i, width);
        same &= width == 4 ? same_float(first, second) : width == 2 ? same_half(first, second) : first == second;
    }
    free(out.plain_block);
    free(out.set_block);
    return same;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A scale: often one of those that are special. */
static float random_scale(void) {
    static const uint32_t special[] = {0x00000000, 0x80000000, 0x3F800000, 0x00000001, 0x007FFFFF,
                                       0x00800000, 0x80400000, 0x7F7FFFFF, 0x7F800000, 0xFF800000,
                                       0x7FC00000, 0x3DCCCCCD, 0x33800000};
    uint32_t random = next_random();
    return float_of(random % 2 ? special[random / 2 % (sizeof special / sizeof *special)] : next_random());
}

/* ------------------------------------------------------------------------------------------------ packed rows */

static void test_packed(uint32_t k, size_t first, size_t count) {
    uint32_t depth = 1u << k;
    input row = random_input(((first + count) * depth + 7) / 8);
    float floats[256];
    uint16_t halves[256];
    for (size_t i = 0; i < 256; i++) {
        floats[i] = float_of(next_random());
        halves[i] = (uint16_t)next_random();
    }
    outputs out = make_outputs(count);
    plain->unpack[k](row.data, first, count, out.by_plain);
    set->unpack[k](row.data, first, count, out.by_set);
    check(same_outputs(out, 1), "unpack", "first", first, count);

    out = make_outputs(4 * count);
    plain->palette_f32[k](row.data, first, count, floats, out.by_plain);
    set->palette_f32[k](row.data, first, count, floats, out.by_set);
    check(same_outputs(out, 4), "palette_f32", "first", first, count);

    out = make_outputs(2 * count);
    plain->palette_f16[k](row.data, first, count, halves, out.by_plain);
    set->palette_f16[k](row.data, first, count, halves, out.by_set);
    check(same_outputs(out, 1), "palette_f16", "first", first, count);

    if (depth >= 4) {
        int32_t zero = (int32_t)(next_random() % 256);
        float scale = random_scale();
        out = make_outputs(4 * count);
        plain->affine_f32[k - 2](row.data, first, count, zero, scale, out.by_plain);
        set->affine_f32[k - 2](row.data, first, count, zero, scale, out.by_set);
        check(same_outputs(out, 4), "affine_f32", "first", first, count);
    }
    check(plain->count_ones(row.data, count) == set->count_ones(row.data, count), "count_ones", "first", first, count);
    free(row.block);
}

static void test_affine16(size_t count) {
    input high = random_input(count), low = random_input(count);
    int32_t zero = (int32_t)(next_random() % 65536);
    float scale = random_scale();
    outputs out = make_outputs(4 * count);
    plain->affine16_f32(high.data, low.data, count, zero, scale, out.by_plain);
    set->affine16_f32(high.data, low.data, count, zero, scale, out.by_set);
    check(same_outputs(out, 4), "affine16_f32", "first", 0, count);
    free(high.block);
    free(low.block);
}

/* ------------------------------------------------------------------------------------------------ values */

static void compare_widen(const uint8_t *halves, size_t count) {
    outputs out = make_outputs(4 * count);
    plain->widen(halves, count, out.by_plain);
    set->widen(halves, count, out.by_set);
    check(same_outputs(out, 4), "widen", "first", 0, count);
}

static void compare_narrow(const float *values, size_t count) {
    outputs out = make_outputs(2 * count);
    plain->narrow(values, count, out.by_plain);
    set->narrow(values, count, out.by_set);
    check(same_outputs(out, 2), "narrow", "first", 0, count);
}

static void compare_scale_halves(const uint16_t *halves, size_t count, uint16_t scale) {
    outputs out = make_outputs(2 * count);
    plain->scale_halves(halves, count, scale, out.by_plain);
    set->scale_halves(halves, count, scale, out.by_set);
    check(same_outputs(out, 2), "scale_halves", "scale", scale, count);
}

static void compare_scale_floats(const float *values, size_t count, float scale) {
    outputs out = make_outputs(4 * count);
    plain->scale_floats(values, count, scale, out.by_plain);
    set->scale_floats(values, count, scale, out.by_set);
    check(same_outputs(out, 4), "scale_floats", "first", 0, count);
}

static void test_values(size_t count) {
    input bytes = random_input(2 * count);
    uint16_t *halves = allocate(2 * count);
    float *floats = allocate(4 * count);
    for (size_t i = 0; i < count; i++) {
        halves[i] = (uint16_t)next_random();
        floats[i] = float_of(next_random());
    }
    compare_widen(bytes.data, count);
    compare_narrow(floats, count);
    compare_scale_halves(halves, count, (uint16_t)next_random());
    compare_scale_floats(floats, count, random_scale());
    free(bytes.block);
    free(halves);
    free(floats);
}

/* All halves; of floats, those and what lies half way between two, with both neighbours. */
static void test_all_halves(void) {
    static const uint16_t scales[] = {0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x3C01,
                                      0x2E66, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x1400, 0x1401};
    uint16_t *halves = allocate(2 * HALVES);
    uint8_t *bytes = allocate(2 * HALVES);
    float *floats = allocate(5 * 4 * HALVES);
    for (uint32_t half = 0; half < HALVES; half++) {
        halves[half] = (uint16_t)half;
        bytes[2 * half] = (uint8_t)half;
        bytes[2 * half + 1] = (uint8_t)(half >> 8);
    }
    compare_widen(bytes, HALVES);
    plain->widen(bytes, HALVES, floats);
    for (uint32_t half = HALVES; half-- > 0;) {
        uint32_t bits;
        memcpy(&bits, &floats[half], sizeof bits);
        uint32_t tie = half & 0x7C00 ? bits + 0x1000 : bits;
        if (!(half & 0x7C00)) { /* the subnormal numbers' ties are (2 half + 1) / 2^25 */
            float value = (float)(2 * (half & 0x3FF) + 1) * 0x1p-25f;
            memcpy(&tie, &value, sizeof tie);
            tie |= (half & 0x8000) << 16;
        }
        const uint32_t near[5] = {bits, tie, tie - 1, tie + 1, bits + 1};
        memcpy(floats + 5 * half, near, sizeof near);
    }
    compare_narrow(floats, 5 * HALVES);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        compare_scale_halves(halves, HALVES, scales[i]);
        compare_scale_floats(floats, 5 * HALVES, random_scale());
    }
    for (int i = 0; i < 64; i++) {
        compare_scale_halves(halves, HALVES, (uint16_t)next_random());
    }
    free(halves);
    free(bytes);
    free(floats);
}

/* ------------------------------------------------------------------------------------------------ bytes */

static void test_planes(size_t count) {
    for (size_t width = 2; width <= 16; width *= 2) {
        size_t stride = count + next_random() % 5;
        input planes = random_input((width - 1) * stride + count);
        outputs out = make_outputs(width * count);
        plain->join_planes(planes.data, stride, count, width, out.by_plain);
        set->join_planes(planes.data, stride, count, width, out.by_set);
        check(same_outputs(out, 1), "join_planes", "width", width, count);
        free(planes.block);
    }
}

static void test_crc32(size_t count) {
    input data = random_input(count);
    uint32_t before = next_random(), crc = ~before;
    for (size_t i = 0; i < count; i++) {
        crc ^= data.data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
        }
    }
    check(set->crc32(before, data.data, count) == ~crc, "crc32", "first", 0, count);
    free(data.block);
}

static void test_count(size_t count) {
    for (size_t first = 0; first < 10; first++) {
        for (uint32_t k = 0; k < 4; k++) {
            test_packed(k, first, count);
        }
    }
    test_affine16(count);
    test_values(count);
    test_planes(count);
    test_crc32(count);
}

int main(void) {
    static const size_t long_ones[] = {511, 512, 777, 1024, 4099, 100001};
    return run_sets(long_ones, sizeof long_ones / sizeof *long_ones, test_count, test_all_halves);
}
