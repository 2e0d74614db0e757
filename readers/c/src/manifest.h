/* Reading a manifest whose grammar holds (schema.h): its own fields, and its messages but for tensors. */
#ifndef MM_MANIFEST_H
#define MM_MANIFEST_H

#include "mobilemodel.h"
#include "wire.h"

/* What opening needs of a manifest, beside the bundle's fields. */
typedef struct mm_places {
    mm_section features; /* the file's required features */
    bool has_minor, has_file_size;
    uint64_t file_size; /* as it is recorded */
} mm_places;

/* Fill *places, and the bundle's fields that come from the manifest, which stands in it. Nothing of it is checked. */
void mm_read_manifest(mm_bundle *bundle, mm_places *places);

/* A reader at the first member of a section: mm_walk gives each member. */
mm_reader mm_members(const mm_bundle *bundle, mm_section section);

/* Member number index of a section; false where it has none. */
bool mm_member_at(const mm_bundle *bundle, mm_section section, uint32_t index, mm_field *member);

bool mm_equal_bytes(mm_bytes a, mm_bytes b);

/* The messages. */
void mm_read_source(mm_reader message, mm_source *source);
void mm_read_value(mm_reader message, mm_value *value);
void mm_read_dimension(mm_reader message, mm_dimension *dimension);

/* mean_count and scale_count are 4 where the message has more values than 3 channels take. */
void mm_read_preprocessing(mm_reader message, mm_preprocessing *preprocessing);

#endif
