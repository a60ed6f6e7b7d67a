/* Included before every file of ggml's kernels (tools/deps): half floats are converted by the CPU where it can.
 *
 * On x86 ggml's kernels look every block's scale up in a table of 256 KiB. With a real model's scales the table does not stay in the first cache, beside the
 * weights: a token of SmolLM2-135M took 22 % longer at Q4_1, 15 % at Q5_0, 7 % at Q8_0 and 4 % at IQ4_NL than with this, and how long depended on the weights'
 * values. Prompts, whose rows share the look-ups, are slower by 3 to 8 %. The values are the same. */
#if defined(__F16C__)
#include <immintrin.h>
#define GGML_CPU_FP16_TO_FP32(x) _cvtsh_ss(x)
#endif
