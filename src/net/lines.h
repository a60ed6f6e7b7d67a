/* net/lines.h - the small text files of a folder of keys. */
#ifndef DIL_NET_LINES_H
#define DIL_NET_LINES_H

#include <dilemma/base.h>

/* Calls fn for each line of a file (4 MiB at most) that is no comment ("#" alone or "# ..."); fn may write into the line. */
dil_status dil__each_line(const char *path, dil_status (*fn)(void *ctx, char *line, size_t number, dil_err *err), void *ctx, dil_err *err);
/* The folder that path names a file of, made with mode 0700 where it is missing. */
dil_status dil__make_folder_of(const char *path, dil_err *err);

#endif
