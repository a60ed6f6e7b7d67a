/* model/zip.h - the stored entries of a zip archive that is mapped, as torch.save writes one. Nothing is decompressed.
 *
 *   dil__zip z;  dil__zip_open("m.bin", data, len, arena, &z, err);
 *   const dil__zip_entry *e = dil__zip_find(&z, "archive/data.pkl"); */
#ifndef DIL_MODEL_ZIP_H
#define DIL_MODEL_ZIP_H

#include <dilemma/base.h>

#define DIL__ZIP_ENTRIES_MAX 262144
#define DIL__ZIP_NAME_MAX 512

typedef struct dil__zip_entry {
    const char *name;    /* zero-terminated, on the arena */
    const uint8_t *data; /* [bytes], borrowed from the mapping */
    uint64_t bytes;
} dil__zip_entry;

typedef struct dil__zip {
    dil__zip_entry *entry; /* [n], sorted by name */
    size_t n;
} dil__zip;

/* Checks the whole central directory against the bytes at hand and against the local headers: every entry stored and not
 * encrypted, inside the file, overlapping no other, with a name of its own.
 * Errors  DIL_EFORMAT, DIL_EUNSUPPORTED (compressed, encrypted, several disks), DIL_ELIMIT, DIL_EMEMORY; they name `file`. */
dil_status dil__zip_open(const char *file, const uint8_t *data, size_t len, dil_arena *arena, dil__zip *out, dil_err *err);
const dil__zip_entry *dil__zip_find(const dil__zip *z, const char *name); /* NULL */

#endif
