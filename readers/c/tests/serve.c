/*
 * Answers requests on stdin about bundles, for tests in another language: one process decodes many bundles, also under
 * an emulator. The public interface alone is called, and each call gets buffers that end where memory ends: a read or a
 * write behind them is a fault of the process, a write before them is found afterwards, inputs cannot be written.
 *
 *     request   u32 bytes that follow, u8 operation, arguments
 *     answer    u32 bytes that follow, i32 status, content (none unless the status is MM_OK)
 *
 * Numbers are little-endian. Scratch and outputs have the sizes that the interface tells, less the `cut`s of a request.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dump.h"
#include "mobilemodel.h"

enum { FILLER = 0xA5, MAX_OUTPUT = 1 << 30 };

static void die(const char *why) {
    fprintf(stderr, "serve: %s\n", why);
    exit(99);
}

/* ------------------------------------------------------------------------------------------------ guarded memory */

typedef struct buffer {
    uint8_t *data; /* ends where its pages end; so it is aligned as its size is */
    size_t size;
    uint8_t *pages;
    size_t mapped;
} buffer;

static buffer buffer_of(uint64_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > SIZE_MAX / 2) {
        die("a buffer that no machine has");
    }
    size_t usable = ((size_t)size + page) / page * page; /* also of size 0 a byte in front is there to be checked */
    buffer out = {NULL, (size_t)size, NULL, usable + page};
    void *pages = mmap(NULL, out.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        die("no memory");
    }
    out.pages = pages;
    out.data = out.pages + usable - out.size;
    memset(out.pages, FILLER, usable);
    if (mprotect(out.pages + usable, page, PROT_NONE) != 0) {
        die("no guard page");
    }
    return out;
}

static buffer input_of(const uint8_t *data, size_t size) {
    buffer out = buffer_of(size);
    if (size > 0) {
        memcpy(out.data, data, size);
    }
    if (mprotect(out.pages, (size_t)(out.data - out.pages) + size, PROT_READ) != 0) {
        die("no read-only memory");
    }
    return out;
}

static void release(buffer *used) {
    for (const uint8_t *p = used->pages; p < used->data; p++) {
        if (*p != FILLER) {
            die("written before a buffer");
        }
    }
    if (used->pages != NULL) {
        munmap(used->pages, used->mapped);
    }
    *used = (buffer){NULL, 0, NULL, 0};
}

static uint64_t less(uint64_t size, uint64_t cut) { return size < cut ? 0 : size - cut; }

/* ------------------------------------------------------------------------------------------------ requests */

typedef struct session {
    buffer file;
    mm_bundle bundle;
    bool opened;
} session;

typedef struct request {
    const uint8_t *at;
    size_t left;
} request;

static const uint8_t *take(request *from, size_t size) {
    if (size > from->left) {
        die("a request is too short");
    }
    const uint8_t *taken = from->at;
    from->at += size;
    from->left -= size;
    return taken;
}

static uint64_t number(request *from, size_t size) {
    const uint8_t *bytes = take(from, size);
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)bytes[i] << 8 * i;
    }
    return value;
}

static mm_status tensor_of(session *served, request *from, mm_tensor *tensor) {
    if (!served->opened) {
        die("no bundle is open");
    }
    return mm_tensor_at(&served->bundle, (uint32_t)number(from, 4), tensor);
}

/* 12 + 1 limits, of which 2^32 - 1 stands for the default; then the file */
static mm_status open_bundle(session *served, request *from, buffer *out) {
    (void)out;
    mm_limits limits = mm_default_limits();
    uint32_t *fields[] = {&limits.file,         &limits.manifest, &limits.tensors, &limits.payloads, &limits.elements,
                          &limits.block,        &limits.table,    &limits.graph,   &limits.labels,   &limits.report,
                          &limits.mean_picture, &limits.uses,     &limits.values};
    bool given = false;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        uint32_t value = (uint32_t)number(from, 4);
        given = given || value != UINT32_MAX;
        *fields[i] = value == UINT32_MAX ? *fields[i] : value;
    }
    release(&served->file);
    served->file = input_of(from->at, from->left);
    mm_status status = mm_open(&served->bundle, served->file.data, served->file.size, given ? &limits : NULL);
    served->opened = status == MM_OK;
    return status;
}

static mm_status kernels(session *served, request *from, buffer *out) {
    (void)served, (void)from;
    const char *name = mm_kernels_name();
    *out = buffer_of(strlen(name));
    memcpy(out->data, name, out->size);
    return MM_OK;
}

