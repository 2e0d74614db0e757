/* The table of all kernels, and which of its columns this processor runs. */
#include "mobilemodel.h"
#include "plain.h"
#include "vector.h"

#include <stdbool.h>

#if defined(MM_ON_AARCH64) || defined(MM_ON_ARMV7)
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

/*
 * A row: a member of mm_kernels, the name that its functions share, then for each set but the plain one whose function
 * serves: mm_neon_unpack1, mm_plain_unpack8, ... The plain twin is mm_plain_<name>.
 *
 * Where a column says plain: 8-bit codes are looked up faster one by one than in tables of bytes (but for halves on
 * aarch64), and NEON of armv7 flushes subnormal products.
 */
/* clang-format off */
#define KERNELS(ROW)                                                                                                   \
    /*  member              function          aarch64              armv7  x86-64 */                                    \
    /*                                        fp16   crc    neon   neon   avx2   sse4 */                               \
    ROW(unpack[0],          unpack1,          neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(unpack[1],          unpack2,          neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(unpack[2],          unpack4,          neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(unpack[3],          unpack8,          plain, plain, plain, plain, plain, plain)                                \
    ROW(palette_f32[0],     palette1_f32,     neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(palette_f32[1],     palette2_f32,     neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(palette_f32[2],     palette4_f32,     neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(palette_f32[3],     palette8_f32,     plain, plain, plain, plain, plain, plain)                                \
    ROW(palette_f16[0],     palette1_f16,     neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(palette_f16[1],     palette2_f16,     neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(palette_f16[2],     palette4_f16,     neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(palette_f16[3],     palette8_f16,     neon,  neon,  neon,  plain, plain, plain)                                \
    ROW(affine_f32[0],      affine4_f32,      neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(affine_f32[1],      affine8_f32,      neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(affine16_f32,       affine16_f32,     neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(widen,              widen,            neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(narrow,             narrow,           neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(scale_halves,       scale_halves,     fp16,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(scale_floats,       scale_floats,     neon,  neon,  neon,  plain, avx2,  sse4)                                 \
    ROW(join_planes,        join_planes,      neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(count_ones,         count_ones,       neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(crc32,              crc32,            crc,   crc,   plain, plain, crc,   crc)                                  \
    ROW(pair,               pair,             plain, plain, plain, plain, plain, plain)                                \
    ROW(dot_f32,            dot_f32,          neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_f16,            dot_f16,          neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(axpy_f32,           axpy_f32,         neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_palette_f16[0], dot_palette1_f16, neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_palette_f16[1], dot_palette2_f16, neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_palette_f16[2], dot_palette4_f16, neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_palette_f16[3], dot_palette8_f16, plain, plain, plain, plain, plain, plain)                                \
    ROW(dot_palette_f32[0], dot_palette1_f32, neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_palette_f32[1], dot_palette2_f32, neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_palette_f32[2], dot_palette4_f32, neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_palette_f32[3], dot_palette8_f32, plain, plain, plain, plain, plain, plain)                                \
    ROW(dot_codes8,         dot_codes8,       neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_codes16,        dot_codes16,      neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(dot_split,          dot_split,        neon,  neon,  neon,  neon,  avx2,  sse4)                                 \
    ROW(inner_products,     inner_products,   plain, plain, plain, plain, plain, plain)                                \
    ROW(sum_products8,      sum_products8,    neon,  neon,  neon,  neon,  avx2,  sse4)
/* clang-format on */

#define PLAIN(member, name, fp16, crc, neon64, neon32, avx2, sse4) .member = mm_plain_##name,
#if defined(MM_WITH_TWINS)
static const mm_kernels plain = {.name = "plain", KERNELS(PLAIN)};
#endif

static bool always(void) { return true; }

/* ------------------------------------------------------------------------------------------- sets and processors */

#if defined(MM_ON_AARCH64)

#define NEON_FP16(member, name, fp16, crc, neon64, neon32, avx2, sse4) .member = mm_##fp16##_##name,
#define NEON_CRC(member, name, fp16, crc, neon64, neon32, avx2, sse4)  .member = mm_##crc##_##name,
#define NEON(member, name, fp16, crc, neon64, neon32, avx2, sse4)      .member = mm_##neon64##_##name,
static const mm_kernels neon_fp16 = {.name = "neon-fp16", KERNELS(NEON_FP16)};
static const mm_kernels neon_crc = {.name = "neon-crc", KERNELS(NEON_CRC)};
static const mm_kernels neon = {.name = "neon", KERNELS(NEON)};

#if defined(__linux__)
static bool has(unsigned long features) { return (getauxval(AT_HWCAP) & features) == features; }
static bool has_crc(void) { return has(HWCAP_CRC32); }
static bool has_fp16(void) { return has(HWCAP_CRC32 | HWCAP_FPHP | HWCAP_ASIMDHP); }
#elif defined(__APPLE__)
static bool has(const char *feature) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(feature, &value, &size, NULL, 0) == 0 && value != 0;
}
static bool has_crc(void) { return has("hw.optional.armv8_crc32"); }
static bool has_fp16(void) { return has_crc() && has("hw.optional.arm.FEAT_FP16"); }
#else
static bool has_crc(void) { return false; }
static bool has_fp16(void) { return false; }
#endif

#elif defined(MM_ON_ARMV7)

#define NEON(member, name, fp16, crc, neon64, neon32, avx2, sse4) .member = mm_##neon32##_##name,
static const mm_kernels neon = {.name = "neon", KERNELS(NEON)};

static bool has_neon(void) {
#if defined(__linux__)
    const unsigned long features = HWCAP_NEON | HWCAP_VFPv4;
    return (getauxval(AT_HWCAP) & features) == features;
#else
    return false;
#endif
}

#elif defined(MM_ON_X86_64)

#define AVX2(member, name, fp16, crc, neon64, neon32, avx2, sse4) .member = mm_##avx2##_##name,
#define SSE4(member, name, fp16, crc, neon64, neon32, avx2, sse4) .member = mm_##sse4##_##name,
static const mm_kernels avx2 = {.name = "avx2", KERNELS(AVX2)};
static const mm_kernels sse4 = {.name = "sse4", KERNELS(SSE4)};

static bool has_sse4(void) {
    return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt") &&
           __builtin_cpu_supports("pclmul");
}

/* F16C, which not every compiler's builtin knows, came to all makers' processors before AVX2. */
static bool has_avx2(void) {
    return has_sse4() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi");
}

#endif

static const struct {
    const mm_kernels *kernels;
    bool (*usable)(void);
} sets[] = {
#if defined(MM_ON_AARCH64)
    {&neon_fp16, has_fp16},
    {&neon_crc, has_crc},
    {&neon, always},
#elif defined(MM_ON_ARMV7)
    {&neon, has_neon},
#elif defined(MM_ON_X86_64)
    {&avx2, has_avx2},
    {&sse4, has_sse4},
#endif
#if defined(MM_WITH_TWINS)
    {&plain, always},
#endif
};

const mm_kernels *mm_kernels_built(size_t index, int *usable) {
    if (index >= sizeof sets / sizeof *sets) {
        return NULL;
    }
    *usable = sets[index].usable();
    return sets[index].kernels;
}

const mm_kernels *mm_choose_kernels(void) {
    size_t set = 0;
    while (!sets[set].usable()) { /* the last one is */
        set++;
    }
    return sets[set].kernels;
}

const char *mm_kernels_name(void) { return mm_choose_kernels()->name; }
