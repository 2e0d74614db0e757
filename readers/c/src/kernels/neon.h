/*
 * NEON for all: the vector kernels are written once, in NEON's intrinsics, and compiled
 *
 *     aarch64   once, default flags                                              mm_neon_...
 *     armv7     once, -mfpu=neon-vfpv4 -mfp16-format=ieee                        mm_neon_...
 *     x86-64    twice, through SIMDe: -mssse3 -msse4.2 -mpopcnt                  mm_sse4_...
 *                                     -mavx2 -mfma -mf16c -mpopcnt -mbmi         mm_avx2_...
 *
 * and MM_WITH_VECTORS=1 tells choose.c so. Below are the few steps that one architecture lacks, or that SIMDe does one
 * element at a time.
 */
#ifndef MM_KERNELS_NEON_H
#define MM_KERNELS_NEON_H

#if defined(__aarch64__) || defined(__arm__)
#include <arm_neon.h>
#define MM_VECTOR(name) mm_neon_##name
#else
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <immintrin.h>
#include <simde/arm/neon.h>
#define MM_ON_X86 1
#ifdef __AVX2__
#define MM_VECTOR(name) mm_avx2_##name
#else
#define MM_VECTOR(name) mm_sse4_##name
#endif
#endif

#include "vector.h"

/* A kernel's parts are to become one loop also where the compiler is told to save space. */
#define MM_INLINE static inline __attribute__((always_inline))

/* table[code] for codes below 16 */
MM_INLINE uint8x16_t mm_lookup(uint8x16_t table, uint8x16_t codes) {
#if defined(MM_ON_X86)
    return (uint8x16_t)_mm_shuffle_epi8((__m128i)table, (__m128i)codes);
#elif defined(__aarch64__)
    return vqtbl1q_u8(table, codes);
#else
    uint8x8x2_t halves = {{vget_low_u8(table), vget_high_u8(table)}};
    return vcombine_u8(vtbl2_u8(halves, vget_low_u8(codes)), vtbl2_u8(halves, vget_high_u8(codes)));
#endif
}

/* Elements of 2 or 4 bytes, given as byte 0 of 16 of them, byte 1, ... */
MM_INLINE void mm_store_joined2(uint8_t *out, uint8x16_t a, uint8x16_t b) {
#if defined(MM_ON_X86)
    vst1q_u8(out, vzip1q_u8(a, b));
    vst1q_u8(out + 16, vzip2q_u8(a, b));
#else
    uint8x16x2_t planes = {{a, b}};
    vst2q_u8(out, planes);
#endif
}

MM_INLINE void mm_store_joined4(uint8_t *out, uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d) {
#if defined(MM_ON_X86)
    uint16x8_t ab0 = vreinterpretq_u16_u8(vzip1q_u8(a, b)), ab1 = vreinterpretq_u16_u8(vzip2q_u8(a, b));
    uint16x8_t cd0 = vreinterpretq_u16_u8(vzip1q_u8(c, d)), cd1 = vreinterpretq_u16_u8(vzip2q_u8(c, d));
    vst1q_u8(out, vreinterpretq_u8_u16(vzip1q_u16(ab0, cd0)));
    vst1q_u8(out + 16, vreinterpretq_u8_u16(vzip2q_u16(ab0, cd0)));
    vst1q_u8(out + 32, vreinterpretq_u8_u16(vzip1q_u16(ab1, cd1)));
    vst1q_u8(out + 48, vreinterpretq_u8_u16(vzip2q_u16(ab1, cd1)));
#else
    uint8x16x4_t planes = {{a, b, c, d}};
    vst4q_u8(out, planes);
#endif
}

/* The lesser one of each pair. SIMDe's own way through 8 bytes are MMX registers with some compilers, which nobody
 * would empty for x87 arithmetic. */
MM_INLINE uint8x8_t mm_min8(uint8x8_t a, uint8x8_t b) {
#if defined(MM_ON_X86)
    return vget_low_u8(vminq_u8(vcombine_u8(a, a), vcombine_u8(b, b)));
#else
    return vmin_u8(a, b);
#endif
}

