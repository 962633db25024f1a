// y = x Wᵀ + b: each weight is read once from memory, and meets eight rows of x while it is in a register.
//
// x [rows, in], W [out, in], b [out] or null, y [rows, out], all contiguous, of any size. Sums are in f32, and those of
// a row are added in an order that depends neither on the other rows nor on the threads: a row's result is the same to
// the last bit alone and beside others.

#pragma once

#include <algorithm>
#include <atomic>
#include <type_traits>

#include "lanes.h"

#if defined(__AVX512F__)
#define ACCUMULATORS 24
#else
#define ACCUMULATORS 8
#endif

// Whether this processor has tiles; whether the system allows them is found out at run time.
#define TILES (__AMX_TILE__ && __AMX_INT8__ && __AMX_BF16__ && __AVX512BF16__ && __AVX512BW__ && __linux__)

#if TILES
#include "tiles.h"
#endif

namespace {

constexpr long WORTH_SHARING = 1 << 15;  // weights below which a second thread costs more than it brings
constexpr long CHUNK = 1 << 17;          // bytes of weights that a thread takes at once: they stay in its cache for all rows
constexpr long NEAR = 32 << 10;          // bytes of rows that stay in the first cache beside weights

// Let it stay in its register: compilers would rather read it from memory again at each use.
template <class V>
inline void keep(V &v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__AVX2__)
    asm("" : "+x"(v));
#endif
}

// What a product's rows are made of, and one step along them. bf16 stays bf16 where the processor multiplies it.
template <class W>
struct Factors {
    typedef float Row;
    typedef Floats Part;
    static constexpr long STEP = LANES;
    static Part of(const W *w) { return load(w); }
    static Part of_row(const float *x) { return load(x); }
    static void add(Floats &sum, Part w, Part x) { sum = fused(w, x, sum); }
};

#if defined(__AVX512BF16__) && defined(__AVX512F__)
template <>
struct Factors<BF16> {
    typedef BF16 Row;
    typedef __m512i Part;
    static constexpr long STEP = 2 * LANES;
    static Part of(const BF16 *w) { return _mm512_loadu_si512(w); }
    static Part of_row(const BF16 *x) { return _mm512_loadu_si512(x); }
    static void add(Floats &sum, Part w, Part x) {
        sum = (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
    }
};
#endif

// The first `count` of a vector's numbers.
inline void put_lanes(float *to, Floats v, long count) { std::memcpy(to, &v, count * sizeof(float)); }
inline void put_lanes(BF16 *to, Floats v, long count) {
#if defined(__AVX512F__)
    const __m512i bits = (__m512i)v, odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i high = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff)), 16);
    high = _mm512_mask_set1_epi32(high, _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q), 0x7fc0);
    const __m256i halves = _mm512_cvtepi32_epi16(high);
    std::memcpy(to, &halves, count * sizeof *to);
#else
    for (long l = 0; l < count; l++) put(to + l, v[l]);
#endif
}

// Hands out what is to be done, piece by piece: threads that are slower, or interrupted, take less.
struct Pieces {
    std::atomic<long> next{0};

    long one(long size) { return next.fetch_add(size, std::memory_order_relaxed); }

    // From the piece at `first` on: work(first, end, then), where the next piece begins at `then`; `first`: there is none.
    template <class Work>
    void take(long first, long count, long size, const Work &work) {
        while (first < count) {
            const long then = one(size);
            work(first, std::min(count, first + size), then < count ? then : first);
            first = then;
        }
    }
};

// Whether a type of weights is multiplied by tiles.
template <class W>
inline bool by_tiles() {
#if TILES
    return !std::is_same<W, float>::value && tiles_allowed();
#else
    return false;
#endif
}

template <class W>
struct Product {
    typedef Factors<W> F;
    typedef typename F::Row Row;
    const Row *x;
    const W *w;
    const float *scale;
    long rows, out, in;

