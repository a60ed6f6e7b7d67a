/* engine/rpc.h - a stock ggml RPC worker (llama.cpp's rpc-server) as a device named "rpc://HOST:PORT". */
#ifndef DIL_ENGINE_RPC_H
#define DIL_ENGINE_RPC_H

#include <dilemma/base.h>
#include <ggml-backend.h>

bool dil__is_rpc(const char *device);
/* Asks the worker for its protocol version first: ggml's own client ends the process where it cannot connect or the versions differ.
 * Errors: DIL_EUSAGE (no HOST:PORT), DIL_ENET (no answer), DIL_EUNSUPPORTED (another version, or ggml was built without RPC). Blocks up to 10 s.
 * A worker that dies later still ends the process: that is ggml's. It has no keys and no encryption. */
dil_status dil__rpc_open(const char *device, ggml_backend_dev_t *out, dil_err *err);

#endif
