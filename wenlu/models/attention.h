// Attention of any number of queries: what attend.h does for one, for blocks of eight over the same keys and values.
//
// A block's scores are a product (products.h) of its queries by the keys; a row of weights is softened by itself. What a
// query gets depends neither on the others nor on the threads, but for how many there are: one is summed as in attend.h.

#pragma once
#include "attend.h"
#include "products.h"

extern "C" {
struct Attending {
    const void *q, *keys, *values;  // [batch, heads or kv_heads, new or seq, size], the last two of keys and values dense
    void *to;                       // [batch, heads, new, size]
    const void *mask;               // [batch, heads, new, seq], its numbers beside one another; or null
    long batch, heads, kv_heads, new_tokens, seq, size;
    long q_strides[3], key_strides[2], value_strides[2], to_strides[3], mask_strides[3];  // the dimensions before the last
    long added;   // whether a mask is f32 to be added, else bytes, 0 where a query may not look
    long causal;  // whether the last new token looks at all of seq, each before it at one less
    float scale;
    int threads;
};
}

namespace {

constexpr long QUERIES = 8;
constexpr int WIDE = LANES == 16 ? 4 : 2;  // vectors of values that four rows of weights meet at once

// Σ weight · value of each of `Rows` rows of weights, of N vectors of the values' dimensions.
template <int Rows, int N, class T>
void weigh_rows(const float *weights, long line, const T *values, const T *end, float *to, long size, long count) {
    Floats sums[Rows * N] = {};
    for (long j = 0; j < count; j++) {
        Floats parts[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const T *value = values + j * size + n * LANES;
            parts[n] = N == 1 ? up_to(value, end) : load(value);
        }
#pragma GCC unroll 4
        for (int r = 0; r < Rows; r++) {
            const Floats weight = every(weights[r * line + j]);
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) sums[r * N + n] = fused(weight, parts[n], sums[r * N + n]);
        }
    }
    for (int r = 0; r < Rows; r++) std::memcpy(to + r * (size + LANES), sums + r * N, N * sizeof(Floats));
}

template <int Rows, class T>
void weigh_all(const float *weights, long line, const T *values, float *to, long size, long count) {
    const T *end = values + count * size;
    long d = 0;
    for (; d + WIDE * LANES <= size; d += WIDE * LANES)
        weigh_rows<Rows, WIDE>(weights, line, values + d, end, to + d, size, count);
    for (; d < size; d += LANES) weigh_rows<Rows, 1>(weights, line, values + d, end, to + d, size, count);
}

template <class T>
struct Attention {
    typedef typename Factors<T>::Row Row;
    const Attending &all;

    struct Buffers {
        Numbers<Row> rows;
        Numbers<float> q, weights, results;
    };

    long blocks() const { return (all.new_tokens + QUERIES - 1) / QUERIES; }

    // Scores of a row, scaled, and what its mask says; keys that it may not see have none.
    void finish(float *scores, long batch, long head, long token, long seen, long count) const {
        const long at = batch * all.mask_strides[0] + head * all.mask_strides[1] + token * all.mask_strides[2];
        if (!all.mask || all.added) {
            const float *bias = all.mask ? (const float *)all.mask + at : nullptr;
            for (long j = 0; j < seen; j++) scores[j] = scores[j] * all.scale + (bias ? bias[j] : 0.0f);
        } else {
            const char *open = (const char *)all.mask + at;
            for (long j = 0; j < seen; j++) scores[j] = open[j] ? scores[j] * all.scale : -INFINITY;
        }
        soften(scores, seen);
        std::fill(scores + seen, scores + count, 0.0f);
    }

    // A block of queries of one head.
    void one(long piece, Buffers &own) const {
        const long block = piece % blocks(), head = piece / blocks() % all.heads, batch = piece / blocks() / all.heads;
        const long first = block * QUERIES, rows = std::min(QUERIES, all.new_tokens - first), size = all.size;
        const long of_keys = head / (all.heads / all.kv_heads), before = all.causal ? all.seq - all.new_tokens : 0;
        const long count = all.causal ? before + first + rows : all.seq, line = count + LANES;
        const T *q = (const T *)all.q + batch * all.q_strides[0] + head * all.q_strides[1] + first * all.q_strides[2];
        const T *keys = (const T *)all.keys + batch * all.key_strides[0] + of_keys * all.key_strides[1];
        const T *values = (const T *)all.values + batch * all.value_strides[0] + of_keys * all.value_strides[1];
        T *to = (T *)all.to + batch * all.to_strides[0] + head * all.to_strides[1] + first * all.to_strides[2];
        if (long(own.weights.size()) < QUERIES * line) own.weights.resize(QUERIES * line);
        float *weights = own.weights.data(), *results = own.results.data();
        Ahead none;
        if (rows == 1) {
            for (long d = 0; d < size; d++) own.q[d] = number(q[d]);
            score(own.q.data(), keys, weights, size, count, none);
        } else {
            for (long r = 0; r < rows; r++)
                for (long d = 0; d < size; d++) put(&own.rows[r * size + d], number(q[r * all.q_strides[2] + d]));
            const Product<T> product{own.rows.data(), keys, nullptr, rows, count, size};
            product.plainly(0, count, none, weights, line);
        }
        for (long r = 0; r < rows; r++)
            finish(weights + r * line, batch, head, first + r, all.causal ? before + first + r + 1 : count, count);
        if (rows == 1) {
            weigh_values(weights, values, results, size, count, none);
        } else {
            for (long r = 0; r < rows; r += 4) {
                float *of_row = results + r * (size + LANES);
                switch (std::min(4l, rows - r)) {
                    case 1: weigh_all<1>(weights + r * line, line, values, of_row, size, count); break;
                    case 2: weigh_all<2>(weights + r * line, line, values, of_row, size, count); break;
                    case 3: weigh_all<3>(weights + r * line, line, values, of_row, size, count); break;
                    case 4: weigh_all<4>(weights + r * line, line, values, of_row, size, count); break;
                }
            }
        }
        for (long r = 0; r < rows; r++)
            LANE_BY_LANE(d, size) {
                put_lanes(to + r * all.to_strides[2] + d, load(results + r * (size + LANES) + d), std::min(LANES, size - d));
            }
    }

    void every_one() const {
        const long pieces = all.batch * all.heads * blocks();
        Pieces shared;
        const long work = all.batch * all.heads * all.new_tokens * all.seq * all.size;
        const int threads = work < WORTH_SHARING ? 1 : all.threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
            static thread_local Buffers own;
            own.rows.resize(QUERIES * all.size);
            own.q.assign(all.size + LANES, 0.0f);
            own.results.resize(QUERIES * (all.size + LANES));
            shared.take(shared.one(1), pieces, 1, [&](long piece, long, long) { one(piece, own); });
        }
    }
};

}  // namespace
