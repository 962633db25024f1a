// Transformer blocks, one after the other, over few new tokens of several texts, with their keys and values: one kernel
// for all of it.
//
// Pre-norm, as block.py has it: RMSNorm or LayerNorm; attention with QK-norm, rotary positions, grouped heads and a
// window where the model has them; a gated or plain feed-forward layer. Numbers between the layers stay in f32; what
// products of bf16 read is rounded to it. All of a token is computed in an order that depends on no other text.

#pragma once
#include "products.h"

extern "C" {
struct Matrix {
    const void *weight;
    const float *scale;  // of int8
    const void *bias;
};

struct Block {  // null where a model has no such thing
    Matrix qkv, out, up, down;
    const void *norm_1, *norm_1_bias, *norm_2, *norm_2_bias, *q_norm, *k_norm;
    long dim, heads, kv_heads, head_dim, ffn, centred, gated, activation, window;
    float eps, scale;
};

struct Step {
    const void *x;           // [rows, new, dim]
    void *y;                 // likewise
    void *keys, *values;     // [rows, kv_heads, room, head_dim] of the first of the layers
    long layers, layer_stride;  // how many; numbers from one's keys to the next one's
    long row_stride, room;   // numbers from one row's keys to the next; places of each head
    const int64_t *lengths;  // tokens known of each row
    const float *cos, *sin;  // [places, head_dim / 2], or null
    long rows, new_tokens;
    int threads;
};
}

namespace {

// Σ a b, of floats and keys of a type.
template <class T>
inline Floats dot(const float *a, const T *b, long whole) {
    Floats total = {};
    for (long d = 0; d < whole; d += LANES) total += load(a + d) * load(b + d);
    return total;
}

template <class W, class T>
struct Stepping {
    typedef typename Factors<W>::Row Row;
    const Block &block;
    const Step &step;

    long tokens() const { return step.rows * step.new_tokens; }
    long width() const { return (block.heads + 2 * block.kv_heads) * block.head_dim; }

    Product<W> product(const Matrix &matrix, const Row *x, long out, long in) const {
        return {x, (const W *)matrix.weight, matrix.scale, tokens(), out, in};
    }
    static float at(const void *numbers, long i) { return number(((const T *)numbers)[i]); }
    static float bias(const Matrix &matrix, long i) { return matrix.bias ? at(matrix.bias, i) : 0.0f; }

    // What is kept between the phases; a thread's memory for it grows and stays.
    struct Buffers {
        std::vector<float> residual, qkv, last;
        std::vector<Row> normed, attended, wide;
    };
    // What is to be done in each of them.
    struct Phases {
        Pieces norm_1, qkv, heads, out, norm_2, up, down;
    };
    template <class V>
    static void reserve(V &vector, size_t size) {
        if (vector.size() < size) vector.resize(size);
    }

    void make_room(Buffers &b) const {
        const long n = tokens();
        reserve(b.residual, n * block.dim);
        reserve(b.last, n * block.dim);
        reserve(b.qkv, n * width());
        reserve(b.normed, n * block.dim);
        reserve(b.attended, n * block.heads * block.head_dim);
        reserve(b.wide, n * block.ffn);
    }

    // Weights that the block's products read.
    long weights() const { return block.dim * (width() + block.heads * block.head_dim + block.ffn); }

    Product<W> to_qkv(const Buffers &b) const { return product(block.qkv, b.normed.data(), width(), block.dim); }

