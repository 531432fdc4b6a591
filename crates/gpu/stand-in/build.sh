#!/usr/bin/env bash
# Builds the stand-in for a card: one library with the names of the driver, NVRTC, cuDNN and others that the GPU build links to. With
# it before the real ones, programs and tests of that build run on a machine that has no GPU:
#
#     source TOOLKIT/env.sh && crates/gpu/stand-in/build.sh DIR
#     LD_LIBRARY_PATH=DIR CARD_ORDER=late target/cuda/release/train device=cuda:0 …
set -euo pipefail
dir=$(mkdir -p "${1:?usage: build.sh DIR}" && cd "$1" && pwd)
include=${CUDA_HOME:?source the env.sh of a toolkit}/include
cudnn_include=$CUDA_HOME/../cudnn/include
cd "$(dirname "$0")"
rm -f "$dir"/*.o
compile() { c++ -std=c++17 -O3 -Wall -Wextra -fPIC -I "$dir" -I "$include" -I "$cudnn_include" "$@"; }

{ echo 'static const char CUDAS_WORDS[] = R"WORDS('; cat ../src/cuda/on_cpu.h; echo ')WORDS";'; } >"$dir/words.h"
for source in *.cpp; do compile -c "$source" -o "$dir/${source%.cpp}.o"; done

# All other functions of these libraries: who calls one is told which.
defined=$(nm --defined-only --format=posix "$dir"/*.o | awk '$2 == "T" { print $1 }')
named=$(cat "$include"/{cuda,nvrtc,cublas_api,curand}.h "$cudnn_include"/cudnn_*_v9.h |
    grep -ohE '\b(cu|nvrtc|cublas|curand|cudnn)[A-Z][A-Za-z0-9]*(_v[0-9]+)?(_ptsz|_64)?\b')
{
    echo '#include "card.h"'
    comm -23 <(sort -u <<<"$named") <(sort -u <<<"$defined") |
        sed 's/.*/extern "C" void &_() __asm__("&"); void &_() { card::stop("&, which the stand-in lacks, is called"); }/'
} >"$dir/lacking.cpp"
compile -I . -c "$dir/lacking.cpp" -o "$dir/lacking.o"

c++ -shared "$dir"/*.o -Wl,-soname,libcuda.so.1 -o "$dir/libcuda.so.1" -ldl -pthread
for library in libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libnvrtc.so.13 libcudnn.so.9; do
    ln -sf libcuda.so.1 "$dir/$library"
done
ln -sf "$CUDA_HOME/lib/libcudart.so.13" "$dir"
