// Dropout whose random numbers are a function of a key and a place: none are kept for the gradient.

#pragma once

#include "lanes.h"

namespace {

// What is kept of dropout: number i of those made of a key, 32 random bits by two rounds of an integer hash.
struct Chance {
    uint32_t first, second, dropped;
    float factor;
    Chance(uint64_t key, double p)
        : first(uint32_t(key)), second(uint32_t(key >> 32)), dropped(uint32_t(p * 4294967296.0)),
          factor(float(1.0 / (1.0 - dropped / 4294967296.0))) {}

    typedef uint32_t Bits __attribute__((vector_size(BYTES)));
    static Bits mixed(Bits v) {
        v = (v ^ (v >> 16)) * 0x7feb352du;
        v = (v ^ (v >> 15)) * 0x846ca68bu;
        return v ^ (v >> 16);
    }
    Floats operator()(long i) const {  // factors of the numbers from i on: 0, or what keeps the mean
        Bits place;
        for (long l = 0; l < LANES; l++) place[l] = uint32_t(i + l);
        const Bits bits = mixed(mixed(place + first) ^ (second + uint32_t(i >> 32)));
        return bits < dropped ? Floats{} : every(factor);
    }
};

// added + from, some of it dropped out; added may be null.
template <class To, class From>
void drop(To *to, const float *added, const From *from, long count, uint64_t key, double p, int parts) {
    const Chance kept(key, p);
    share((count + LANES - 1) / LANES, parts, [=](long first, long end, int) {
        for (long i = first * LANES; i < std::min(count, end * LANES); i += LANES) {
            const Floats v = some(from + i, count - i) * kept(i);
            keep_some(to + i, added ? some(added + i, count - i) + v : v, count - i);
        }
    });
}

}  // namespace
