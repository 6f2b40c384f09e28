// Output stage: drains finished blocks in order, OUTPUTS_PER_CYCLE slots per cycle, and requantizes them.
//
// blocks, bank0, bank1    from the accumulators
// write_*       requantization table: one channel of a line per cycle; a line has the channels of one block
// drained, bank_drained   see accumulators.sv
// result_*      OUTPUT_LATENCY cycles after a slot entered: values, which of them are slots of the tile, the end of it.
//               Slots come in order of the block's shape, masked ones included.
// The arithmetic is written in one step; synthesis may move the delay registers into it.
module output_stage
  import engine_pkg::*;
#(
    parameter int LANES = 2,
    parameter int LANE_WIDTH = 4,
    parameter int PRODUCTS = 2,
    parameter int POSITIONS = 8,
    parameter int N_SUMS = 32,
    parameter int OUTPUTS_PER_CYCLE = 4,
    parameter int OUTPUT_LATENCY = 4,
    parameter int CHANNEL_LINES = 64,
    parameter int LINE_CHANNELS = LANES * PRODUCTS > LANE_WIDTH ? LANES * PRODUCTS : LANE_WIDTH
) (
    input logic clk,
    input logic rst,
    input logic write_valid,
    input logic [$clog2(CHANNEL_LINES*LINE_CHANNELS)-1:0] write_address,
    input channel_t write_channel,
    input logic signed [31:0] bank0[N_SUMS],
    input logic signed [31:0] bank1[N_SUMS],
    input tag_t blocks[2],
    output logic drained,
    output logic bank_drained,
    output logic result_valid,
    output logic result_last,
    output logic [OUTPUTS_PER_CYCLE-1:0] result_inside,
    output logic [OUTPUTS_PER_CYCLE-1:0][RESULT_BITS-1:0] results
);
  typedef struct packed {
    logic valid;
    logic last;
    logic [OUTPUTS_PER_CYCLE-1:0] inside_tile;
    logic [OUTPUTS_PER_CYCLE-1:0][RESULT_BITS-1:0] values;
  } batch_t;

  channel_t table_[CHANNEL_LINES*LINE_CHANNELS];
  batch_t entering;
  localparam int DELAYS = OUTPUT_LATENCY > 0 ? OUTPUT_LATENCY : 1;
  batch_t delayed[DELAYS], next_delayed[DELAYS];
  batch_t leaving;
  logic bank;
  shape_t slot_a, slot_b, a, b;  // next slot of the block
  // verilator lint_off UNUSEDSIGNAL
  tag_t block;  // travels whole; this stage needs a part
  logic signed [31:0] value;
  int line, channel, at;
  // verilator lint_on UNUSEDSIGNAL

  assign block = blocks[bank];
  assign bank_drained = bank;

  always_comb begin
    entering = '0;
    entering.valid = block.valid;
    a = slot_a;
    b = slot_b;
    value = '0;
    line = 0;
    channel = 0;
    at = 0;
    if (block.valid) begin
      line = int'(block.channel_line) * LINE_CHANNELS;
      for (int n = 0; n < OUTPUTS_PER_CYCLE; n++)
        if (a < block.block_a) begin
          at = int'(a) * (block.tile.depthwise ? POSITIONS : LANES * PRODUCTS) + int'(b);
          value = bank ? bank1[at] : bank0[at];
          channel = line + (block.tile.depthwise ? int'(a) : int'(b));
          entering.inside_tile[n] = a < block.limit_a && b < block.limit_b;
          entering.values[n] = requantize(value, table_[channel], block.tile.low, block.tile.high);
          b = b + 1;
          if (b == block.block_b) begin
            b = '0;
            a = a + 1;
          end
        end
    end
    drained = block.valid && a == block.block_a;
    entering.last = drained && block.last_block;
  end

  always_comb begin
    next_delayed[0] = entering;
    for (int k = 1; k < DELAYS; k++) next_delayed[k] = delayed[k-1];
    if (rst) for (int k = 0; k < DELAYS; k++) {next_delayed[k].valid, next_delayed[k].last} = '0;
  end

  assign leaving = OUTPUT_LATENCY == 0 ? entering : delayed[DELAYS-1];
  assign result_valid = leaving.valid;
  assign result_last = leaving.last;
  assign result_inside = leaving.inside_tile;
  assign results = leaving.values;

  always_ff @(posedge clk) begin
    if (write_valid) table_[write_address] <= write_channel;
    delayed <= next_delayed;
    if (rst) begin
      bank <= 1'b0;
      {slot_a, slot_b} <= '0;
    end else if (drained) begin
      bank <= !bank;
      {slot_a, slot_b} <= '0;
    end else if (block.valid) begin
      slot_a <= a;
      slot_b <= b;
    end
  end
endmodule
