// Transformer blocks, one after the other, over few new tokens of several texts, with their keys and values: one kernel
// for all of it.
//
// Pre-norm, as block.py has it: RMSNorm or LayerNorm; attention with QK-norm, rotary positions, grouped heads and a
// window where the model has them; a gated or plain feed-forward layer. Numbers between the layers stay in f32; what
// products of bf16 read is rounded to it. All of a token is computed in an order that depends on no other text.

#pragma once
#include "attend.h"
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
        Numbers<float> residual, qkv, last;
        Numbers<Row> normed, attended, wide;
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

    // A thread takes its first piece of every phase before it needs it, so that on its last piece of a phase it can ask
    // for what the next one reads: first of all the weights for queries, keys and values, last `following`.
    void all(Buffers &b, Phases &p, long first_qkv, Ahead following, int threads) const {
        const long n = tokens(), dim = block.dim, inner = block.heads * block.head_dim, ffn = block.ffn;
        const T *x = (const T *)step.x;
        T *y = (T *)step.y;
        const Product<W> to_qkv = this->to_qkv(b);
        const Product<W> to_out = product(block.out, b.attended.data(), dim, inner);
        const Product<W> to_down = product(block.down, b.wide.data(), dim, ffn);
        const Product<W> to_up = product(block.up, b.normed.data(), ffn * (block.gated ? 2 : 1), dim);
        const long of_qkv = to_qkv.chunk(threads), of_out = to_out.chunk(threads), of_down = to_down.chunk(threads);
        const long of_up = std::min(to_up.chunk(threads), std::max(16l, ffn / threads / 16 * 16));
        const long first_head = p.heads.one(1), first_out = p.out.one(of_out);
        const long first_up = p.up.one(of_up), first_down = p.down.one(of_down);
        const Ahead heads = first_head < step.rows * block.kv_heads ? ahead(step.keys, first_head) : Ahead{};

        p.norm_1.take(p.norm_1.one(1), n, 1, [&](long r, long, long) {
            normalise(x + r * dim, &b.normed[r * dim], block.norm_1, block.norm_1_bias);
        });
#pragma omp barrier
        to_qkv.prepare();
        p.qkv.take(first_qkv, width(), of_qkv, [&](long first, long end, long then) {
            to_qkv.part(first, end, then, then == first ? heads : to_qkv.weights(then, of_qkv), b.qkv.data(), width());
            each(first, end, [&](long r, long o) { b.qkv[r * width() + o] += bias(block.qkv, o); });
        });
        to_out.ask(first_out, of_out);
#pragma omp barrier
        p.heads.take(first_head, step.rows * block.kv_heads, 1, [&](long i, long, long then) {
            attend(b, i, then, then == i ? to_out.weights(first_out, of_out) : ahead(step.keys, then));
        });
#pragma omp barrier
        to_out.prepare();
        p.out.take(first_out, dim, of_out, [&](long first, long end, long then) {
            const Ahead next = then == first ? to_up.weights(first_up, of_up) : to_out.weights(then, of_out);
            to_out.part(first, end, then, next, b.residual.data(), dim);
            each(first, end, [&](long r, long o) {
                b.residual[r * dim + o] = number(x[r * dim + o]) + (b.residual[r * dim + o] + bias(block.out, o));
            });
        });
        to_up.ask(first_up, of_up);
#pragma omp barrier
        p.norm_2.take(p.norm_2.one(1), n, 1, [&](long r, long, long) {
            normalise(&b.residual[r * dim], &b.normed[r * dim], block.norm_2, block.norm_2_bias);
        });
#pragma omp barrier
        to_up.prepare();
        p.up.take(first_up, ffn, of_up, [&](long first, long end, long then) {
            const Ahead next = then == first ? to_down.weights(first_down, of_down) : to_up.weights(then, of_up);
            widen(b, to_up, first, end, then, next);
        });
        to_down.ask(first_down, of_down);
#pragma omp barrier
        to_down.prepare();
        p.down.take(first_down, dim, of_down, [&](long first, long end, long then) {
            to_down.part(first, end, then, then == first ? following : to_down.weights(then, of_down), b.last.data(), dim);
            each(first, end, [&](long r, long o) {
                put(y + r * dim + o, b.residual[r * dim + o] + (b.last[r * dim + o] + bias(block.down, o)));
            });
        });
    }

    // do(token, output) for some of the outputs.
    template <class Do>
    void each(long first, long end, const Do &act) const {
        for (long r = 0; r < tokens(); r++)
            for (long o = first; o < end; o++) act(r, o);
    }

    // act(up), or act(gate) · up: who has made some of both also joins them. They stay with the thread: rows that lie
    // a power of two apart would drive each other out of its cache.
    void widen(Buffers &b, const Product<W> &product, long first, long end, long then, Ahead next) const {
        const long ffn = block.ffn, count = end - first, line = 2 * count + LANES;
        static thread_local Numbers<float> own;
        reserve(own, tokens() * line);
        float *gates = own.data(), *ups = gates + count;
        product.part(first, end, then, block.gated ? product.weights(ffn + first, count) : next, gates - first, line);
        if (block.gated) product.part(ffn + first, ffn + end, ffn + then, next, ups - ffn - first, line);
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

    // The keys or values of so many tokens, of which a window sees the last.
    Ahead ahead(const void *of_all, long piece) const {
        const long known = step.lengths[piece / block.kv_heads];
        const long first = block.window ? std::max(0l, known + 1 - block.window) : 0;
        const T *from = (const T *)of_all + start(piece);
        return {(const char *)(from + first * block.head_dim), (const char *)(from + known * block.head_dim)};
    }

    // Asks for what a piece's new tokens bring, and for where their keys and values go.
    void ask_for_new(const float *qkv, long piece) const {
        const long row = piece / block.kv_heads, head = piece % block.kv_heads, size = block.head_dim;
        const long known = step.lengths[row], group = block.heads / block.kv_heads;
        const float *of_token = qkv + row * step.new_tokens * width();
        const auto ask = [](const void *from, long bytes) { Ahead{(const char *)from, (const char *)from + bytes}.all(); };
        ask(of_token + head * group * size, group * size * sizeof(float));
        ask(of_token + (block.heads + head) * size, size * sizeof(float));
        ask(of_token + (block.heads + block.kv_heads + head) * size, size * sizeof(float));
        for (const void *all : {step.keys, step.values}) ask((const T *)all + start(piece) + known * size, size * sizeof(T));
    }

    // The new tokens of a row, for the queries of one head of keys: add key and value, then look at all so far.
    void attend(Buffers &b, long piece, long then, Ahead next) const {
        const float *qkv = b.qkv.data();
        ask_for_new(qkv, then);
        const long row = piece / block.kv_heads, head = piece % block.kv_heads;
        const long size = block.head_dim, group = block.heads / block.kv_heads, known = step.lengths[row];
        T *keys = (T *)step.keys + start(piece), *values = (T *)step.values + start(piece);
        Ahead of_values = ahead(step.values, piece);
        static thread_local Numbers<float> own;
        const long line = (size + LANES - 1) / LANES * LANES;
        reserve(own, 2 * line + known + step.new_tokens + LANES);
        float *q = own.data(), *result = q + line, *weights = result + line;
        std::fill(q + size, result, 0.0f);
        for (long t = 0; t < step.new_tokens; t++) {
            const float *of_token = qkv + (row * step.new_tokens + t) * width();
            const float *v = of_token + (block.heads + block.kv_heads + head) * size;
            turned(of_token + (block.heads + head) * size, q, block.k_norm, known + t, 1.0f);
            LANE_BY_LANE(d, size) put_lanes(keys + (known + t) * size + d, load(q + d), std::min(LANES, size - d));
            LANE_BY_LANE(d, size) {
                const long left = std::min(LANES, size - d);
                put_lanes(values + (known + t) * size + d, some(v + d, left), left);
            }
        }
        for (long t = 0; t < step.new_tokens; t++) {
            const long place = known + t, token = row * step.new_tokens + t;
            const long first = block.window ? std::max(0l, place - block.window + 1) : 0, count = place + 1 - first;
            for (long g = head * group; g < (head + 1) * group; g++) {
                turned(qkv + token * width() + g * size, q, block.q_norm, place, block.scale);
                look(q, keys + first * size, values + first * size, weights, result, size, count, of_values, next);
                Row *to = b.attended.data() + (token * block.heads + g) * size;
                LANE_BY_LANE(d, size) put_lanes(to + d, load(result + d), std::min(LANES, size - d));
            }
        }
        next.all();
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
        const long chunk = layers[0].to_qkv(buffers).chunk(threads);
        long first = phases[0].qkv.one(chunk);
        for (long i = 0; i < step.layers; i++) {
            const bool last = i + 1 == step.layers;
            const Product<W> to_qkv = layers[last ? i : i + 1].to_qkv(buffers);
            const long then = last ? 0 : phases[i + 1].qkv.one(chunk);
            layers[i].all(buffers, phases[i], first, last ? Ahead{} : to_qkv.weights(then, chunk), threads);
            if (!last) {
                to_qkv.ask(then, chunk);
#pragma omp barrier
            }
            first = then;
        }
    }
}

}  // namespace
