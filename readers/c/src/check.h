/* Checks 6 to 10 of spec/container.md §6, on a manifest whose grammar holds. Each function takes for granted what the
 * ones before it have checked. */
#ifndef MM_CHECK_H
#define MM_CHECK_H

#include "manifest.h"

/* Checks 6 and 7: required features, numbers of things, lengths of texts, ranks, elements. */
mm_status mm_check_limits(const mm_bundle *bundle, const mm_places *places);

/* Check 8: payload entries, the file's size, and offsets. */
mm_status mm_check_places(const mm_bundle *bundle, const mm_places *places);

/* Checks 9 and 10: tensors and all else against the payloads, each of which is used. */
mm_status mm_check_structure(const mm_bundle *bundle);

#endif
