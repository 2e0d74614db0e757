/* What printing one bundle needs: the bundle, the text, and the only two pieces of memory. */
#ifndef WORKSPACE_H
#define WORKSPACE_H

#include "json.h"

typedef struct memory {
    uint8_t *data;
    size_t size;
} memory;

typedef struct workspace {
    const mm_bundle *bundle;
    json out;
    memory result;
    memory scratch;
    bool no_memory; /* once */
} workspace;

/* Make it at least size bytes, of unspecified content; false, and no_memory, where there are not so many. */
bool workspace_hold(workspace *work, memory *held, uint64_t size);

/* {"status": ...} */
void workspace_print_status(workspace *work, mm_status status);

/* Print a tensor. */
void dump_tensor(workspace *work, const mm_tensor *tensor);

#endif
