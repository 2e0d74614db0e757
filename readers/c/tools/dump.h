/* A bundle as typed JSON (spec/vectors/README.md, "The values"), byte for byte what other readers of it print. */
#ifndef DUMP_H
#define DUMP_H

#include <stdio.h>

#include "mobilemodel.h"

/*
 * Print the bundle. Payloads that cannot be decoded have their status in place, and the result is MM_OK all the same;
 * MM_ERROR where memory ends, or where out cannot be written.
 *
 * Memory is that of the largest piece: values and codes are decoded up to 64 MiB at a time, or eight slices of the
 * first axis (a row of codes) where that is more; tables, graph, labels and report are read as a whole.
 */
mm_status mm_dump(const mm_bundle *bundle, FILE *out);

#endif
