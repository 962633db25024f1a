// One query over a text's keys and values: scores, their softmax, and the sum of the values by these weights.
//
// Keys and values [count, size] of one head lie one after the other. Fetching them is what they cost most, so lines of
// memory that are needed next are asked for a few at a time, while there is work to do on others.

#pragma once
#include "lanes.h"

namespace {

// LANES numbers, or as many as there are before `end`, then zeros. For what is beyond a head's size whoever takes them
// has zeros of his own.
template <class T>
inline Floats up_to(const T *p, const T *end) {
    return p + LANES <= end ? load(p) : some(p, end - p);
}

// Σ over N vectors of lanes from d on of q · key, added to the sums of `many` keys.
template <int N, class T>
inline void add_products(const float *q, const T *keys, const T *end, long size, int many, Floats *sums) {
    Floats parts[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) parts[n] = load(q + n * LANES);
    for (int i = 0; i < many; i++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const T *key = keys + i * size + n * LANES;
            sums[i] = fused(parts[n], N == 1 ? up_to(key, end) : load(key), sums[i]);
        }
}

// q · k of each key, q [size] with zeros up to the next vector; meanwhile asks for as many bytes as it reads.
template <class T>
void score(const float *q, const T *keys, float *to, long size, long count, Ahead &ahead) {
    constexpr int MANY = 16;
    const T *end = keys + count * size;
    for (long j = 0; j < count; j += MANY) {
        const int many = int(std::min<long>(MANY, count - j));
        const T *from = keys + j * size;
        Floats sums[MANY] = {};
        float totals[MANY];
        ahead.ask(many * size * long(sizeof(T)));
        long d = 0;
        for (; d + 4 * LANES <= size; d += 4 * LANES) {
            if (many == MANY) add_products<4>(q + d, from + d, end, size, MANY, sums);
            else add_products<4>(q + d, from + d, end, size, many, sums);
        }
        for (; d < size; d += LANES) add_products<1>(q + d, from + d, end, size, many, sums);
        sums_of<MANY>(sums, totals);
        std::memcpy(to + j, totals, many * sizeof(float));
    }
}

// softmax, in place, zeros where all are -inf; what stands in the LANES after the last is lost.
inline void soften(float *weights, long count) {
    const Floats none = every(-INFINITY);
    std::memcpy(weights + count, &none, sizeof none);
    Floats most = none, total = {};
    for (long j = 0; j < count; j += LANES) most = larger(load(weights + j), most);
    const float top = largest(most);
    if (top == -INFINITY) return (void)std::fill(weights, weights + count, 0.0f);
    for (long j = 0; j < count; j += LANES) {
        Floats v = vanishing(load(weights + j) - top);
        if (j + LANES > count)
            for (long l = count - j; l < LANES; l++) v[l] = 0.0f;
        std::memcpy(weights + j, &v, sizeof v);
        total += v;
    }
    const float scale = 1.0f / sum(total);
    for (long j = 0; j < count; j += LANES) {
        const Floats v = load(weights + j) * scale;
        std::memcpy(weights + j, &v, sizeof v);
    }
}

// Σ weight · value over all, of N vectors of the values' dimensions; meanwhile asks for `pace` bytes with each value.
template <int N, class T>
void weigh(const float *weights, const T *values, const T *end, float *to, long size, long count, long pace, Ahead &ahead) {
    Floats even[N] = {}, odd[N] = {};  // a sum waits for itself: two at a time wait half as long
    const auto part = [&](long j, int n) {
        const T *value = values + j * size + n * LANES;
        return N == 1 ? up_to(value, end) : load(value);
    };
    long j = 0;
    for (; j + 2 <= count; j += 2) {
        ahead.ask(2 * pace);
        const Floats one = every(weights[j]), two = every(weights[j + 1]);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            even[n] = fused(one, part(j, n), even[n]);
            odd[n] = fused(two, part(j + 1, n), odd[n]);
        }
    }
    for (; j < count; j++)
        for (int n = 0; n < N; n++) even[n] = fused(every(weights[j]), part(j, n), even[n]);
    for (int n = 0; n < N; n++) even[n] += odd[n];
    std::memcpy(to, even, sizeof even);
}

// The values' sum by one row of weights; meanwhile asks for as many bytes as it reads. `to` has room for LANES beyond.
template <class T>
void weigh_values(const float *weights, const T *values, float *to, long size, long count, Ahead &next) {
    const T *end = values + count * size;
    const long pace = size * long(sizeof(T));
    Ahead none;
    long d = 0;
    for (; d + 4 * LANES <= size; d += 4 * LANES)
        weigh<4>(weights, values + d, end, to + d, size, count, pace, d ? none : next);
    for (; d < size; d += LANES) weigh<1>(weights, values + d, end, to + d, size, count, pace, d ? none : next);
}

// The values' sum by the softmax of a query's scores. While keys are read `of_values` is asked for, while values are,
// `next`. weights: room for count + LANES numbers; q and `to`: for size and LANES beyond, which q has as zeros.
template <class T>
void look(const float *q, const T *keys, const T *values, float *weights, float *to, long size, long count,
          Ahead &of_values, Ahead &next) {
    score(q, keys, weights, size, count, of_values);
    soften(weights, count);
    weigh_values(weights, values, to, size, count, next);
}

}  // namespace
