// Runs one Program on system_top and plays the DRAM.  Input: engine rows: instruction and tile as 32-bit words each; bus
// rows: instruction, latency, memory (0 none, 1 activations, 2 weights), first line, lines and their words each;
// entries of the requantization table: address and words each (every list after its length).  Output: status (0, 1:
// fault, 2: no end); per engine row, then per bus row: start, end of occupancy, finish; result slots: inside, value each.
#include <map>
#include <vector>

#include "Vsystem_top.h"
#include "harness.h"

namespace {
struct Times {
    int64_t start = -1, free = -1, finish = -1;
};
struct Line {
    int64_t memory, address;
    std::vector<uint32_t> words;
};
struct Transfer {
    int64_t latency = 0;
    std::vector<Line> lines;
};
constexpr unsigned words_of(unsigned bits) { return (bits + 31) / 32; }

void cycle(Vsystem_top& top) {
    settle(top);
    edge(top);
}

template <typename Port> void read_words(Port& port, unsigned bits) {
    for (unsigned word = 0; word < words_of(bits); word++) put_word(port, word, static_cast<uint32_t>(need_number()));
}

Transfer read_transfer() {
    Transfer transfer;
    transfer.latency = need_number();
    const int64_t memory = need_number(), first = need_number(), lines = need_number();
    for (int64_t n = 0; n < lines; n++) {
        Line line{memory, first + n, {}};
        for (unsigned word = 0; word < words_of(memory == 1 ? ACTIVATION_PORT : WEIGHT_PORT); word++)
            line.words.push_back(static_cast<uint32_t>(need_number()));
        transfer.lines.push_back(line);
    }
    return transfer;
}

void load(Vsystem_top& top, std::vector<Times>* times, std::vector<Transfer>& transfers) {
    top.run = 0;
    for (int unit = 0; unit < 2; unit++) {
        const auto rows = static_cast<unsigned>(need_number());
        put(top.n_rows, unit * NUMBER_BITS, NUMBER_BITS, rows);
        times[unit].assign(rows, Times());
        for (unsigned row = 0; row < rows; row++) {
            read_words(top.load_data, INSTRUCTION_BITS);
            if (unit == 0) read_words(top.load_tile, TILE_BITS);
            else transfers.push_back(read_transfer());
            top.load_valid = 1;
            top.load_unit = unit;
            top.load_address = row;
            cycle(top);
        }
    }
    top.load_valid = 0;
    top.channel_write_valid = 1;
    for (int64_t entries = need_number(); entries > 0; entries--) {
        top.channel_write_address = need_number();
        read_words(top.channel_write_data, CHANNEL_BITS);
        cycle(top);
    }
    top.channel_write_valid = 0;
    cycle(top);
}

void write_line(Vsystem_top& top, const Line& line) {
    for (unsigned word = 0; word < line.words.size(); word++)
        if (line.memory == 1) put_word(top.activation_write_data, word, line.words[word]);
        else put_word(top.weight_write_data, word, line.words[word]);
    if (line.memory == 1) top.activation_write_valid = 1;
    else top.weight_write_valid = 1;
    if (line.memory == 1) top.activation_write_address = line.address;
    else top.weight_write_address = line.address;
}

int run(Vsystem_top& top, std::vector<Times>* times, const std::vector<Transfer>& transfers, std::vector<int64_t>& slots) {
    std::multimap<int64_t, Line> due;  // lines by the cycle at whose closing edge they are written
    std::size_t left = times[0].size() + times[1].size(), tiles_done = 0;
    top.run = 1;
    for (int64_t now = 0; left > 0; now++) {
        if (now > 1000000) return 2;
        settle(top);
        for (int unit = 0; unit < 2; unit++) {
            const auto row = get(top.row_number, unit * NUMBER_BITS, NUMBER_BITS);
            if (get(top.start, unit, 1)) {
                times[unit][row].start = now;
                if (unit == 1) {
                    const auto& lines = transfers[row].lines;
                    for (std::size_t n = 0; n < lines.size(); n++)
                        due.emplace(now + transfers[row].latency - lines.size() + n, lines[n]);
                }
            }
            if (get(top.ends, unit, 1))
                for (auto& begun : times[unit])
                    if (begun.start >= 0 && begun.free < 0) begun.free = now + 1;
        }
        uint64_t finishing = top.finishing;
        for (int slot = 0; finishing; slot++, finishing >>= 1)
            if (finishing & 1) {
                times[1][get(top.slot_number, slot * NUMBER_BITS, NUMBER_BITS)].finish = now + 1;
                left--;
            }
        if (top.result_valid)
            for (unsigned lane = 0; lane < OUTPUTS_PER_CYCLE; lane++) {
                slots.push_back(static_cast<int64_t>(get(top.result_inside, lane, 1)));
                slots.push_back(static_cast<int16_t>(get(top.results, lane * 16, 16)));
            }
        if (top.result_last) {
            times[0][tiles_done++].finish = now + 1;
            left--;
        }
        top.activation_write_valid = top.weight_write_valid = 0;
        const auto range = due.equal_range(now);
        for (auto line = range.first; line != range.second; ++line) write_line(top, line->second);
        edge(top);
        if (top.fault) return 1;
    }
    return 0;
}
}  // namespace

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Vsystem_top top;
    std::vector<Times> times[2];
    std::vector<Transfer> transfers;
    std::vector<int64_t> slots;
    load(top, times, transfers);
    answer(run(top, times, transfers, slots));
    for (const auto& unit : times)
        for (const auto& row : unit) {
            answer(row.start);
            answer(row.free);
            answer(row.finish);
        }
    for (const int64_t slot : slots) answer(slot);
    fprintf(stderr, "0 0\n");
    top.final();
    return 0;
}
