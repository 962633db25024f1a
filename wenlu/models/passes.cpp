// What is done beside products, each as one pass over memory and, for training, another one for its gradient:
// normalisation, queries, keys and values, the gated unit, dropout, softmax of attention, cross-entropy.
//
// Numbers are f32, or bf16 where a product under autocast makes or takes them; all is computed in f32. Rows are shared
// out among the threads by their number alone, and sums over rows are added in that order: the same bits each time.

#include <vector>

#include "dropout.h"
#include "softmax.h"

namespace {

// y = s w x with s = 1 / √(mean(x²) + ε), which is kept.
template <class T>
inline void norm_row(const T *x, const float *weight, T *y, float *scale, long dim, float eps) {
    Floats squares = {};
    LANE_BY_LANE(i, dim) {
        const Floats v = some(x + i, dim - i);
        squares += v * v;
    }
    *scale = 1.0f / std::sqrt(sum(squares) / dim + eps);
    LANE_BY_LANE(i, dim) keep_some(y + i, some(x + i, dim - i) * *scale * some(weight + i, dim - i), dim - i);
}

// With u = s x and g = w ∂L/∂y: ∂L/∂x = s (g − u mean(g u)); ∂L/∂w gets u ∂L/∂y. `gradient` gives ∂L/∂y by place.
template <class T, class Gradient>
inline void norm_row_back(const T *x, float scale, const float *weight, const Gradient &gradient, T *of_x,
                          float *of_weight, long dim) {
    Floats along = {};
    LANE_BY_LANE(i, dim) {
        const Floats g = gradient(i), unit = some(x + i, dim - i) * scale;
        along += g * unit * some(weight + i, dim - i);
        keep_some(of_weight + i, some(of_weight + i, dim - i) + g * unit, dim - i);
    }
    const float mean = sum(along) / dim;
    LANE_BY_LANE(i, dim) {
        const Floats g = gradient(i) * some(weight + i, dim - i), unit = some(x + i, dim - i) * scale;
        keep_some(of_x + i, scale * (g - unit * mean), dim - i);
    }
}

template <class T>
void norm(T *y, float *scale, const T *x, const float *weight, long rows, long dim, float eps, int parts) {
    share(rows, parts, [=](long first, long end, int) {
        for (long r = first; r < end; r++) norm_row(x + r * dim, weight, y + r * dim, scale + r, dim, eps);
    });
}

// `of_weight` [parts, dim] begins as zeros.
template <class T>
void norm_back(T *of_x, float *of_weight, const T *gradient, const T *x, const float *scale, const float *weight,
               long rows, long dim, int parts) {
    share(rows, parts, [=](long first, long end, int part) {
        for (long r = first; r < end; r++) {
            const T *g = gradient + r * dim;
            norm_row_back(x + r * dim, scale[r], weight, [=](long i) { return some(g + i, dim - i); }, of_x + r * dim,
                          of_weight + part * dim, dim);
        }
    });
}

}  // namespace

extern "C" {
struct Heads {                 // of queries, keys and values; norms and angles null where a model has none
    long batch, seq, heads, kv_heads, head_dim;
    const float *q_norm, *k_norm;
    const float *cos, *sin;    // [places, head_dim / 2]
    const int64_t *positions;  // [batch, seq]; null: the place in the row
    float eps;
};
}

namespace {

// qkv [batch, seq, heads + 2 kv_heads, head_dim] ↔ q [batch, heads, seq, head_dim], k and v likewise.
template <class T>
struct Parting {
    const Heads &h;
    long all() const { return h.heads + 2 * h.kv_heads; }
    long turned() const { return h.heads + h.kv_heads; }
    long place(long row, long t) const { return h.positions ? h.positions[row * h.seq + t] : t; }
    T *at(T *q, T *k, T *v, long row, long t, long head) const {
        T *base = head < h.heads ? q : head < turned() ? k : v;
        const long own = head < h.heads ? head : head < turned() ? head - h.heads : head - turned();
        const long many = head < h.heads ? h.heads : h.kv_heads;
        return base + ((row * many + own) * h.seq + t) * h.head_dim;
    }
    const float *norm_of(long head) const { return head < h.heads ? h.q_norm : h.k_norm; }