    // Rows that meet the weights together, at most.
    long most() const { return 8 * in * long(sizeof(Row)) <= NEAR ? 8 : 4; }

    // Outputs that a thread takes at once: few enough to be shared, and to stay in its cache while all rows meet them.
    long chunk(int threads) const {
        const long fitting = std::max(1l, CHUNK / long(in * sizeof(W))), shared = (out + threads - 1) / threads;
        if (by_tiles<W>()) return std::max(16l, std::min(64l, shared) / 16 * 16);
        return std::max(8l, std::min(fitting, shared) / 8 * 8);
    }

    // The weights of `count` outputs from `first` on, as far as there are so many.
    Ahead weights(long first, long count) const {
        return {(const char *)(w + std::min(first, out) * in), (const char *)(w + std::min(first + count, out) * in)};
    }

    // Asks for a thread's first weights where it does not ask for them on its way.
    void ask(long first, long count) const {
        weights(first, by_tiles<W>() ? count : 0).all();
    }

    // What a thread does before its first part.
    void prepare() const {
#if TILES
        if constexpr (!std::is_same<W, float>::value)
            if (by_tiles<W>()) Packed::own().pack(x, rows, in);
#endif
    }

    // Outputs first..end of all rows; output o of a row goes to to[o] of its line, and lines are so long. The thread's
    // next ones begin at `then`. Meanwhile all of `next` is asked for.
    void part(long first, long end, [[maybe_unused]] long then, Ahead next, float *to, long line) const {
#if TILES
        if constexpr (!std::is_same<W, float>::value)
            if (by_tiles<W>()) {
                const long whole = first + (end - first) / 16 * 16, ahead = (then - first) * in * long(sizeof(W));
                tile_products<W>(w, scale, rows, line, in, first, whole, ahead, to);
                first = whole;
            }
#endif
        plainly(first, end, next, to, line);
    }

    // The same without tiles.
    void plainly(long first, long end, Ahead &next, float *to, long line) const {
        const long together = most(), times = (rows + together - 1) / together;
        for (long row = 0; row < rows;) {
            const long groups = (rows - row + together - 1) / together, size = (rows - row + groups - 1) / groups;
            switch (size) {
                case 1: group<1>(row, first, end, times, next, to, line); break;
                case 2: group<2>(row, first, end, times, next, to, line); break;
                case 3: group<3>(row, first, end, times, next, to, line); break;
                case 4: group<4>(row, first, end, times, next, to, line); break;
                case 5: group<5>(row, first, end, times, next, to, line); break;
                case 6: group<6>(row, first, end, times, next, to, line); break;
                case 7: group<7>(row, first, end, times, next, to, line); break;
                case 8: group<8>(row, first, end, times, next, to, line); break;
            }
            row += size;
        }
    }

    // Some of the rows, which meet these outputs' weights together; the rows meet them so many times in all.
    template <int Rows>
    void group(long row, long first, long end, long times, Ahead &next, float *to, long line) const {
        constexpr int Most = ACCUMULATORS / Rows >= 4 ? 4 : ACCUMULATORS / Rows;
        // Where all rows meet the weights at once memory is what counts, and gives most when it is read from one end to
        // the other; but int8 needs more sums under way.
        constexpr int Few = std::is_same<W, int8_t>::value ? Most : std::min(Most, (Rows + 3) / 4);
        if (times == 1) first = tiles<Rows, Few>(row, first, end, times, next, to, line);
        first = tiles<Rows, Most>(row, first, end, times, next, to, line);
        if (Most > 2) first = tiles<Rows, 2>(row, first, end, times, next, to, line);
        tiles<Rows, 1>(row, first, end, times, next, to, line);
    }

    // As many tiles as there are whole ones; the output after them.
    template <int Rows, int Tall>
    long tiles(long row, long first, long end, long times, Ahead &next, float *to, long line) const {
        for (; first + Tall <= end; first += Tall)
            tile<Rows, Tall>(row, first, next.at < next.end ? (Tall + times - 1) / times : 0, next, to, line);
        return first;
    }