    // A thread takes its first piece of a product a phase before, so that the weights are on their way meanwhile.
    void all(Buffers &b, Phases &p, long first_qkv, int threads) const {
        const long n = tokens(), dim = block.dim, inner = block.heads * block.head_dim, ffn = block.ffn;
        const T *x = (const T *)step.x;
        T *y = (T *)step.y;
        const Product<W> to_qkv = this->to_qkv(b);
        const Product<W> to_out = product(block.out, b.attended.data(), dim, inner);
        const Product<W> to_down = product(block.down, b.wide.data(), dim, ffn);
        const Product<W> to_up = product(block.up, b.normed.data(), ffn * (block.gated ? 2 : 1), dim);

        p.norm_1.take(p.norm_1.one(1), n, 1, [&](long r, long, long) {
            normalise(x + r * dim, &b.normed[r * dim], block.norm_1, block.norm_1_bias);
        });
#pragma omp barrier
        to_qkv.prepare();
        p.qkv.take(first_qkv, width(), to_qkv.chunk(threads), [&](long first, long end, long then) {
            to_qkv.part(first, end, then, b.qkv.data());
            each(first, end, [&](long r, long o) { b.qkv[r * width() + o] += bias(block.qkv, o); });
        });
        const long first_out = begin(to_out, p.out, threads);
#pragma omp barrier
        p.heads.take(p.heads.one(1), step.rows * block.kv_heads, 1, [&](long i, long, long then) {
            attend(b.qkv.data(), b.attended.data(), i, then);
        });
#pragma omp barrier
        to_out.prepare();
        p.out.take(first_out, dim, to_out.chunk(threads), [&](long first, long end, long then) {
            to_out.part(first, end, then, b.residual.data());
            each(first, end, [&](long r, long o) {
                b.residual[r * dim + o] = number(x[r * dim + o]) + (b.residual[r * dim + o] + bias(block.out, o));
            });
        });
        const long first_up = begin(to_up, p.up, threads);
#pragma omp barrier
        p.norm_2.take(p.norm_2.one(1), n, 1, [&](long r, long, long) {
            normalise(&b.residual[r * dim], &b.normed[r * dim], block.norm_2, block.norm_2_bias);
        });
#pragma omp barrier
        to_up.prepare();
        p.up.take(first_up, ffn, up_chunk(to_up, threads), [&](long first, long end, long then) {
            widen(b, to_up, first, end, then);
        });
        const long first_down = begin(to_down, p.down, threads);
#pragma omp barrier
        to_down.prepare();
        p.down.take(first_down, dim, to_down.chunk(threads), [&](long first, long end, long then) {
            to_down.part(first, end, then, b.last.data());
            each(first, end, [&](long r, long o) {
                put(y + r * dim + o, b.residual[r * dim + o] + (b.last[r * dim + o] + bias(block.down, o)));
            });
        });
    }

    long begin(const Product<W> &product, Pieces &pieces, int threads) const {
        const long size = product.w == block.up.weight ? up_chunk(product, threads) : product.chunk(threads);
        const long first = pieces.one(size);
        product.ask(first, first + size);
        return first;
    }

    long up_chunk(const Product<W> &product, int threads) const {
        return std::min(product.chunk(threads), std::max(16l, block.ffn / threads / 16 * 16));
    }

    // do(token, output) for some of the outputs.
    template <class Do>
    void each(long first, long end, const Do &act) const {
        for (long r = 0; r < tokens(); r++)
            for (long o = first; o < end; o++) act(r, o);
    }

    // act(up), or act(gate) · up: who has made some of both also joins them. They stay with the thread: rows that lie
    // a power of two apart would drive each other out of its cache.
    void widen(Buffers &b, const Product<W> &product, long first, long end, long then) const {
        const long ffn = block.ffn, count = end - first, line = 2 * count + LANES;
        static thread_local std::vector<float> own;
        reserve(own, tokens() * line);
        float *gates = own.data(), *ups = gates + count;
        product.part(first, end, then, gates - first, line);
        if (block.gated) product.part(ffn + first, ffn + end, ffn + then, ups - ffn - first, line);
        for (long r = 0; r < tokens(); r++, gates += line, ups += line) {
            if (block.up.bias)
                for (long i = 0; i < count; i++) {
                    gates[i] += at(block.up.bias, first + i);
                    if (block.gated) ups[i] += at(block.up.bias, ffn + first + i);
                }
            for (long i = 0; i < count; i += LANES) {
                const Floats u = block.gated ? load(ups + i) : every(1.0f);
                const Floats v = activated(load(gates + i), block.activation) * u;
                put_lanes(&b.wide[r * ffn + first + i], v, std::min(LANES, count - i));
            }
        }
    }

