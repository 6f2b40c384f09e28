// Runs Programs on program_top.  Input, per program: ticks per cycle, most ticks; per unit: rows; per row: its
// instruction as 32-bit words.  Output, per program: its ticks (-1: no end, -2: overflow), then per unit and row:
// start, end of occupancy, finish in ticks.
#include <chrono>
#include <vector>

#include "Vprogram_top.h"
#include "harness.h"

namespace {
struct Times {
    int64_t start = -1, free = -1, finish = -1;
};
constexpr unsigned instruction_words = (INSTRUCTION_BITS + 31) / 32;

int load(Vprogram_top& top, std::vector<std::vector<Times>>& times) {
    int total = 0;
    top.run = 0;
    for (int unit = 0; unit < N_UNITS; unit++) {
        const auto rows = static_cast<unsigned>(need_number());
        put(top.n_rows, unit * NUMBER_BITS, NUMBER_BITS, rows);
        times[unit].assign(rows, Times());
        for (unsigned row = 0; row < rows; row++, total++) {
            for (unsigned word = 0; word < instruction_words; word++)
                put_word(top.load_data, word, static_cast<uint32_t>(need_number()));
            top.load_valid = 1;
            top.load_unit = unit;
            top.load_address = row;
            settle(top);
            edge(top);
        }
    }
    top.load_valid = 0;
    settle(top);
    edge(top);
    return total;
}

// Ticks until every row has finished.
int64_t run(Vprogram_top& top, std::vector<std::vector<Times>>& times, int rows, int64_t limit) {
    top.run = 1;
    for (int64_t tick = 0; tick < limit; tick++) {
        if (rows == 0) return tick;
        settle(top);
        for (int unit = 0; unit < N_UNITS; unit++) {
            // A core unit's start is up during the whole core cycle that the start belongs to; it is taken at its end.
            const int64_t cycle_began = unit == N_UNITS - 1 ? tick : tick - tick % top.ticks_per_cycle;
            if (get(top.start, unit, 1))
                times[unit][get(top.row_number, unit * NUMBER_BITS, NUMBER_BITS)].start = cycle_began;
            if (get(top.ends, unit, 1))
                for (auto& row : times[unit])
                    if (row.start >= 0 && row.free < 0) row.free = tick + 1;
            uint64_t slots = get(top.finishing, unit * SLOTS, SLOTS);
            for (int slot = 0; slots; slot++, slots >>= 1)
                if (slots & 1) {
                    times[unit][get(top.slot_number, (unit * SLOTS + slot) * NUMBER_BITS, NUMBER_BITS)].finish = tick + 1;
                    rows--;
                }
        }
        if (top.overflow) return -2;
        edge(top);
    }
    return -1;
}
}  // namespace

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Vprogram_top top;
    std::vector<std::vector<Times>> times(N_UNITS);
    int64_t ticks_per_cycle = 0, total = 0;
    double seconds = 0;
    while (next_number(ticks_per_cycle)) {
        const int64_t limit = need_number();
        top.ticks_per_cycle = static_cast<uint8_t>(ticks_per_cycle);
        const int rows = load(top, times);
        const auto before = std::chrono::steady_clock::now();
        const int64_t ticks = run(top, times, rows, limit);
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
        total += ticks > 0 ? ticks : 0;
        answer(ticks);
        for (const auto& unit : times)
            for (const auto& row : unit) {
                answer(row.start);
                answer(row.free);
                answer(row.finish);
            }
    }
    fprintf(stderr, "%lld %.6f\n", static_cast<long long>(total), seconds);
    top.final();
    return 0;
}
