#!/usr/bin/env bash
# A CUDA 13.0 toolkit from Python wheels, about 2 GB: to compile and link the GPU build on a machine that has neither GPU nor
# toolkit. With LD_LIBRARY_PATH=$CUDA_WITHOUT_GPU it runs there, on the CPU: the driver comes with a GPU.
#
#     crates/gpu/cuda-toolkit.sh DIR && source DIR/env.sh
#     cargo build --release --features cudnn -p extract -p train -p eval \
#         --target x86_64-unknown-linux-gnu --target-dir target/cuda
#
# The target is named so that RUSTFLAGS, which tell of the stand-in driver, leave build scripts alone. The compiler is of 13.0
# since the drivers of that generation refuse what newer ones write.
set -euo pipefail
dir=$(mkdir -p "${1:?usage: cuda-toolkit.sh DIR}" && cd "$1" && pwd)
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet 'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*' \
    'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cublas==13.0.*' \
    nvidia-curand nvidia-cudnn-cu13
wheels=$("$dir/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia
mkdir -p "$dir/link"
for library in cublas:13 cublasLt:13 cudart:13 curand:10 nvrtc:13; do
    ln -sf "$wheels/cu13/lib/lib${library%%:*}.so.${library##*:}" "$dir/link/lib${library%%:*}.so"
done
ln -sf "$wheels/cudnn/lib/libcudnn.so.9" "$dir/link/libcudnn.so"
# The driver's library exists only where a GPU is: one of its name to link against, whose every function says that there is no GPU.
grep -ohE '\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?(_ptsz)?\b' "$wheels/cu13/include/cuda.h" | sort -u |
    sed 's/.*/int &(void) { return 100; }/' |
    cc -shared -fPIC -w -x c - -o "$dir/link/libcuda.so.1" -Wl,-soname,libcuda.so.1
ln -sf libcuda.so.1 "$dir/link/libcuda.so"
ln -sfn lib "$wheels/cu13/lib64"
cat >"$dir/env.sh" <<END
export CUDA_HOME=$wheels/cu13 CUDA_PATH=$wheels/cu13 CUDA_ROOT=$wheels/cu13 CUDA_TOOLKIT_ROOT_DIR=$wheels/cu13
export PATH=$wheels/cu13/bin:\$PATH CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-90}
export CUDA_WITHOUT_GPU=$dir/link:$wheels/cudnn/lib:$wheels/cu13/lib
export RUSTFLAGS="-L native=$dir/link -C link-arg=-Wl,--unresolved-symbols=ignore-all -C link-arg=-Wl,--no-as-needed -C link-arg=-lcuda -C link-arg=-lcublasLt -C link-arg=-lnvrtc"
END
echo "source $dir/env.sh"