    template <class X>
    void normalise(const X *x, Row *to, const void *weight, const void *bias) const {
        const long dim = block.dim, whole = dim / LANES * LANES;
        float mean = 0.0f;
        if (block.centred) {
            Floats total = {};
            for (long i = 0; i < whole; i += LANES) total += load(x + i);
            mean = sum(total);
            for (long i = whole; i < dim; i++) mean += number(x[i]);
            mean /= dim;
        }
        Floats squares = {};
        for (long i = 0; i < whole; i += LANES) {
            const Floats v = load(x + i) - mean;
            squares += v * v;
        }
        float total = sum(squares);
        for (long i = whole; i < dim; i++) total += (number(x[i]) - mean) * (number(x[i]) - mean);
        const float scale = 1.0f / std::sqrt(total / dim + block.eps);
        for (long i = 0; i < dim; i++)
            put(to + i, (number(x[i]) - mean) * scale * at(weight, i) + (bias ? at(bias, i) : 0.0f));
    }

    // One head's vector of a token, normalised and turned, times `factor`.
    void turned(const float *from, float *to, const void *weight, long place, float factor) const {
        const long size = block.head_dim, half = size / 2;
        float scale = factor;
        if (weight) {
            float total = 0.0f;
            for (long d = 0; d < size; d++) total += from[d] * from[d];
            scale /= std::sqrt(total / size + block.eps);
        }
        for (long d = 0; d < size; d++) to[d] = from[d] * scale * (weight ? at(weight, d) : 1.0f);
        if (!step.cos) return;
        const float *cos = step.cos + place * half, *sin = step.sin + place * half;
        for (long d = 0; d < half; d++) {
            const float one = to[d], two = to[d + half];
            to[d] = one * cos[d] - two * sin[d];
            to[d + half] = two * cos[d] + one * sin[d];
        }
    }

    // Where a head of a row has its keys, and its values.
    long start(long piece) const {
        return piece / block.kv_heads * step.row_stride + piece % block.kv_heads * step.room * block.head_dim;
    }

    // Asks for the keys or values of so many tokens, of which a window sees the last.
    void ask(const T *from, long known) const {
        const long first = block.window ? std::max(0l, known + 1 - block.window) : 0;
        const char *at = (const char *)(from + first * block.head_dim);
        for (const char *end = (const char *)(from + known * block.head_dim); at < end; at += 64) __builtin_prefetch(at, 0, 2);
    }

    // The new tokens of a row, for the queries of one head of keys: add key and value, then look at all so far.
    void attend(const float *qkv, Row *attended, long piece, long then) const {
        const long row = piece / block.kv_heads, head = piece % block.kv_heads;
        const long size = block.head_dim, group = block.heads / block.kv_heads, known = step.lengths[row];
        T *keys = (T *)step.keys + start(piece), *values = (T *)step.values + start(piece);
        ask(values, known);
        if (then != piece) ask((const T *)step.keys + start(then), step.lengths[then / block.kv_heads]);
        static thread_local std::vector<float> own;
        reserve(own, 2 * size + known + step.new_tokens + LANES);
        float *q = own.data(), *result = q + size, *weights = result + size;
        for (long t = 0; t < step.new_tokens; t++) {
            const float *of_token = qkv + (row * step.new_tokens + t) * width();
            const float *v = of_token + (block.heads + block.kv_heads + head) * size;
            turned(of_token + (block.heads + head) * size, q, block.k_norm, known + t, 1.0f);
            for (long d = 0; d < size; d++) put(keys + (known + t) * size + d, q[d]);
            for (long d = 0; d < size; d++) put(values + (known + t) * size + d, v[d]);
        }
        for (long t = 0; t < step.new_tokens; t++) {
            const long place = known + t, token = row * step.new_tokens + t;
            const long first = block.window ? std::max(0l, place - block.window + 1) : 0, count = place + 1 - first;
            for (long g = head * group; g < (head + 1) * group; g++) {
                turned(qkv + token * width() + g * size, q, block.q_norm, place, block.scale);
                score(q, keys + first * size, weights, count);
                soften(weights, count);
                long d = 0;
                for (; d + 4 * LANES <= size; d += 4 * LANES) weigh<4>(weights, values + first * size + d, result + d, count);
                for (; d + LANES <= size; d += LANES) weigh<1>(weights, values + first * size + d, result + d, count);
                for (; d < size; d++) {
                    result[d] = 0.0f;
                    for (long j = 0; j < count; j++) result[d] += weights[j] * number(values[(first + j) * size + d]);
                }
                Row *to = attended + (token * block.heads + g) * size;
                for (d = 0; d < size; d++) put(to + d, result[d]);
            }
        }
    }

