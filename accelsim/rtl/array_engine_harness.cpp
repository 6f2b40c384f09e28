// Runs tiles back to back on array_engine.  Input, per job: lines of both buffers, entries of the requantization table,
// tiles; then the lines and entries as 32-bit words (entries: address first), then the descriptor of every tile as
// 32-bit words.  A tile starts in the first cycle in which the engine is ready for it.  Output, per job: status (0, 1:
// hazard, 2: no end); per tile: start, end of occupancy, finish; number of result slots, and per slot: inside, value.
#include <chrono>
#include <vector>

#include "Varray_engine.h"
#include "harness.h"

namespace {
struct Tile {
    std::vector<uint32_t> words;
    int64_t start = -1, free = -1, finish = -1;
};
constexpr unsigned words_of(unsigned bits) { return (bits + 31) / 32; }
int64_t cycles_of_all = 0;

void cycle(Varray_engine& top) {
    settle(top);
    edge(top);
}

template <typename Port> void read_words(Port& port, unsigned bits) {
    for (unsigned word = 0; word < words_of(bits); word++) put_word(port, word, static_cast<uint32_t>(need_number()));
}

void load(Varray_engine& top, int64_t activations, std::vector<Tile>& tiles) {
    const int64_t weights = need_number(), channels = need_number();
    tiles.assign(static_cast<std::size_t>(need_number()), Tile());
    top.start = 0;
    top.rst = 1;
    cycle(top);
    top.rst = 0;
    for (int64_t line = 0; line < activations || line < weights || line < channels; line++) {
        top.activation_write_valid = line < activations;
        top.weight_write_valid = line < weights;
        top.channel_write_valid = line < channels;
        top.activation_write_address = top.weight_write_address = line;
        if (line < activations) read_words(top.activation_write_data, ACTIVATION_PORT);
        if (line < weights) read_words(top.weight_write_data, WEIGHT_PORT);
        if (line < channels) {
            top.channel_write_address = need_number();
            read_words(top.channel_write_data, CHANNEL_BITS);
        }
        cycle(top);
    }
    top.activation_write_valid = top.weight_write_valid = top.channel_write_valid = 0;
    for (auto& tile : tiles)
        for (unsigned word = 0; word < words_of(TILE_BITS); word++)
            tile.words.push_back(static_cast<uint32_t>(need_number()));
}

int run(Varray_engine& top, std::vector<Tile>& tiles, std::vector<int64_t>& slots) {
    std::size_t next = 0, running = 0, finished = 0;
    for (int64_t now = 0; finished < tiles.size(); now++) {
        if (now > 100000000) return 2;
        if (next < tiles.size())
            for (unsigned word = 0; word < tiles[next].words.size(); word++) put_word(top.tile, word, tiles[next].words[word]);
        top.start = 0;
        settle(top);
        if (next < tiles.size() && top.ready) {
            top.start = 1;
            top.eval();
            running = next;
            tiles[next++].start = now;
        }
        if (top.ends) tiles[running].free = now + 1;
        if (top.result_valid)
            for (unsigned lane = 0; lane < OUTPUTS_PER_CYCLE; lane++) {
                slots.push_back(static_cast<int64_t>(get(top.result_inside, lane, 1)));
                slots.push_back(static_cast<int16_t>(get(top.results, lane * 16, 16)));
            }
        if (top.result_last) tiles[finished++].finish = now + 1;
        edge(top);
        cycles_of_all++;
        if (top.hazard) return 1;
    }
    return 0;
}
}  // namespace

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Varray_engine top;
    std::vector<Tile> tiles;
    double seconds = 0;
    int64_t activation_lines = 0;
    while (next_number(activation_lines)) {
        load(top, activation_lines, tiles);
        std::vector<int64_t> slots;
        const auto before = std::chrono::steady_clock::now();
        answer(run(top, tiles, slots));
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
        for (const auto& tile : tiles) {
            answer(tile.start);
            answer(tile.free);
            answer(tile.finish);
        }
        answer(static_cast<int64_t>(slots.size() / 2));
        for (const int64_t slot : slots) answer(slot);
    }
    fprintf(stderr, "%lld %.6f\n", static_cast<long long>(cycles_of_all), seconds);
    top.final();
    return 0;
}
