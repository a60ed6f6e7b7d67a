/* placeholder replaced below */
#include <dilemma/engine.h>
dil_status dil_engine_time_layer(const dil_arch *arch, uint32_t layer, const dil_type *types, const char *device,
                                 int n_threads, uint32_t n_past, uint32_t n_batch, double limit_sec, dil_layer_time *out,
                                 dil_err *err)
{ (void)arch;(void)layer;(void)types;(void)device;(void)n_threads;(void)n_past;(void)n_batch;(void)limit_sec;(void)out;
  return dil_fail(err, DIL_EUNSUPPORTED, "not yet"); }
