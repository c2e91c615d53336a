#include "common.cuh"

namespace rdn::cuda {

const char* status_text(Status status) {
    return cudaGetErrorString(static_cast<cudaError_t>(status));
}

}  // namespace rdn::cuda