/* What mm-dump prints */
static mm_status dump(session *served, request *from, buffer *out) {
    (void)from;
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    if (file == NULL || !served->opened) {
        die("cannot dump");
    }
    mm_status status = mm_dump(&served->bundle, file);
    if (fclose(file) != 0) {
        die("cannot dump");
    }
    *out = buffer_of(size);
    memcpy(out->data, text, size);
    free(text);
    return status;
}

/* Where each tensor's message starts: by mm_next, by mm_tensor_at, and by mm_find with the names of the request, each
 * of which ends with NUL */
static mm_status walk(session *served, request *from, buffer *out) {
    uint32_t count = served->bundle.tensors.count;
    *out = buffer_of((uint64_t)count * 12);
    mm_tensor next, at, found;
    mm_status status = mm_tensor_at(&served->bundle, 0, &next);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = (const char *)from->at;
        take(from, strlen(name) + 1);
        mm_status by_index = mm_tensor_at(&served->bundle, i, &at);
        mm_status by_name = mm_find(&served->bundle, name, &found);
        if (status != MM_OK || by_index != MM_OK || by_name != MM_OK) {
            return status != MM_OK ? status : by_index != MM_OK ? by_index : by_name;
        }
        uint32_t starts[3] = {next.message.start, at.message.start, found.message.start};
        memcpy(out->data + 12 * (size_t)i, starts, sizeof starts);
        status = mm_next(&served->bundle, &next);
    }
    return status == (count > 0 ? MM_TENSOR_NOT_FOUND : MM_USAGE) ? MM_OK : MM_ERROR;
}

static mm_status find(session *served, request *from, buffer *out) {
    (void)out;
    mm_tensor tensor;
    return mm_find(&served->bundle, (const char *)from->at, &tensor);
}

static mm_status facts(session *served, request *from, buffer *out) {
    mm_tensor tensor;
    mm_status status = tensor_of(served, from, &tensor);
    if (status != MM_OK) {
        return status;
    }
    const mm_bundle *bundle = &served->bundle;
    const uint64_t shown[] = {
        tensor.encoding,
        tensor.status,
        tensor.dtype,
        tensor.rank,
        tensor.elements,
        mm_slices(&tensor),
        mm_decode_scratch(bundle, &tensor),
        mm_fc_scratch(bundle, &tensor),
        mm_packed_size(bundle, &tensor),
    };
    *out = buffer_of(sizeof shown);
    memcpy(out->data, shown, sizeof shown); /* little-endian, as all hosts of the tests */
    return MM_OK;
}

/* ------------------------------------------------------------------------------------------------ decoding */

typedef enum wanted { VALUES, ROWS, CODES, TABLES, SCALES, ZEROS } wanted;

static uint64_t output_size(const mm_tensor *tensor, wanted what, uint32_t type, uint64_t count) {
    uint64_t width = type == MM_FLOAT ? 4 : 2;
    switch (what) {
    case VALUES: return mm_decoded_size(tensor, type, count);
    case ROWS: return count > MAX_OUTPUT ? UINT64_MAX : count * tensor->matrix.columns * width;
    case CODES: return count > MAX_OUTPUT ? UINT64_MAX : count * tensor->matrix.codes_per_row * 4;
    case TABLES: return tensor->tables.size;
    case SCALES: return tensor->scales.size;
    case ZEROS: return (uint64_t)tensor->scales_by.count * (tensor->matrix.depth == 16 ? 2 : 1);
    }
    return 0;
}

/* u8 what, u32 tensor, u32 type, u64 first, u64 count, u64 cut of the output, u64 cut of the scratch */
static mm_status decode(session *served, request *from, buffer *out) {
    wanted what = (wanted)number(from, 1);
    mm_tensor tensor;
    mm_status status = tensor_of(served, from, &tensor);
    if (status != MM_OK) {
        return status;
    }
    uint32_t type = (uint32_t)number(from, 4);
    uint64_t first = number(from, 8), count = number(from, 8);
    uint64_t size = less(output_size(&tensor, what, type, count), number(from, 8));
    *out = buffer_of(size > MAX_OUTPUT ? 0 : size);
    buffer scratch = buffer_of(less(mm_decode_scratch(&served->bundle, &tensor), number(from, 8)));
    const mm_bundle *bundle = &served->bundle;
    void *values = out->data, *work = scratch.data;
    switch (what) {
    case VALUES: status = mm_decode(bundle, &tensor, type, first, count, values, out->size, work, scratch.size); break;
    case ROWS:
        status = mm_decode_rows(bundle, &tensor, type, first, count, values, out->size, work, scratch.size);
        break;
    case CODES: status = mm_codes(bundle, &tensor, first, count, values, out->size / 4, work, scratch.size); break;
    case TABLES: status = mm_tables(bundle, &tensor, values, out->size, work, scratch.size); break;
    case SCALES: status = mm_scales(bundle, &tensor, values, out->size, work, scratch.size); break;
    case ZEROS: status = mm_zeros(bundle, &tensor, values, out->size, work, scratch.size); break;
    }
    release(&scratch);
    return status;
}