    // q · k of each key.
    void score(const float *q, const T *keys, float *to, long count) const {
        constexpr int MANY = 16;
        const long size = block.head_dim, whole = size / LANES * LANES;
        for (long j = 0; j < count; j += MANY) {
            const int here = int(std::min<long>(MANY, count - j));
            Floats sums[MANY] = {};
            float totals[MANY];
            for (int i = 0; i < here; i++) sums[i] = dot(q, keys + (j + i) * size, whole);
            sums_of<MANY>(sums, totals);
            for (int i = 0; i < here; i++) {
                for (long d = whole; d < size; d++) totals[i] += q[d] * number(keys[(j + i) * size + d]);
                to[j + i] = totals[i];
            }
        }
    }

    // softmax, in place; what stands in the LANES after the last is lost.
    static void soften(float *weights, long count) {
        float most = weights[0];
        for (long j = 1; j < count; j++) most = weights[j] > most ? weights[j] : most;
        for (long j = 0; j < LANES; j++) weights[count + j] = -INFINITY;
        Floats total = {};
        for (long j = 0; j < count; j += LANES) {
            Floats v = exponential(load(weights + j) - most);
            if (j + LANES > count)
                for (long l = count - j; l < LANES; l++) v[l] = 0.0f;
            std::memcpy(weights + j, &v, sizeof v);
            total += v;
        }
        const float scale = 1.0f / sum(total);
        for (long j = 0; j < count; j++) weights[j] *= scale;
    }

    // Σ weight · value over all, of N vectors of the values' dimensions.
    template <int N>
    void weigh(const float *weights, const T *values, float *to, long count) const {
        Floats sums[N] = {};
        for (long j = 0; j < count; j++) {
            const Floats weight = every(weights[j]);
#pragma GCC unroll 4
            for (int i = 0; i < N; i++) sums[i] += weight * load(values + j * block.head_dim + i * LANES);
        }
        std::memcpy(to, sums, sizeof sums);
    }
};

// Each block over what the one before gave. A block has read x before it writes y, so that they may be one place.
template <class W, class T>
void through(const Block *blocks, const Step &step) {
    typedef Stepping<W, T> Layer;
    static thread_local typename Layer::Buffers own;
    typename Layer::Buffers &buffers = own;
    std::vector<Step> steps(step.layers, step);
    std::vector<typename Layer::Phases> phases(step.layers);
    std::vector<Layer> layers;
    long work = 0;
    for (long i = 0; i < step.layers; i++) {
        if (i) steps[i].x = step.y;
        steps[i].keys = (T *)step.keys + i * step.layer_stride;
        steps[i].values = (T *)step.values + i * step.layer_stride;
        layers.push_back({blocks[i], steps[i]});
        layers[i].make_room(buffers);
        work = std::max(work, layers[i].tokens() * layers[i].weights());
    }
    const int threads = work < 4 * WORTH_SHARING ? 1 : step.threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        for (long i = 0; i < step.layers; i++) {
            const long first_qkv = layers[i].begin(layers[i].to_qkv(buffers), phases[i].qkv, threads);
            if (i) {
#pragma omp barrier
            }
            layers[i].all(buffers, phases[i], first_qkv, threads);
        }
    }
}

}  // namespace
