// ops/cuda/cross_entropy.cu - the loss of one token a row, its gradient written over the logits. A block a row:
// one read for the largest and the sum together, one more, mostly from L2, where the gradient is wanted.
#include "ops/cuda/cuda.h"

constexpr int LOSS_THREADS = 512;

// logits <- scale (softmax - onehot), loss = logsumexp - logits[target]
template <int V, typename T>
static __global__ void cross_entropy(float *loss, T *logits, const int32_t *targets, int64_t C,
                                     float scale)
{
    T *row = logits + (int64_t)blockIdx.x * C;
    const int64_t target = targets[blockIdx.x];
    float largest = -3.4028235e38f,
          sum = 0; // sum of e^(x - largest) over the thread's elements so far
    for (int64_t c = (int64_t)threadIdx.x * V; c < C; c += (int64_t)blockDim.x * V) {
        float x[V];
        load_many(x, row + c);
        float m = largest;
        for (int k = 0; k < V; k++) {
            m = fmaxf(m, x[k]);
        }
        if (m > largest) sum *= expf(largest - m);
        largest = m;
        for (int k = 0; k < V; k++) {
            sum += expf(x[k] - m);
        }
    }
    const float most = block_max(largest);
    const double total = block_sum((double)sum * (double)expf(largest - most));
    const double lse = (double)most + log(total);
    const float high = (float)lse,
                low = (float)(lse - (double)high); // one float costs 1e-6 at lse = 10
    if (threadIdx.x == 0) loss[blockIdx.x] = (float)(lse - (double)to_float(row[target]));
    if (scale == 0.0f) return;
    __syncthreads(); // the target's logit was read
    for (int64_t c = (int64_t)threadIdx.x * V; c < C; c += (int64_t)blockDim.x * V) {
        float x[V];
        load_many(x, row + c);
        for (int k = 0; k < V; k++) {
            x[k] = scale * expf((x[k] - high) - low) - (c + k == target ? scale : 0.0f);
        }
        store_many(row + c, x);
    }
}

void cuda_cross_entropy(struct tensor loss, struct tensor logits, struct tensor targets,
                        float scale)
{
    const int64_t N = logits.dim[0], C = logits.dim[1];
    assert(tensor_count(loss) == N && tensor_count(targets) == N);
    with_activation(logits.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_width(wide_rows(C, data<T>(logits)), [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((cross_entropy<V, T>), (unsigned)N, LOSS_THREADS, 0, data<float>(loss),
                   data<T>(logits), data<int32_t>(targets), C, scale);
        });
    });
}