    // (a, b) → (a cos − b sin, b cos + a sin), or back by the same angle.
    void turn(const float *from, float *to, long place, float direction) const {
        const long half = h.head_dim / 2;
        const float *cos = h.cos + place * half, *sin = h.sin + place * half;
        LANE_BY_LANE(i, half) {
            const Floats c = some(cos + i, half - i), s = some(sin + i, half - i) * direction;
            const Floats a = some(from + i, half - i), b = some(from + half + i, half - i);
            keep_some(to + i, a * c - b * s, half - i);
            keep_some(to + half + i, b * c + a * s, half - i);
        }
    }

    void forward(T *q, T *k, T *v, float *scale, const T *qkv, int parts) const {
        const long size = h.head_dim;
        share(h.batch * h.seq, parts, [&](long first, long end, int) {
            std::vector<float> own(2 * size);
            std::vector<T> normed(size);
            for (long token = first; token < end; token++)
                for (long head = 0; head < all(); head++) {
                    const T *x = qkv + (token * all() + head) * size;
                    const long row = token / h.seq, t = token % h.seq;
                    T *to = at(q, k, v, row, t, head);
                    const bool value = head >= turned();
                    if (!value && h.q_norm) {
                        norm_row(x, norm_of(head), normed.data(), scale + token * turned() + head, size, h.eps);
                        x = normed.data();
                    }
                    if (value || !h.cos) {
                        std::memcpy(to, x, size * sizeof(T));
                        continue;
                    }
                    LANE_BY_LANE(i, size) keep_some(&own[i], some(x + i, size - i), size - i);
                    turn(own.data(), &own[size], place(row, t), 1.0f);
                    LANE_BY_LANE(i, size) keep_some(to + i, some(&own[size + i], size - i), size - i);
                }
        });
    }

    // `of_norms` [parts, 2, head_dim] begins as zeros.
    void back(T *of_qkv, float *of_norms, T *of_q, T *of_k, T *of_v, const T *qkv, const float *scale,
              int parts) const {
        const long size = h.head_dim;
        share(h.batch * h.seq, parts, [&](long first, long end, int part) {
            std::vector<float> own(2 * size);
            for (long token = first; token < end; token++)
                for (long head = 0; head < all(); head++) {
                    const long row = token / h.seq, t = token % h.seq, place_of = (token * all() + head) * size;
                    const T *gradient = at(of_q, of_k, of_v, row, t, head);
                    T *to = of_qkv + place_of;
                    if (head >= turned() || (!h.cos && !h.q_norm)) {
                        std::memcpy(to, gradient, size * sizeof(T));
                        continue;
                    }
                    float *from = own.data(), *g = h.cos ? from + size : from;
                    LANE_BY_LANE(i, size) keep_some(from + i, some(gradient + i, size - i), size - i);
                    if (h.cos) turn(from, g, place(row, t), -1.0f);
                    if (h.q_norm)
                        norm_row_back(qkv + place_of, scale[token * turned() + head], norm_of(head),
                                      [=](long i) { return some(g + i, size - i); }, to,
                                      of_norms + (2 * part + (head >= h.heads)) * size, size);
                    else
                        LANE_BY_LANE(i, size) keep_some(to + i, some(g + i, size - i), size - i);
                }
        });
    }
};

// x σ(u), as `activated`, and its derivative σ (1 + x (1 − σ) u′).
inline Floats slope(Floats x, long activation) {
    const bool silu = activation == SILU;
    const Floats u = silu ? x : 1.5957691216f * (x + 0.044715f * x * x * x);
    const Floats of_u = silu ? every(1.0f) : 1.5957691216f * (1.0f + 0.134145f * x * x);
    const Floats sigmoid = 1.0f / (1.0f + exponential(-u));
    return sigmoid * (1.0f + x * (1.0f - sigmoid) * of_u);
}

// gate_up [rows, 2 ffn] → act(gate) · up [rows, ffn].
template <class T>
void gate(T *y, const T *gate_up, long rows, long ffn, long activation, int parts) {
    share(rows, parts, [=](long first, long end, int) {
        for (long r = first; r < end; r++) {
            const T *g = gate_up + 2 * r * ffn, *up = g + ffn;
            LANE_BY_LANE(i, ffn)
            keep_some(y + r * ffn + i, activated(some(g + i, ffn - i), activation) * some(up + i, ffn - i), ffn - i);
        }
    });
}

template <class T>
void gate_back(T *of_gate_up, const T *gradient, const T *gate_up, long rows, long ffn, long activation, int parts) {
    share(rows, parts, [=](long first, long end, int) {
        for (long r = first; r < end; r++) {
            const T *g = gate_up + 2 * r * ffn, *up = g + ffn;
            T *of_g = of_gate_up + 2 * r * ffn, *of_up = of_g + ffn;
            LANE_BY_LANE(i, ffn) {
                const long left = ffn - i;
                const Floats x = some(g + i, left), of_y = some(gradient + r * ffn + i, left);
                keep_some(of_up + i, of_y * activated(x, activation), left);
                keep_some(of_g + i, of_y * some(up + i, left) * slope(x, activation), left);
            }
        }
    });
}

}  // namespace

