/*
 * Times the C reader beside what an application would use instead, in one run on one thread, and prints a JSON object of
 * figures: milliseconds (the best of 9 runs), bytes and counts. run.py makes the bundles and reads the figures.
 *
 *     bench FOLDER [BUNDLE]
 *
 * Every buffer is written before it is timed. Nothing is flushed between runs: what fits the caches is warm, and
 * fc6 in 32-bit floats (151 MB) does not.
 */
#define _GNU_SOURCE
#define ZSTD_STATIC_LINKING_ONLY
#include <cblas.h>
#include <fcntl.h>
#include <spng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "mobilemodel.h"

enum { ROWS = 4096, COLUMNS = 9216, RUNS = 9 };

static const size_t weights = (size_t)ROWS * COLUMNS;

/* ------------------------------------------------------------------------------------------------ heap, time, files */

extern void *__libc_malloc(size_t size);
static size_t allocations; /* calls of malloc by whoever */

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void check(mm_status status, const char *what) {
    if (status != MM_OK) {
        fail(what, mm_status_name(status));
    }
}

static void *touched(size_t size) {
    void *buffer = aligned_alloc(64, (size + 63) / 64 * 64);
    if (buffer == NULL) {
        fail("memory", "exhausted");
    }
    memset(buffer, 1, size);
    return buffer;
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static mm_bytes map(const char *folder, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s%s", folder, name[0] == '\0' ? "" : "/", name);
    int file = open(path, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0) {
        fail(path, "cannot be opened");
    }
    void *data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (data == MAP_FAILED) {
        fail(path, "cannot be mapped");
    }
    close(file);
    return (mm_bytes){data, (size_t)about.st_size};
}

static void print(const char *name, double value) { printf(",\n  \"%s\": %.6g", name, value); }

/* ------------------------------------------------------------------------------------------------ one bundle */

typedef struct layer {
    mm_bundle bundle;
    mm_tensor tensor;
    void *packed;
    size_t packed_size;
    void *scratch;
    size_t scratch_size;
} layer;

static layer load(const char *folder, const char *name) {
    layer it = {0};
    mm_bytes file = map(folder, name);
    check(mm_open(&it.bundle, file.data, file.size, NULL), name);
    check(mm_find(&it.bundle, "fc6.weight", &it.tensor), name);
    uint64_t decode = mm_decode_scratch(&it.bundle, &it.tensor), fc = mm_fc_scratch(&it.bundle, &it.tensor);
    it.scratch_size = (size_t)(decode > fc ? decode : fc);
    it.scratch = touched(it.scratch_size);
    if (it.tensor.encoding != MM_DENSE) {
        it.packed_size = (size_t)mm_packed_size(&it.bundle, &it.tensor);
        it.packed = touched(it.packed_size);
        check(mm_pack(&it.bundle, &it.tensor, it.packed, it.packed_size, it.scratch, it.scratch_size), name);
    }
    return it;
}

static void decode(const layer *it, uint32_t type, void *out) {
    size_t size = weights * (type == MM_FLOAT ? 4 : 2);
    check(mm_decode(&it->bundle, &it->tensor, type, 0, ROWS, out, size, it->scratch, it->scratch_size), "decode");
}

static void stream(const layer *it, const float *x, float *y) {
    check(mm_fc(&it->bundle, &it->tensor, x, COLUMNS, NULL, y, ROWS, it->scratch, it->scratch_size), "fc");
}

static void fused(const layer *it, const float *x, float *y) {
    check(mm_fc_packed(&it->bundle, &it->tensor, it->packed, it->packed_size, false, x, COLUMNS, NULL, y, ROWS, it->scratch,
                       it->scratch_size),
          "fc_packed");
}

static void sgemv(const float *matrix, const float *x, float *y) {
    cblas_sgemv(CblasRowMajor, CblasNoTrans, ROWS, COLUMNS, 1.0f, matrix, COLUMNS, x, 1, 0.0f, y, 1);
}

/* The codecs alone: each payload of codes, decoded behind the one before. */
static void plain_zstd(const layer *it, ZSTD_DCtx *context, uint8_t *out) {
    for (uint32_t block = 0; block < it->tensor.matrix.blocks; block++) {
        mm_payload entry;
        check(mm_payload_at(&it->bundle, it->tensor.matrix.first_payload + block, &entry), "payload");
        size_t size = ZSTD_decompressDCtx(context, out, entry.raw_size, it->bundle.file.data + entry.offset, entry.stored_size);
        if (size != entry.raw_size) {
            fail("zstd", "wrong size");
        }
        out += size;
    }
}

static void plain_spng(const layer *it, uint8_t *out) {
    for (uint32_t block = 0; block < it->tensor.matrix.blocks; block++) {
        mm_payload entry;
        check(mm_payload_at(&it->bundle, it->tensor.matrix.first_payload + block, &entry), "payload");
        spng_ctx *context = spng_ctx_new(0);
        spng_set_png_buffer(context, it->bundle.file.data + entry.offset, entry.stored_size);
        if (spng_decode_image(context, out, entry.raw_size, SPNG_FMT_RAW, 0) != 0) {
            fail("spng", "cannot decode");
        }
        spng_ctx_free(context);
        out += entry.raw_size;
    }
}

/* ------------------------------------------------------------------------------------------------ the figures */

#define BEST(name, call)                              \
    do {                                              \
        double best = 1e30;                           \
        for (int run = 0; run < RUNS; run++) {        \
            double start = milliseconds();            \
            call;                                     \
            double took = milliseconds() - start;     \
            best = took < best ? took : best;         \
        }                                             \
        print(name, best);                            \
    } while (0)

/* |y - reference| over sum |w x|, the largest of all rows. */
static double error(const float *matrix, const float *x, const float *y) {
    double largest = 0;
    for (size_t row = 0; row < ROWS; row++) {
        double sum = 0, magnitude = 1e-300;
        for (size_t column = 0; column < COLUMNS; column++) {
            double product = (double)matrix[row * COLUMNS + column] * x[column];
            sum += product;
            magnitude += product < 0 ? -product : product;
        }
        double difference = (y[row] < sum ? sum - y[row] : y[row] - sum) / magnitude;
        largest = difference > largest ? difference : largest;
    }
    return largest;
}

static void codecs(const char *folder, uint8_t *packed, float *floats) {
    layer zstd = load(folder, "palette-4-zstd.mm"), png = load(folder, "palette-4-png.mm");
    ZSTD_DCtx *context = ZSTD_createDCtx();
    print("packed_bytes", (double)zstd.packed_size);
    BEST("zstd_plain", plain_zstd(&zstd, context, packed));
    BEST("zstd_pack", check(mm_pack(&zstd.bundle, &zstd.tensor, packed, zstd.packed_size, zstd.scratch, zstd.scratch_size), "pack"));
    BEST("zstd_f16", decode(&zstd, MM_FLOAT16, floats));
    BEST("zstd_f32", decode(&zstd, MM_FLOAT, floats));
    BEST("spng", plain_spng(&png, packed));
    BEST("png_pack", check(mm_pack(&png.bundle, &png.tensor, packed, png.packed_size, png.scratch, png.scratch_size), "pack"));
    if (memcmp(packed, zstd.packed, zstd.packed_size) != 0) {
        fail("png", "other rows than zstd's");
    }
}

static void products(const char *folder, const char *file, const char *name, float *floats, const float *x, float *y) {
    layer it = load(folder, file);
    char label[64];
#define LABEL(what) (snprintf(label, sizeof label, "%s_%s", name, what), label)
    BEST(LABEL("decode"), decode(&it, MM_FLOAT, floats));
    BEST(LABEL("sgemv"), sgemv(floats, x, y));
    BEST(LABEL("stream"), stream(&it, x, y));
    print(LABEL("stream_error"), error(floats, x, y));
    if (it.packed != NULL) {
        BEST(LABEL("fused"), fused(&it, x, y));
        print(LABEL("fused_error"), error(floats, x, y));
    }
    print(LABEL("file_bytes"), (double)it.bundle.file.size);
    munmap((void *)(uintptr_t)it.bundle.file.data, it.bundle.file.size);
    free(it.packed);
    free(it.scratch);
}

static size_t anonymous_kib(void) {
    char line[256];
    size_t kib = 0;
    FILE *about = fopen("/proc/self/smaps_rollup", "r");
    while (about != NULL && fgets(line, sizeof line, about) != NULL) {
        sscanf(line, "Anonymous: %zu", &kib);
    }
    if (about != NULL) {
        fclose(about);
    }
    return kib;
}

/* What streaming fc6 takes beside the mapped file: scratch, x and y, and what became resident, stack and libraries included. */
static void memory(const char *folder) {
    mm_bytes file = map(folder, "palette-4-zstd.mm");
    size_t before = anonymous_kib();
    mm_bundle bundle;
    mm_tensor tensor;
    check(mm_open(&bundle, file.data, file.size, NULL), "open");
    check(mm_find(&bundle, "fc6.weight", &tensor), "find");
    size_t scratch_size = (size_t)mm_fc_scratch(&bundle, &tensor);
    void *scratch = touched(scratch_size);
    float *x = touched(COLUMNS * sizeof *x), *y = touched(ROWS * sizeof *y);
    size_t counted = allocations;
    check(mm_fc(&bundle, &tensor, x, COLUMNS, NULL, y, ROWS, scratch, scratch_size), "fc");
    print("stream_allocations", (double)(allocations - counted));
    print("stream_scratch_bytes", (double)scratch_size);
    print("stream_anonymous_bytes", (double)(anonymous_kib() - before) * 1024);
}

static void opening(const char *path) {
    mm_bytes file = map(path, "");
    mm_bundle bundle;
    enum { TIMES = 1000 };
    check(mm_open(&bundle, file.data, file.size, NULL), path);
    size_t counted = allocations;
    double best = 1e30;
    for (int run = 0; run < RUNS; run++) {
        double start = milliseconds();
        for (int time = 0; time < TIMES; time++) {
            check(mm_open(&bundle, file.data, file.size, NULL), path);
        }
        double took = (milliseconds() - start) / TIMES;
        best = took < best ? took : best;
    }
    print("open", best);
    print("open_allocations", (double)(allocations - counted));
    print("open_tensors", bundle.tensors.count);
    print("open_payloads", bundle.payloads.count);
}

int main(int count, char **arguments) {
    if (count < 2 || count > 3) {
        fail("usage", "bench FOLDER [BUNDLE]");
    }
    const char *folder = arguments[1];
    printf("{\n  \"kernels\": \"%s\"", mm_kernels_name());
    memory(folder);
    if (count == 3) {
        opening(arguments[2]);
    }
    float *floats = touched(weights * sizeof *floats);
    uint8_t *packed = touched(weights / 2);
    float *x = touched(COLUMNS * sizeof *x), *y = touched(ROWS * sizeof *y);
    for (size_t column = 0; column < COLUMNS; column++) {
        x[column] = (float)(rand() % 2001 - 1000) / 1000;
    }
    codecs(folder, packed, floats);
    products(folder, "palette-4.mm", "palette4", floats, x, y);
    products(folder, "palette-4-zstd.mm", "palette4zstd", floats, x, y);
    products(folder, "palette-8.mm", "palette8", floats, x, y);
    products(folder, "affine-8.mm", "affine8", floats, x, y);
    products(folder, "vector.mm", "vector", floats, x, y);
    products(folder, "split.mm", "split", floats, x, y);
    products(folder, "halves.mm", "halves", floats, x, y);
    printf("\n}\n");
    return 0;
}
