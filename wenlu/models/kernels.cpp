// y = x Wᵀ + b for few rows of x: each weight is read once, from memory, and meets all rows while it is in a register.
//
// x [rows, in], W [out, in], b [out] or null, y [rows, out], all contiguous; 1 to 8 rows, any other size. Sums are in
// f32, and those of a row are added in an order that depends neither on the other rows nor on the threads: a row's
// result is the same to the last bit alone and beside seven others.

#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define BYTES 64
#define ACCUMULATORS 16
#elif defined(__AVX2__)
#define BYTES 32
#define ACCUMULATORS 8
#else
#define BYTES 16
#define ACCUMULATORS 8
#endif

namespace {

constexpr long LANES = BYTES / sizeof(float);
constexpr long WORTH_SHARING = 1 << 15;  // weights below which a second thread costs more than it brings

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

template <class W>
struct Product {
    float *y;
    const float *x;
    const W *w;
    const float *scale;
    const float *bias;
    long out, in;

    // `Tall` outputs from `first` on, of `Rows` rows.
    template <int Rows, int Tall>
    void tile(long first) const {
        const W *base = w + first * in;
        const long next = Tall * in;  // what the tile after this one reads in its place is asked for now
        Floats sums[Tall][Rows] = {};
        float totals[Tall][Rows];
        const long whole = in / LANES * LANES;
        for (long k = 0; k < whole; k += LANES) {
            Floats weights[Tall];
#pragma GCC unroll 4
            for (int t = 0; t < Tall; t++) {
                if (k * sizeof(W) % 64 == 0) __builtin_prefetch(base + t * in + k + next);
                weights[t] = load(base + t * in + k);
            }
#pragma GCC unroll 8
            for (int r = 0; r < Rows; r++) {
                const Floats row = load(x + r * in + k);
#pragma GCC unroll 4
                for (int t = 0; t < Tall; t++) sums[t][r] += weights[t] * row;
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < Tall; t++)
#pragma GCC unroll 8
            for (int r = 0; r < Rows; r++) totals[t][r] = sum(sums[t][r]);
        for (int t = 0; t < Tall; t++)
            for (int r = 0; r < Rows; r++) {
                float total = totals[t][r];
                for (long k = whole; k < in; k++) total += number(base[t * in + k]) * x[r * in + k];
                if (scale) total *= scale[first + t];
                if (bias) total += bias[first + t];
                y[r * out + first + t] = total;
            }
    }

    template <int Rows>
    void part(long first, long end) const {
        constexpr int Tall = ACCUMULATORS / Rows >= 4 ? 4 : ACCUMULATORS / Rows >= 2 ? 2 : 1;
        for (; first + Tall <= end; first += Tall) tile<Rows, Tall>(first);
        for (; first < end; first++) tile<Rows, 1>(first);
    }

    template <int Rows>
    void all(int threads) const {
        if (threads > out) threads = int(out);
        if (threads < 2 || out * in < WORTH_SHARING) return part<Rows>(0, out);
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int i = 0; i < threads; i++) part<Rows>(out * i / threads, out * (i + 1) / threads);
    }

    void operator()(long rows, int threads) const {
        switch (rows) {
            case 1: return all<1>(threads);
            case 2: return all<2>(threads);
            case 3: return all<3>(threads);
            case 4: return all<4>(threads);
            case 5: return all<5>(threads);
            case 6: return all<6>(threads);
            case 7: return all<7>(threads);
            case 8: return all<8>(threads);
        }
    }
};

template <class W>
void in_bf16(BF16 *y, const BF16 *x, const W *w, const float *scale, const BF16 *bias, long rows, long out, long in,
             int threads) {
    std::vector<float> wide(rows * in), sums(rows * out), biases(bias ? out : 0);
    for (size_t i = 0; i < wide.size(); i++) wide[i] = number(x[i]);
    for (size_t i = 0; i < biases.size(); i++) biases[i] = number(bias[i]);
    Product<W>{sums.data(), wide.data(), w, scale, bias ? biases.data() : nullptr, out, in}(rows, threads);
    for (size_t i = 0; i < sums.size(); i++) y[i] = rounded(sums[i]);
}

}  // namespace

// Named by the weights' type, then that of x, b and y.
extern "C" {

void f32_f32(float *y, const float *x, const float *w, const float *scale, const float *bias, long rows, long out,
             long in, int threads) {
    Product<float>{y, x, w, scale, bias, out, in}(rows, threads);
}

void int8_f32(float *y, const float *x, const int8_t *w, const float *scale, const float *bias, long rows, long out,
              long in, int threads) {
    Product<int8_t>{y, x, w, scale, bias, out, in}(rows, threads);
}

void bf16_bf16(BF16 *y, const BF16 *x, const BF16 *w, const float *scale, const BF16 *bias, long rows, long out,
               long in, int threads) {
    in_bf16(y, x, w, scale, bias, rows, out, in, threads);
}

void int8_bf16(BF16 *y, const BF16 *x, const int8_t *w, const float *scale, const BF16 *bias, long rows, long out,
               long in, int threads) {
    in_bf16(y, x, w, scale, bias, rows, out, in, threads);
}
}
