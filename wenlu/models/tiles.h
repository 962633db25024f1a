// Products by a processor's tiles (AMX): sixteen outputs meet sixteen columns at once, for bf16 and int8.
//
// Weights are tiles as they lie: sixteen rows, 64 bytes of each. What they meet is packed once for each product. A row
// of bf16 is a column. A row of floats that meets int8 is three: its numbers, as whole ones of 24 bits beside its
// greatest, in digits of 8 bits; sums of digits are exact. A result depends on its own row and output alone.

#pragma once

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>

namespace {

constexpr long SIDE = 16, SPAN = 64, TILE = SIDE * SPAN;  // rows of a tile, bytes of a row, of all
constexpr float LARGEST = 127 * 65536.0f;                 // of whole numbers in three digits

// Whether the system lets this process use tiles.
inline bool tiles_allowed() {
    constexpr long REQUEST = 0x1023, DATA = 18;  // ARCH_REQ_XCOMP_PERM, the tiles' part of the state
    static const bool allowed = !syscall(SYS_arch_prctl, REQUEST, DATA);
    return allowed;
}

// Row i's number j becomes row j's number i.
inline void transpose(__m512i *v) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
        }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512i a = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x88), b = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xdd);
        t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    std::memcpy(v, t, sizeof t);
}

// The rows of a product, as a thread packs them for itself: tiles of columns, each [bytes / 64, 16, 16] times 4 bytes.
struct Packed {
    Numbers<char> tiles;
    Numbers<int8_t> digits;
    std::vector<float> units;  // of each row's whole numbers
    long count = 0, steps = 0;

    static Packed &own() {
        static thread_local Packed own;
        return own;
    }

    void pack(const BF16 *x, long rows, long in) {
        columns((const char *)x, rows, 2 * in, SIDE);
    }

    void pack(const float *x, long rows, long in) {
        digits.resize(3 * rows * in);
        units.resize(rows);
        for (long r = 0; r < rows; r++) units[r] = split(x + r * in, &digits[3 * r * in], in);
        columns((const char *)digits.data(), 3 * rows, in, SIDE / 3 * 3);
    }

    // The unit of a row's whole numbers, which are written as three rows of digits, the highest first.
    static float split(const float *x, int8_t *to, long in) {
        const auto some = [&](long i) { return __mmask16(in - i < 16 ? (1 << (in - i)) - 1 : 0xffff); };
        __m512 most = _mm512_setzero_ps(), odd = most;
        for (long i = 0; i < in; i += 16) {
            const __m512 v = _mm512_maskz_loadu_ps(some(i), x + i);
            most = _mm512_max_ps(most, _mm512_abs_ps(v));
            odd += v * 0.0f;
        }
        const float greatest = _mm512_reduce_max_ps(most), none = _mm512_reduce_add_ps(odd);
        if (!(none == 0.0f) || greatest < 1e-30f) {
            std::memset(to, 0, 3 * in);
            return none;  // what is not finite stays so
        }
        const float factor = LARGEST / greatest;
        for (long i = 0; i < in; i += 16) {
            const __m512i whole = _mm512_cvtps_epi32(_mm512_maskz_loadu_ps(some(i), x + i) * factor);
            const __m128i low = _mm512_cvtepi32_epi8(whole);
            const __m512i high = _mm512_srai_epi32(_mm512_sub_epi32(whole, _mm512_cvtepi8_epi32(low)), 8);
            const __m128i middle = _mm512_cvtepi32_epi8(high);
            const __m512i highest = _mm512_srai_epi32(_mm512_sub_epi32(high, _mm512_cvtepi8_epi32(middle)), 8);
            _mm_mask_storeu_epi8(to + i, some(i), _mm512_cvtepi32_epi8(highest));
            _mm_mask_storeu_epi8(to + in + i, some(i), middle);
            _mm_mask_storeu_epi8(to + 2 * in + i, some(i), low);
        }
        return greatest / LARGEST;
    }

    // `most` rows of so many bytes to a tile; where there are several tiles, an even number of them.
    void columns(const char *from, long rows, long bytes, long most) {
        count = (rows + most - 1) / most;
        count += count > 1 ? count % 2 : 0;
        steps = (bytes + SPAN - 1) / SPAN;
        tiles.resize(count * steps * TILE);
        for (long c = 0; c < count; c++)
            for (long s = 0; s < steps; s++) {
                const long left = bytes - s * SPAN;
                const __mmask64 mask = left >= SPAN ? ~0ull : (1ull << left) - 1;
                __m512i v[16] = {};
                for (long i = 0; i < most && c * most + i < rows; i++)
                    v[i] = _mm512_maskz_loadu_epi8(mask, from + (c * most + i) * bytes + s * SPAN);
                transpose(v);
                std::memcpy(&tiles[(c * steps + s) * TILE], v, TILE);
            }
    }
};

// Let all that is kept in memory lie there: compilers do not know that tiles are read from it.
inline void written(const void *place) { asm volatile("" : : "r"(place) : "memory"); }

// Sets a thread's tiles up, all of full size, for as long as it lives.
struct Configured {
    Configured() {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, none[14] = {};
            uint16_t bytes[16] = {};
            uint8_t rows[16] = {};
        } all;
        for (int i = 0; i < 8; i++) all.bytes[i] = SPAN, all.rows[i] = SIDE;
        written(&all);
        _tile_loadconfig(&all);
    }
    ~Configured() { _tile_release(); }
};

#define MEET(SUMS, WEIGHTS, COLUMNS)                        \
    if constexpr (sizeof(W) == 1) {                         \
        _tile_dpbssd(SUMS, WEIGHTS, COLUMNS);               \
    } else {                                                \
        _tile_dpbf16ps(SUMS, WEIGHTS, COLUMNS);             \
    }

