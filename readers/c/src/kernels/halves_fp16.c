/* Half-precision arithmetic, where the processor has it: aarch64, compiled with -march=armv8.2-a+fp16. */
#include "vector.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)

#include "plain.h"

#include <arm_neon.h>

/* binary32 holds the product of two halves exactly, so that rounding it to a half at once gives the same bits
 * (tensors.md §8). */
void mm_fp16_scale_halves(const uint16_t *halves, size_t count, uint16_t scale, uint16_t *out) {
    size_t i = 0;
    float16x8_t factor = vreinterpretq_f16_u16(vdupq_n_u16(scale));
    for (; i + 8 <= count; i += 8) {
        float16x8_t product = vmulq_f16(vreinterpretq_f16_u16(vld1q_u16(halves + i)), factor);
        vst1q_u16(out + i, vreinterpretq_u16_f16(product));
    }
    mm_plain_scale_halves(halves + i, count - i, scale, out + i);
}

#elif defined(__aarch64__)
#error "halves_fp16.c takes -march=armv8.2-a+fp16"
#endif
