// Libraries that candle opens with its device. Nothing of them is called afterwards.

#include <cublas_v2.h>
#include <cuda.h>
#include <curand.h>

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) {
    static int made;
    *handle = reinterpret_cast<cublasHandle_t>(&made);
    return CUBLAS_STATUS_SUCCESS;
}

// Waits for the whole card.
cublasStatus_t cublasDestroy_v2(cublasHandle_t) {
    return cuCtxSynchronize() == CUDA_SUCCESS ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *, size_t) { return CUBLAS_STATUS_SUCCESS; }

curandStatus_t curandCreateGenerator(curandGenerator_t *generator, curandRngType_t) {
    static int made;
    *generator = reinterpret_cast<curandGenerator_t>(&made);
    return CURAND_STATUS_SUCCESS;
}

curandStatus_t curandDestroyGenerator(curandGenerator_t) { return CURAND_STATUS_SUCCESS; }

curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t, unsigned long long) { return CURAND_STATUS_SUCCESS; }

curandStatus_t curandSetStream(curandGenerator_t, cudaStream_t) { return CURAND_STATUS_SUCCESS; }

} // extern "C"