// Sums of outputs and tiles of columns, to [outputs / 16][columns / 16][16][16]; `ahead`: how far off lie the weights
// that are asked for meanwhile, in bytes, 0 = nowhere.
template <class W>
struct Tiled {
    const char *columns;
    long bytes, steps;  // of a row of weights, and its tiles

    // 16 rows of weights, from step s on: as they lie, or copied where they end within a tile.
    const char *rows(const char *w, long s, char *copy, long &stride) const {
        const long left = bytes - s * SPAN;
        stride = left >= SPAN ? bytes : SPAN;
        if (left >= SPAN) return w + s * SPAN;
        for (long i = 0; i < SIDE; i++)
            _mm512_store_si512(copy + i * SPAN, _mm512_maskz_loadu_epi8((1ull << left) - 1, w + i * bytes + s * SPAN));
        written(copy);
        return copy;
    }

    static void ask(const char *w, long s, long lines, long ahead) {
        if (ahead)
            for (long i = 0; i < lines; i++) _mm_prefetch(w + ahead + (s * lines + i) * 64, _MM_HINT_T1);
    }

    void four(const char *w, long ahead, int32_t *to) const {  // 64 outputs, a tile of columns
        alignas(64) char copies[4][TILE];
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (long s = 0; s < steps; s++) {
            long stride;
            ask(w, s, 4 * SIDE, ahead);
            _tile_loadd(7, columns + s * TILE, SPAN);
            _tile_loadd(4, rows(w, s, copies[0], stride), stride);
            MEET(0, 4, 7);
            _tile_loadd(5, rows(w + SIDE * bytes, s, copies[1], stride), stride);
            MEET(1, 5, 7);
            _tile_loadd(6, rows(w + 2 * SIDE * bytes, s, copies[2], stride), stride);
            MEET(2, 6, 7);
            _tile_loadd(4, rows(w + 3 * SIDE * bytes, s, copies[3], stride), stride);
            MEET(3, 4, 7);
        }
        _tile_stored(0, to, SPAN);
        _tile_stored(1, to + 256, SPAN);
        _tile_stored(2, to + 512, SPAN);
        _tile_stored(3, to + 768, SPAN);
    }

    void two_by_two(const char *w, long ahead, int32_t *to) const {  // 32 outputs, two tiles of columns
        alignas(64) char copies[2][TILE];
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (long s = 0; s < steps; s++) {
            long stride;
            ask(w, s, 2 * SIDE, ahead);
            _tile_loadd(6, columns + s * TILE, SPAN);
            _tile_loadd(7, columns + (steps + s) * TILE, SPAN);
            _tile_loadd(4, rows(w, s, copies[0], stride), stride);
            MEET(0, 4, 6);
            MEET(1, 4, 7);
            _tile_loadd(5, rows(w + SIDE * bytes, s, copies[1], stride), stride);
            MEET(2, 5, 6);
            MEET(3, 5, 7);
        }
        _tile_stored(0, to, SPAN);
        _tile_stored(1, to + 256, SPAN);
        _tile_stored(2, to + 512, SPAN);
        _tile_stored(3, to + 768, SPAN);
    }

    void one(const char *w, int32_t *to) const {  // 16 outputs, a tile of columns
        alignas(64) char copy[TILE];
        _tile_zero(0);
        for (long s = 0; s < steps; s++) {
            long stride;
            _tile_loadd(7, columns + s * TILE, SPAN);
            _tile_loadd(4, rows(w, s, copy, stride), stride);
            MEET(0, 4, 7);
        }
        _tile_stored(0, to, SPAN);
    }
};

// Outputs first..end (a multiple of 16 of them) of all rows, which are packed, to lines of a length.
template <class W>
void tile_products(const W *w, const float *scale, long rows, long line, long in, long first, long end, long ahead,
                   float *to) {
    const Packed &packed = Packed::own();
    const Configured configured;
    const long bytes = in * long(sizeof(W)), per = sizeof(W) == 1 ? SIDE / 3 : SIDE;
    alignas(64) int32_t sums[4 * 256];
    // A tile's sums, of 16 outputs, to their rows.
    const auto put = [&](const int32_t *tile, long column, long output) {
        __m512i v[16];
        std::memcpy(v, tile, TILE);
        transpose(v);
        for (long i = 0; i < per && column * per + i < rows; i++) {
            const long r = column * per + i;
            __m512 total = _mm512_castsi512_ps(v[i]);
            if constexpr (sizeof(W) == 1) {
                total = _mm512_cvtepi32_ps(v[3 * i]) * 65536.0f + _mm512_cvtepi32_ps(v[3 * i + 1]) * 256.0f;
                total = (total + _mm512_cvtepi32_ps(v[3 * i + 2])) * packed.units[r];
                if (scale) total *= _mm512_loadu_ps(scale + output);
            }
            _mm512_storeu_ps(to + r * line + output, total);
        }
    };
    while (first < end) {
        const char *at = (const char *)(w + first * in);
        const long size = packed.count == 1 && first + 64 <= end ? 64 : packed.count > 1 && first + 32 <= end ? 32 : 16;
        for (long c = 0; c < packed.count; c += size == 32 ? 2 : 1) {
            const Tiled<W> tiled{&packed.tiles[c * packed.steps * TILE], bytes, packed.steps};
            const long wide = size == 32 ? 2 : 1;
            if (size == 64) tiled.four(at, ahead, sums);
            if (size == 32) tiled.two_by_two(at, c ? 0 : ahead, sums);
            if (size == 16) tiled.one(at, sums);
            for (long i = 0; i < size / 16 * wide; i++) put(sums + i * 256, c + i % wide, first + i / wide * 16);
        }
        first += size;
    }
}

}  // namespace
