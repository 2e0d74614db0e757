/* CRC-32 of zlib with the processor's help; compiled with -march=armv8-a+crc, or -mpclmul -msse4.1 on x86-64. */
#include "vector.h"

#include "plain.h"

#if defined(__aarch64__)

#include <arm_acle.h>

uint32_t mm_crc_crc32(uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        crc = __crc32d(crc, word);
    }
    for (; size > 0; data++, size--) {
        crc = __crc32b(crc, *data);
    }
    return ~crc;
}

#elif defined(__x86_64__) && defined(__PCLMUL__)

#include <immintrin.h>

/*
 * Folding (Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009).
 * In zlib's order of bits, 16 bytes that stand n bits before others equal, modulo the polynomial, their low half times
 * x^(n + 32) plus their high half times x^(n - 32), both at the place of those others. The constants are these two
 * powers modulo the polynomial, bits mirrored, times x.
 */
static __m128i fold(__m128i value, __m128i powers, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(value, powers, 0x00);
    __m128i high = _mm_clmulepi64_si128(value, powers, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

static __m128i load(const uint8_t *data) { return _mm_loadu_si128((const __m128i *)(const void *)data); }

uint32_t mm_crc_crc32(uint32_t crc, const uint8_t *data, size_t size) {
    if (size < 64) {
        return mm_plain_crc32(crc, data, size);
    }
    const __m128i by_512 = _mm_set_epi64x(0x00000001C6E41596, 0x0000000154442BD4);
    const __m128i by_128 = _mm_set_epi64x(0x00000000CCAA009E, 0x00000001751997D0);
    __m128i lane[4];
    for (int i = 0; i < 4; i++) {
        lane[i] = load(data + 16 * i);
    }
    lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi32_si128((int)~crc));
    for (data += 64, size -= 64; size >= 64; data += 64, size -= 64) {
        for (int i = 0; i < 4; i++) {
            lane[i] = fold(lane[i], by_512, load(data + 16 * i));
        }
    }
    __m128i value = fold(fold(fold(lane[0], by_128, lane[1]), by_128, lane[2]), by_128, lane[3]);
    for (; size >= 16; data += 16, size -= 16) {
        value = fold(value, by_128, load(data));
    }
    /* What is left is the remainder of these 16 bytes before the last few: zlib has no better way for so little. */
    uint8_t folded[16];
    _mm_storeu_si128((__m128i *)(void *)folded, value);
    return mm_plain_crc32(mm_plain_crc32(UINT32_MAX, folded, sizeof folded), data, size);
}

#endif
