// Softmax of attention's weights, with bias, mask and dropout, and cross-entropy: each with its gradient.

#pragma once

#include <vector>

#include "dropout.h"

extern "C" {
struct Scores {                // softmax(scale · x + bias) over each row of attention's weights
    long batch, heads, rows, seq;
    const float *bias;       // null, or read at these strides; its last dimension is contiguous
    long bias_strides[3];
    const uint8_t *allowed;  // likewise
    long allowed_strides[3];
    float scale;
    int causal, parts;
    uint64_t key;
    double p;  // of dropout
};
}

namespace {

template <class T>
struct Softmax {
    const Scores &s;
    static long offset(const long *strides, long b, long h, long r) {
        return b * strides[0] + h * strides[1] + r * strides[2];
    }
    long seen(long row) const { return s.causal ? row + 1 + s.seq - s.rows : s.seq; }
    template <class Act>
    void each(const Act &act) const {  // act(b, h, r, place of the row)
        share(s.heads * s.rows, s.parts, [&](long first, long end, int) {
            for (long i = first; i < end; i++)
                for (long b = 0; b < s.batch; b++) {
                    const long h = i / s.rows, r = i % s.rows;
                    act(b, h, r, ((b * s.heads + h) * s.rows + r) * s.seq);
                }
        });
    }

    // In place; `dropped` is what is left of the weights after dropout, or null.
    void forward(T *weights, T *dropped) const {
        const Chance kept(s.key, s.p);
        each([&](long b, long h, long r, long place) {
            static thread_local std::vector<float> own;
            if (long(own.size()) < s.seq + LANES) own.resize(s.seq + LANES);
            T *row = weights + place;
            const long seen = this->seen(r);
            const float *bias = s.bias ? s.bias + offset(s.bias_strides, b, h, r) : nullptr;
            const uint8_t *allowed = s.allowed ? s.allowed + offset(s.allowed_strides, b, h, r) : nullptr;
            Floats most = every(-INFINITY);
            LANE_BY_LANE(i, seen) {
                const long left = seen - i;
                Floats v = some(row + i, left) * s.scale;
                if (bias) v += some(bias + i, left);
                if (allowed)
                    for (long l = 0; l < std::min(left, LANES); l++) v[l] = allowed[i + l] ? v[l] : -INFINITY;
                for (long l = left; l < LANES; l++) v[l] = -INFINITY;
                std::memcpy(&own[i], &v, sizeof v);
                most = larger(v, most);
            }
            const float top = largest(most);
            Floats total = {};
            LANE_BY_LANE(i, seen) {
                const Floats v = vanishing(load(&own[i]) - top);
                std::memcpy(&own[i], &v, sizeof v);
                total += v;
            }
            const float one = 1.0f / sum(total);
            LANE_BY_LANE(i, s.seq) {
                const long left = s.seq - i;
                const Floats v = i < seen ? load(&own[i]) * one : Floats{};
                keep_some(row + i, v, left);
                if (dropped) keep_some(dropped + place + i, i < seen ? v * kept(place + i) : v, left);
            }
        });
    }

    // With g = ∂L/∂weights after dropout: ∂L/∂x = scale · w (g − Σ w g), in place of g; without scale that of the bias.
    void back(T *gradient, const T *weights, float *of_bias) const {
        const Chance kept(s.key, s.p);
        each([&](long b, long h, long r, long place) {
            T *row = gradient + place;
            const T *w = weights + place;
            const long seen = this->seen(r);
            Floats along = {};
            LANE_BY_LANE(i, seen) {
                Floats g = some(row + i, seen - i);
                if (s.p) {
                    g *= kept(place + i);
                    keep_some(row + i, g, seen - i);
                }
                along += g * some(w + i, seen - i);
            }
            const float mean = sum(along);
            float *bias = of_bias ? of_bias + offset(s.bias_strides, b, h, r) : nullptr;
            LANE_BY_LANE(i, s.seq) {
                const long left = s.seq - i;
                const Floats v = i < seen ? some(w + i, left) * (some(row + i, left) - mean) : Floats{};
                if (bias) keep_some(bias + i, some(bias + i, left) + v, left);
                keep_some(row + i, v * s.scale, left);
            }
        });
    }
};

// Rows of logits → softmax − target, in place, and −log softmax(logits)[target]; no target: both zero.
template <class T>
void cross_entropy(T *logits, float *loss, const int64_t *targets, long rows, long vocab, float smoothing, int parts) {
    share(rows, parts, [=](long first, long end, int) {
        std::vector<float> own(vocab + LANES);
        for (long r = first; r < end; r++) {
            T *row = logits + r * vocab;
            loss[r] = 0.0f;
            if (targets[r] < 0) {
                std::memset(row, 0, vocab * sizeof(T));
                continue;
            }
            Floats most = every(-INFINITY), all = {};
            LANE_BY_LANE(i, vocab) {
                Floats v = some(row + i, vocab - i);
                all += v;
                for (long l = vocab - i; l < LANES; l++) v[l] = -INFINITY;
                std::memcpy(&own[i], &v, sizeof v);
                most = larger(v, most);
            }
            const float top = largest(most), at_target = own[targets[r]];
            Floats total = {};
            LANE_BY_LANE(i, vocab) {
                const Floats v = vanishing(load(&own[i]) - top);
                std::memcpy(&own[i], &v, sizeof v);
                total += v;
            }
            const float whole = sum(total), each = smoothing / vocab;
            loss[r] = top + std::log(whole) - (1.0f - smoothing) * at_target - (smoothing ? each * sum(all) : 0.0f);
            own[targets[r]] -= (1.0f - smoothing) * whole;
            LANE_BY_LANE(i, vocab) keep_some(row + i, load(&own[i]) / whole - each, vocab - i);
        }
    });
}

}  // namespace
