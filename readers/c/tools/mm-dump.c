/*
 * mm-dump [PATH]: print the bundle at PATH, or on stdin, as typed JSON; the contract of a runner in
 * spec/vectors/README.md.
 *
 * Leaves with 0 where the bundle opens; else with the status's name on stderr, and 1 damaged, 2 wrong call,
 * 3 malformed, 4 not supported.
 */
#define _POSIX_C_SOURCE   200809L
#define _FILE_OFFSET_BITS 64

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dump.h"

/* One more byte than a bundle has: enough to see that a file has too many (spec/container.md §2). */
static const size_t MOST = (size_t)1 << 31;

typedef struct file {
    uint8_t *data;
    size_t size;
    bool mapped;
} file;

static mm_status map_file(int descriptor, size_t size, file *bytes) {
    void *mapped = mmap(NULL, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (mapped == MAP_FAILED) {
        return MM_ERROR;
    }
    *bytes = (file){mapped, size, true};
    return MM_OK;
}

/* What has no size of its own: a pipe. */
static mm_status read_all(int descriptor, file *bytes) {
    size_t capacity = 1u << 16;
    *bytes = (file){malloc(capacity), 0, false};
    while (bytes->data != NULL && bytes->size < MOST) {
        if (bytes->size == capacity) {
            capacity *= 2;
            uint8_t *larger = realloc(bytes->data, capacity);
            if (larger == NULL) {
                return MM_ERROR;
            }
            bytes->data = larger;
        }
        ssize_t got = read(descriptor, bytes->data + bytes->size, capacity - bytes->size);
        if (got <= 0) {
            return got == 0 ? MM_OK : MM_ERROR;
        }
        bytes->size += (size_t)got;
    }
    return bytes->data == NULL ? MM_ERROR : MM_OK;
}

static mm_status read_file(const char *path, file *bytes) {
    int descriptor = path == NULL ? STDIN_FILENO : open(path, O_RDONLY);
    struct stat about;
    if (descriptor < 0 || fstat(descriptor, &about) != 0 || S_ISDIR(about.st_mode)) {
        return MM_USAGE;
    }
    bool whole = path != NULL && S_ISREG(about.st_mode) && about.st_size > 0;
    size_t size = (uintmax_t)about.st_size < MOST ? (size_t)about.st_size : MOST;
    mm_status status = whole ? map_file(descriptor, size, bytes) : read_all(descriptor, bytes);
    if (path != NULL) {
        close(descriptor);
    }
    return status;
}

int main(int count, char **arguments) {
    file bytes = {NULL, 0, false};
    mm_bundle bundle;
    mm_limits limits = mm_default_limits();
    limits.graph = INT32_MAX; /* the format's; the library's own suits a phone */
    mm_status status = count <= 2 ? read_file(count == 2 ? arguments[1] : NULL, &bytes) : MM_USAGE;
    if (status == MM_OK) {
        status = mm_open(&bundle, bytes.data, bytes.size, &limits);
    }
    if (status == MM_OK) {
        status = mm_dump(&bundle, stdout);
    }
    if (fflush(stdout) != 0 && status == MM_OK) {
        status = MM_ERROR;
    }
    if (status != MM_OK) {
        fprintf(stderr, "%s\n", mm_status_name(status));
    }
    if (bytes.mapped) {
        munmap(bytes.data, bytes.size);
    } else {
        free(bytes.data);
    }
    return mm_exit_code(status);
}