#define PASSES(NAME, T)                                                                                               \
    void norm_##NAME(T *y, float *scale, const T *x, const float *weight, long rows, long dim, float eps, int parts) { \
        norm(y, scale, x, weight, rows, dim, eps, parts);                                                             \
    }                                                                                                                 \
    void norm_back_##NAME(T *of_x, float *of_weight, const T *gradient, const T *x, const float *scale,               \
                          const float *weight, long rows, long dim, int parts) {                                      \
        norm_back(of_x, of_weight, gradient, x, scale, weight, rows, dim, parts);                                     \
    }                                                                                                                 \
    void heads_##NAME(const Heads *heads, T *q, T *k, T *v, float *scale, const T *qkv, int parts) {                  \
        Parting<T>{*heads}.forward(q, k, v, scale, qkv, parts);                                                       \
    }                                                                                                                 \
    void heads_back_##NAME(const Heads *heads, T *of_qkv, float *of_norms, T *of_q, T *of_k, T *of_v, const T *qkv,   \
                           const float *scale, int parts) {                                                           \
        Parting<T>{*heads}.back(of_qkv, of_norms, of_q, of_k, of_v, qkv, scale, parts);                               \
    }                                                                                                                 \
    void gate_##NAME(T *y, const T *gate_up, long rows, long ffn, long activation, int parts) {                       \
        gate(y, gate_up, rows, ffn, activation, parts);                                                               \
    }                                                                                                                 \
    void gate_back_##NAME(T *of_gate_up, const T *gradient, const T *gate_up, long rows, long ffn, long activation,   \
                          int parts) {                                                                                \
        gate_back(of_gate_up, gradient, gate_up, rows, ffn, activation, parts);                                       \
    }                                                                                                                 \
    void softmax_##NAME(const Scores *scores, T *weights, T *dropped) { Softmax<T>{*scores}.forward(weights, dropped); } \
    void softmax_back_##NAME(const Scores *scores, T *gradient, const T *weights, float *of_bias) {                   \
        Softmax<T>{*scores}.back(gradient, weights, of_bias);                                                         \
    }                                                                                                                 \
    void cross_entropy_##NAME(T *logits, float *loss, const int64_t *targets, long rows, long vocab, float smoothing, \
                              int parts) {                                                                            \
        cross_entropy(logits, loss, targets, rows, vocab, smoothing, parts);                                          \
    }

#define DROP(NAME, TO, FROM)                                                                                          \
    void drop_##NAME(TO *to, const float *added, const FROM *from, long count, uint64_t key, double p, int parts) {   \
        drop(to, added, from, count, key, p, parts);                                                                  \
    }

extern "C" {
PASSES(f32, float)
PASSES(bf16, BF16)
DROP(f32_f32, float, float)
DROP(f32_bf16, float, BF16)
DROP(bf16_f32, BF16, float)
DROP(bf16_bf16, BF16, BF16)
}
