// Vectors of f32 numbers as the processor has them: from and into memory, sums, exponentials, activations; rows shared among threads.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX2__)
#define BYTES 32
#else
#define BYTES 16
#endif

namespace {

constexpr long LANES = BYTES / sizeof(float);

typedef float Floats __attribute__((vector_size(BYTES)));

struct BF16 {
    uint16_t bits;
};

template <class To, class From>
inline To read(const From *from) {
    To to;
    std::memcpy(&to, from, sizeof to);
    return to;
}

inline float number(float v) { return v; }
inline float number(int8_t v) { return v; }
inline float number(BF16 v) {
    uint32_t bits = uint32_t(v.bits) << 16;
    return read<float>(&bits);
}

inline Floats load(const float *p) { return read<Floats>(p); }

#if defined(__AVX512F__)
inline Floats load(const BF16 *p) {
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
}
inline Floats load(const int8_t *p) {
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
#elif defined(__AVX2__)
inline Floats load(const BF16 *p) {
    return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
}
inline Floats load(const int8_t *p) {
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
#else
template <class W>
inline Floats load(const W *p) {
    Floats to;
    for (long i = 0; i < LANES; i++) to[i] = number(p[i]);
    return to;
}
#endif

inline BF16 rounded(float v) {  // to the nearest, ties to even
    uint32_t bits = read<uint32_t>(&v);
    return {uint16_t(v == v ? (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 : 0x7fc0)};
}

inline float sum(Floats v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float lanes[LANES];
    std::memcpy(lanes, &v, sizeof v);
    for (long half = LANES / 2; half; half /= 2)
        for (long i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
#endif
}

// The sums over the lanes of `count` vectors, each in the same order.
template <int count>
inline void sums_of(const Floats *v, float *to) {
#if defined(__AVX512F__)
    if (count > 2) {  // sixteen at once, by transposing on the way
        const Floats none = {};
        __m512 a[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) a[i] = (__m512)(4 * (i % 4) + i / 4 < count ? v[4 * (i % 4) + i / 4] : none);
#pragma GCC unroll 8
        for (int i = 0; i < 16; i += 2)
            a[i / 2] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 1], 0x44), _mm512_shuffle_f32x4(a[i], a[i + 1], 0xee));
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2)
            a[i / 2] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 1], 0x88), _mm512_shuffle_f32x4(a[i], a[i + 1], 0xdd));
#pragma GCC unroll 2
        for (int i = 0; i < 4; i += 2) {
            const __m512d one = _mm512_castps_pd(a[i]), two = _mm512_castps_pd(a[i + 1]);
            a[i / 2] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(one, two)),
                                     _mm512_castpd_ps(_mm512_unpackhi_pd(one, two)));
        }
        a[0] = _mm512_add_ps(_mm512_shuffle_ps(a[0], a[1], 0x88), _mm512_shuffle_ps(a[0], a[1], 0xdd));
        if (count == 16) {
            _mm512_storeu_ps(to, a[0]);
        } else {
            _mm512_mask_storeu_ps(to, __mmask16((1 << count) - 1), a[0]);
        }
        return;
    }
#endif
    for (int i = 0; i < count; i++) to[i] = sum(v[i]);
}

// a b + c, rounded once where the processor can. Left to themselves compilers fuse the two here and not there: for some
// processors not where there is one sum only, so that a row's would differ from what it is beside others.
inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FP_FAST_FMAF) || defined(__aarch64__)
    for (long l = 0; l < LANES; l++) c[l] = std::fma(a[l], b[l], c[l]);
    return c;
#else
    return a * b + c;
#endif
}

inline float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__FP_FAST_FMAF) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

// Memory that begins with a line of the cache: vectors of lanes that lie across two lines are read twice.
template <class T>
struct OnLine {
    typedef T value_type;
    OnLine() = default;
    template <class U>
    OnLine(const OnLine<U> &) {}
    T *allocate(size_t count) { return static_cast<T *>(::operator new(count * sizeof(T), std::align_val_t(64))); }
    void deallocate(T *p, size_t) { ::operator delete(p, std::align_val_t(64)); }
    bool operator==(const OnLine &) const { return true; }
    bool operator!=(const OnLine &) const { return false; }
};

template <class T>
using Numbers = std::vector<T, OnLine<T>>;

inline void put(float *to, float v) { *to = v; }
inline void put(BF16 *to, float v) { *to = rounded(v); }

typedef int32_t Ints __attribute__((vector_size(BYTES)));

inline Floats every(float v) { return Floats{} + v; }

// To about two units in the last place; e⁻⁸⁷ below −87.
inline Floats exponential(Floats x) {
    const Floats low = every(-87.0f), high = every(88.0f);
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Floats shift = every(12582912.0f);  // 1.5 · 2²³: what is added to it becomes whole
    const Floats n = (x * 1.44269504f + shift) - shift;
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats p = every(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (Floats)((__builtin_convertvector(n, Ints) + 127) << 23);
}

enum { SILU, GELU_NEW, RELU, RELU2 };

inline Floats activated(Floats x, long activation) {
    const Floats none = {}, positive = x < none ? none : x;
    if (activation == RELU) return positive;
    if (activation == RELU2) return positive * positive;
    const Floats u = activation == SILU ? x : 1.5957691216f * (x + 0.044715f * x * x * x);  // tanh as a sigmoid
    return x / (1.0f + exponential(-u));
}

// The lanes from p on of which `left` are there; the others are zero.
template <class T>
inline Floats some(const T *p, long left) {
    if (left >= LANES) return load(p);
    T lanes[LANES] = {};
    std::memcpy(lanes, p, left * sizeof(T));
    return load(lanes);
}

inline void keep_some(float *to, Floats v, long left) { std::memcpy(to, &v, std::min(left, LANES) * sizeof(float)); }

inline void keep_some(BF16 *to, Floats v, long left) {
#if defined(__AVX512BF16__)
    const __m256bh lanes = _mm512_cvtneps_pbh((__m512)v);
    std::memcpy(to, &lanes, std::min(left, LANES) * sizeof(BF16));
#else
    for (long i = 0; i < std::min(left, LANES); i++) to[i] = rounded(v[i]);
#endif
}

inline float largest(Floats v) {
    float most = v[0];
    for (long i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// e^x, and 0 where that is smaller than anything that counts beside 1.
inline Floats vanishing(Floats x) {
    const Floats low = every(-87.0f);
    return x < low ? Floats{} : exponential(x);
}

// For each vector of lanes up to `count`.
#define LANE_BY_LANE(i, count) for (long i = 0; i < (count); i += LANES)

// Lines of memory that will be needed: they are asked for a few at a time, while there is work to do on others, into the
// second cache, for more can be under way to it than to the first.
struct Ahead {
    const char *at = nullptr, *end = nullptr;

    void ask(long bytes) {
        for (const char *to = at + std::min<long>(bytes, end - at); at < to; at += 64) __builtin_prefetch(at, 0, 2);
    }
    void all() { ask(end - at); }
};

// act(first, end, part) on rows shared out evenly among as many parts as there are threads.
template <class Act>
void share(long rows, int parts, const Act &act) {
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++) act(rows * part / parts, rows * (part + 1) / parts, part);
}

}  // namespace
