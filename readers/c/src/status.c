#include <stddef.h>

#include "mobilemodel.h"

static const struct {
    mm_status status;
    int exit_code; /* spec/errors.md §3 */
    const char *name;
} statuses[] = {
    /* MM_ERROR first: it stands for all else */
    {MM_ERROR, 1, "ERROR"},
    {MM_OK, 0, "OK"},
    {MM_NOT_A_BUNDLE, 3, "NOT_A_BUNDLE"},
    {MM_TRUNCATED, 3, "TRUNCATED"},
    {MM_TRAILING_DATA, 3, "TRAILING_DATA"},
    {MM_MANIFEST_CHECKSUM, 1, "MANIFEST_CHECKSUM"},
    {MM_MALFORMED_WIRE, 3, "MALFORMED_WIRE"},
    {MM_MALFORMED_MANIFEST, 3, "MALFORMED_MANIFEST"},
    {MM_MISPLACED_PAYLOAD, 3, "MISPLACED_PAYLOAD"},
    {MM_PAYLOAD_CHECKSUM, 1, "PAYLOAD_CHECKSUM"},
    {MM_MALFORMED_STREAM, 3, "MALFORMED_STREAM"},
    {MM_MALFORMED_CONTENT, 3, "MALFORMED_CONTENT"},
    {MM_UNSUPPORTED_VERSION, 4, "UNSUPPORTED_VERSION"},
    {MM_UNSUPPORTED_FEATURE, 4, "UNSUPPORTED_FEATURE"},
    {MM_UNSUPPORTED_CODEC, 4, "UNSUPPORTED_CODEC"},
    {MM_UNSUPPORTED_ENCODING, 4, "UNSUPPORTED_ENCODING"},
    {MM_LIMIT_EXCEEDED, 4, "LIMIT_EXCEEDED"},
    {MM_USAGE, 2, "USAGE"},
    {MM_TENSOR_NOT_FOUND, 2, "TENSOR_NOT_FOUND"},
};

/* The row of a status; of MM_ERROR for a number that is none. */
static size_t row_of(mm_status status) {
    size_t row = sizeof statuses / sizeof *statuses - 1;
    while (row > 0 && statuses[row].status != status) {
        row--;
    }
    return row;
}

const char *mm_status_name(mm_status status) { return statuses[row_of(status)].name; }

int mm_exit_code(mm_status status) { return statuses[row_of(status)].exit_code; }
