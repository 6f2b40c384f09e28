// Helpers of the Verilator harnesses: ports of any width, numbers from standard input and to standard output.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <verilated.h>

// Bits [low, low + width) of a port, width at most 32.
template <typename Port> void put(Port& port, unsigned low, unsigned width, uint64_t value) {
    const Port mask = static_cast<Port>(((width < 64 ? 1ull << width : 0ull) - 1) << low);
    port = static_cast<Port>((port & ~mask) | (static_cast<Port>(value) << low & mask));
}
template <std::size_t N> void put(VlWide<N>& port, unsigned low, unsigned width, uint64_t value) {
    for (unsigned bit = 0; bit < width; bit++) {
        const unsigned place = low + bit;
        const uint32_t one = 1u << (place % 32);
        if (value >> bit & 1) port[place / 32] |= one;
        else port[place / 32] &= ~one;
    }
}
template <typename Port> uint64_t get(const Port& port, unsigned low, unsigned width) {
    return static_cast<uint64_t>(port) >> low & ((width < 64 ? 1ull << width : 0ull) - 1);
}
template <std::size_t N> uint64_t get(const VlWide<N>& port, unsigned low, unsigned width) {
    uint64_t value = 0;
    for (unsigned bit = 0; bit < width; bit++) {
        const unsigned place = low + bit;
        value |= static_cast<uint64_t>(port[place / 32] >> (place % 32) & 1) << bit;
    }
    return value;
}

// Whole 32-bit words of a wide port.
template <typename Port> void put_word(Port& port, unsigned word, uint32_t value) { put(port, 32 * word, 32, value); }
template <std::size_t N> void put_word(VlWide<N>& port, unsigned word, uint32_t value) { port[word] = value; }

// Input and output are 64-bit integers, as they lie in memory.
inline bool next_number(int64_t& value) { return fread(&value, sizeof value, 1, stdin) == 1; }
inline int64_t need_number() {
    int64_t value = 0;
    if (!next_number(value)) {
        fprintf(stderr, "input ends too early\n");
        exit(1);
    }
    return value;
}
inline void answer(int64_t value) { fwrite(&value, sizeof value, 1, stdout); }

// One clock cycle: outputs are those of the cycle before its closing edge.
template <typename Top> void settle(Top& top) {
    top.clk = 0;
    top.eval();
}
template <typename Top> void edge(Top& top) {
    top.clk = 1;
    top.eval();
}