/* 16 elements of 2 or 4 bytes taken apart into their bytes 0, 1, ...: for tables, not fast on x86-64 */
MM_INLINE uint8x16x2_t mm_split2(const uint16_t *table) { return vld2q_u8((const uint8_t *)table); }

MM_INLINE uint8x16x4_t mm_split4(const float *table) { return vld4q_u8((const uint8_t *)table); }

/* Four halves as floats: exact, also on armv7, whose NEON flushes subnormal floats, but no halves. */
MM_INLINE float32x4_t mm_widen4(uint16x4_t halves) {
#if !defined(MM_ON_X86)
    return vcvt_f32_f16(vreinterpret_f16_u16(halves));
#elif defined(__F16C__)
    return (float32x4_t)_mm_cvtph_ps((__m128i)vcombine_u16(halves, halves));
#else
    int32x4_t bits = vreinterpretq_s32_u32(vmovl_u16(halves));
    int32x4_t magnitude = vandq_s32(bits, vdupq_n_s32(0x7FFF));
    float32x4_t subnormal = vmulq_n_f32(vcvtq_f32_s32(magnitude), 0x1p-24f);
    int32x4_t normal = vaddq_s32(vshlq_n_s32(magnitude, 13), vdupq_n_s32((127 - 15) << 23));
    uint32x4_t endless = vandq_u32(vcgtq_s32(magnitude, vdupq_n_s32(0x7BFF)), vdupq_n_u32(0x7F800000));
    uint32x4_t value = vbslq_u32(vcgtq_s32(magnitude, vdupq_n_s32(0x03FF)),
                                 vorrq_u32(vreinterpretq_u32_s32(normal), endless), vreinterpretq_u32_f32(subnormal));
    uint32x4_t sign = vreinterpretq_u32_s32(vshlq_n_s32(veorq_s32(bits, magnitude), 16));
    return vreinterpretq_f32_u32(vorrq_u32(value, sign));
#endif
}

/* To nearest, ties to even. */
MM_INLINE uint16x4_t mm_narrow4(float32x4_t values) {
#if !defined(MM_ON_X86)
    return vreinterpret_u16_f16(vcvt_f16_f32(values));
#elif defined(__F16C__)
    return vget_low_u16((uint16x8_t)_mm_cvtps_ph((__m128)values, _MM_FROUND_TO_NEAREST_INT));
#else /* the steps of mm_float_to_half */
    int32x4_t bits = vreinterpretq_s32_f32(values);
    int32x4_t magnitude = vandq_s32(bits, vdupq_n_s32(0x7FFFFFFF));
    uint32x4_t sign = vshrq_n_u32(vreinterpretq_u32_s32(veorq_s32(bits, magnitude)), 16);
    int32x4_t even = vandq_s32(vshrq_n_s32(magnitude, 13), vdupq_n_s32(1));
    int32x4_t normal = vshrq_n_s32(vaddq_s32(vsubq_s32(magnitude, vdupq_n_s32(((127 - 15) << 23) - 0xFFF)), even), 13);
    float32x4_t sum = vaddq_f32(vreinterpretq_f32_s32(magnitude), vdupq_n_f32(0.5f));
    int32x4_t subnormal = vsubq_s32(vreinterpretq_s32_f32(sum), vdupq_n_s32(0x3F000000));
    int32x4_t half = vbslq_s32(vcgtq_s32(magnitude, vdupq_n_s32(0x387FFFFF)), normal, subnormal);
    half = vbslq_s32(vcgtq_s32(magnitude, vdupq_n_s32(0x477FEFFF)), vdupq_n_s32(0x7C00), half);
    half = vbslq_s32(vcgtq_s32(magnitude, vdupq_n_s32(0x7F800000)), vdupq_n_s32(0x7E00), half);
    return vmovn_u32(vorrq_u32(vreinterpretq_u32_s32(half), sign));
#endif
}

#endif
