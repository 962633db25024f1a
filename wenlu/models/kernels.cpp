// What wenlu calls: products, named by the weights' type, then that of x, b and y; blocks' step (block.h);
// attention (attention.h).

#include "attention.h"
#include "block.h"

#define PRODUCT(NAME, W, T)                                                                                           \
    void NAME(T *y, const T *x, const W *w, const float *scale, const T *bias, long rows, long out, long in,          \
              int threads) {                                                                                          \
        multiply<W, T>(y, x, w, scale, bias, rows, out, in, threads);                                                 \
    }                                                                                                                 \
    void NAME##_blocks(const Block *blocks, const Step *step) { through<W, T>(blocks, *step); }

extern "C" {
PRODUCT(f32_f32, float, float)
PRODUCT(bf16_bf16, BF16, BF16)
PRODUCT(int8_f32, int8_t, float)
PRODUCT(int8_bf16, int8_t, BF16)

void f32_attend(const Attending *all) { Attention<float>{*all}.every_one(); }
void bf16_attend(const Attending *all) { Attention<BF16>{*all}.every_one(); }
}
