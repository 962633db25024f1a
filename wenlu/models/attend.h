// One query over a text's keys and values: scores, their softmax, and the sum of the values by these weights.
//
// Keys and values [count, size] of one head lie one after the other. Fetching them is what they cost most, so lines of
// memory that are needed next are asked for a few at a time, while there is work to do on others.

#pragma once
#include "lanes.h"

namespace {

// Σ over N vectors of lanes from d on of q · key, added to the sums of `many` keys.
template <int N, class T>
inline void add_products(const float *q, const T *keys, long size, int many, Floats *sums) {
    Floats parts[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) parts[n] = load(q + n * LANES);
    for (int i = 0; i < many; i++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) sums[i] = fused(parts[n], load(keys + i * size + n * LANES), sums[i]);
}

// q · k of each key; meanwhile asks for as many bytes as it reads.
template <class T>
void score(const float *q, const T *keys, float *to, long size, long count, Ahead &ahead) {
    constexpr int MANY = 16;
    for (long j = 0; j < count; j += MANY) {
        const int many = int(std::min<long>(MANY, count - j));
        const T *from = keys + j * size;
        Floats sums[MANY] = {};
        float totals[MANY];
        ahead.ask(many * size * long(sizeof(T)));
        long d = 0;
        for (; d + 4 * LANES <= size; d += 4 * LANES) {
            if (many == MANY) add_products<4>(q + d, from + d, size, MANY, sums);
            else add_products<4>(q + d, from + d, size, many, sums);
        }
        for (; d + LANES <= size; d += LANES) add_products<1>(q + d, from + d, size, many, sums);
        sums_of<MANY>(sums, totals);
        for (int i = 0; i < many; i++) {
            for (long e = d; e < size; e++) totals[i] = fused(q[e], number(from[i * size + e]), totals[i]);
            to[j + i] = totals[i];
        }
    }
}

// softmax, in place; what stands in the LANES after the last is lost.
inline void soften(float *weights, long count) {
    const Floats none = every(-INFINITY);
    std::memcpy(weights + count, &none, sizeof none);
    Floats most = none, total = {};
    for (long j = 0; j < count; j += LANES) most = larger(load(weights + j), most);
    const float top = largest(most);
    for (long j = 0; j < count; j += LANES) {
        Floats v = exponential(load(weights + j) - top);
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
void weigh(const float *weights, const T *values, float *to, long size, long count, long pace, Ahead &ahead) {
    Floats even[N] = {}, odd[N] = {};  // a sum waits for itself: two at a time wait half as long
    long j = 0;
    for (; j + 2 <= count; j += 2) {
        ahead.ask(2 * pace);
        const Floats one = every(weights[j]), two = every(weights[j + 1]);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            even[n] = fused(one, load(values + j * size + n * LANES), even[n]);
            odd[n] = fused(two, load(values + (j + 1) * size + n * LANES), odd[n]);
        }
    }
    for (; j < count; j++)
        for (int n = 0; n < N; n++) even[n] = fused(every(weights[j]), load(values + j * size + n * LANES), even[n]);
    for (int n = 0; n < N; n++) even[n] += odd[n];
    std::memcpy(to, even, sizeof even);
}

// The values' sum by the softmax of a query's scores. While keys are read `values_ahead` is asked for, while values are,
// `ahead`. weights: room for count + LANES numbers.
template <class T>
void look(const float *q, const T *keys, const T *values, float *weights, float *to, long size, long count,
          Ahead &values_ahead, Ahead &ahead) {
    score(q, keys, weights, size, count, values_ahead);
    soften(weights, count);
    const long pace = size * long(sizeof(T));
    Ahead none;
    long d = 0;
    for (; d + 4 * LANES <= size; d += 4 * LANES)
        weigh<4>(weights, values + d, to + d, size, count, pace, d ? none : ahead);
    for (; d + LANES <= size; d += LANES) weigh<1>(weights, values + d, to + d, size, count, pace, d ? none : ahead);
    for (; d < size; d++) {
        to[d] = 0.0f;
        for (long j = 0; j < count; j++) to[d] = fused(weights[j], number(values[j * size + d]), to[d]);
    }
}

}  // namespace