    // `Tall` outputs from `first` on, of `Rows` rows from `row` on; `asked`: lines asked for with each line of weights.
    template <int Rows, int Tall>
    void tile(long row, long first, long asked, Ahead &next, float *to, long line) const {
        const W *base = w + first * in;
        const Row *lines = x + row * in;
        const long whole = in / F::STEP * F::STEP;
        Floats sums[Tall * Rows] = {};
        float totals[Tall * Rows];
        const char *at = next.at;
        for (long k = 0; k < whole; k += F::STEP) {
            typename F::Part weights[Tall];
            if (k * sizeof(W) % 64 == 0)
                for (long i = 0; i < asked; i++, at += 64) __builtin_prefetch(at, 0, 2);
#pragma GCC unroll 4
            for (int t = 0; t < Tall; t++) {
                weights[t] = F::of(base + t * in + k);
                keep(weights[t]);
            }
#pragma GCC unroll 8
            for (int r = 0; r < Rows; r++) {
                typename F::Part part = F::of_row(lines + r * in + k);
                keep(part);
#pragma GCC unroll 4
                for (int t = 0; t < Tall; t++) F::add(sums[t * Rows + r], weights[t], part);
            }
        }
        next.at = at;
        sums_of<(Tall * Rows > 16 ? 16 : Tall * Rows)>(sums, totals);
        if constexpr (Tall * Rows > 16) sums_of<Tall * Rows - 16>(sums + 16, totals + 16);
        for (int t = 0; t < Tall; t++)
            for (int r = 0; r < Rows; r++) {
                float total = totals[t * Rows + r];
                for (long k = whole; k < in; k++) total = fused(number(base[t * in + k]), number(lines[r * in + k]), total);
                to[(row + r) * line + first + t] = scale ? total * scale[first + t] : total;
            }
    }
};

// A whole product of rows of type T, shared among threads.
template <class W, class T>
void multiply(T *y, const T *x, const W *w, const float *scale, const T *bias, long rows, long out, long in, int threads) {
    typedef typename Factors<W>::Row Row;
    Numbers<Row> copied(std::is_same<Row, T>::value ? 0 : rows * in);
    for (size_t i = 0; i < copied.size(); i++) put(&copied[i], number(x[i]));
    const Row *lines = copied.empty() ? (const Row *)x : copied.data();
    const Product<W> product{lines, w, scale, rows, out, in};
    const long chunk = product.chunk(threads);
    Pieces pieces;
    const auto work = [&](long first, long end, long then) {
        const Ahead next = then == first ? Ahead{} : product.weights(then, chunk);
        if constexpr (std::is_same<T, float>::value) {
            product.part(first, end, then, next, y, out);
            for (long r = 0; bias && r < rows; r++)
                for (long o = first; o < end; o++) y[r * out + o] += bias[o];
        } else {
            static thread_local Numbers<float> own;
            const long line = end - first;
            if (long(own.size()) < rows * line + LANES) own.resize(rows * line + LANES);
            product.part(first, end, then, next, own.data() - first, line);
            for (long r = 0; r < rows; r++)
                LANE_BY_LANE(i, line) {
                    const Floats sums = load(&own[r * line + i]), none = {};
                    const Floats added = bias ? some(bias + first + i, line - i) : none;
                    put_lanes(y + r * out + first + i, sums + added, std::min(LANES, line - i));
                }
        }
    };
    if (threads < 2 || out * in < WORTH_SHARING) {
        product.prepare();
        return work(0, out, 0);
    }
#pragma omp parallel num_threads(threads)
    {
        const long first = pieces.one(chunk);
        product.ask(first, chunk);
        product.prepare();
        pieces.take(first, out, chunk, work);
    }
}

}  // namespace
