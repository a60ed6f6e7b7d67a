# cmake -DIN=file -DOUT=file.c -DNAME=symbol -P Embed.cmake: a file's bytes as `const unsigned char NAME[]` and `const size_t NAME_len`.
file(READ "${IN}" hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR bytes "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," body "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" body "${body}")
get_filename_component(from "${IN}" NAME)
file(WRITE "${OUT}" "/* ${from}, embedded by cmake/Embed.cmake */
#include <stddef.h>
extern const unsigned char ${NAME}[];
extern const size_t ${NAME}_len;
const unsigned char ${NAME}[] = {
${body}0};
const size_t ${NAME}_len = ${bytes};
")