enum { TRANSPOSED = 1, PACKED = 2, WITH_BIAS = 4 };

static mm_status fully_connected(const mm_bundle *bundle, const mm_tensor *tensor, unsigned flags, buffer x,
                                 buffer bias, buffer y, uint64_t packed_cut, buffer scratch) {
    const float *inputs = (const float *)(const void *)x.data;
    const float *added = flags & WITH_BIAS ? (const float *)(const void *)bias.data : NULL;
    float *outputs = (float *)(void *)y.data;
    size_t columns = x.size / 4, rows = y.size / 4;
    if (!(flags & PACKED)) {
        return (flags & TRANSPOSED ? mm_fc_transposed : mm_fc)(bundle, tensor, inputs, columns, added, outputs, rows,
                                                               scratch.data, scratch.size);
    }
    buffer packed = buffer_of(less(mm_packed_size(bundle, tensor), packed_cut));
    mm_status status = mm_pack(bundle, tensor, packed.data, packed.size, scratch.data, scratch.size);
    if (status == MM_OK) {
        buffer given = input_of(packed.data, packed.size);
        status = mm_fc_packed(bundle, tensor, given.data, given.size, (flags & TRANSPOSED) != 0, inputs, columns, added,
                              outputs, rows, scratch.data, scratch.size);
        release(&given);
    }
    release(&packed);
    return status;
}

/* u32 tensor, u8 flags, u64 cut of the scratch, u64 cut of the packed codes, u32 inputs, u32 outputs; the inputs, and
 * with a bias as many values as there are outputs */
static mm_status fc(session *served, request *from, buffer *out) {
    mm_tensor tensor;
    mm_status status = tensor_of(served, from, &tensor);
    if (status != MM_OK) {
        return status;
    }
    unsigned flags = (unsigned)number(from, 1);
    uint64_t cut = number(from, 8), packed_cut = number(from, 8);
    size_t inputs = (size_t)number(from, 4) * 4, outputs = (size_t)number(from, 4) * 4;
    buffer x = input_of(take(from, inputs), inputs);
    size_t added = flags & WITH_BIAS ? outputs : 0;
    buffer bias = input_of(take(from, added), added);
    buffer scratch = buffer_of(less(mm_fc_scratch(&served->bundle, &tensor), cut));
    *out = buffer_of(outputs);
    status = fully_connected(&served->bundle, &tensor, flags, x, bias, *out, packed_cut, scratch);
    release(&scratch);
    release(&bias);
    release(&x);
    return status;
}

/* ------------------------------------------------------------------------------------------------ main */

typedef mm_status (*operation)(session *served, request *from, buffer *out);

static operation operation_of(uint8_t letter) {
    switch (letter) {
    case 'o': return open_bundle;
    case 'k': return kernels;
    case 'j': return dump;
    case 'w': return walk;
    case 'f': return find;
    case 't': return facts;
    case 'd': return decode;
    case 'c': return fc;
    default: die("no such operation"); return NULL;
    }
}

static void write_all(const void *data, size_t size) {
    if (size > 0 && fwrite(data, 1, size, stdout) != size) {
        die("stdout is closed");
    }
}

static void answer(mm_status status, const buffer *content) {
    size_t size = status == MM_OK ? content->size : 0;
    uint32_t head[2] = {(uint32_t)size + 4, (uint32_t)status};
    write_all(head, sizeof head);
    write_all(content->data, size);
    fflush(stdout);
}

int main(void) {
    session served = {.opened = false};
    uint32_t size;
    while (fread(&size, sizeof size, 1, stdin) == 1) {
        uint8_t *bytes = malloc((size_t)size + 1);
        if (bytes == NULL || fread(bytes, 1, size, stdin) != size) {
            die("a request is cut");
        }
        bytes[size] = 0;
        request from = {bytes, size};
        buffer out = {NULL, 0, NULL, 0};
        mm_status status = operation_of((uint8_t)number(&from, 1))(&served, &from, &out);
        answer(status, &out);
        release(&out);
        free(bytes);
    }
    release(&served.file);
    return 0;
}
