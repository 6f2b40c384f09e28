// Array engine: operand buffers, tile walker, slots with adder trees, accumulators, output stage.
//
// SHIFT_ADD 0: multipliers of 8 × 8 bits, PRODUCTS = 2 if they split into two of 8 × 4; 1: TERMS shifters per slot.
// start, tile, ready, ends   see tile_walker.sv
// result_*                   see output_stage.sv; result_last marks the last results of a tile
// hazard                     see accumulators.sv
// *_write_*                  lines of the operand buffers and entries of the requantization table
// Cycles from the word to its accumulation: buffer, operand register, products, tree levels, accumulator.
module array_engine
  import engine_pkg::*;
#(
    parameter int SHIFT_ADD = 0,
    parameter int LANES = 2,
    parameter int LANE_WIDTH = 4,
    parameter int PIXEL_GROUPS = 2,
    parameter int PRODUCTS = 2,
    parameter int TERMS = 1,
    parameter int DEPTHWISE = 1,
    parameter int ACTIVATION_PORT = 64,
    parameter int WEIGHT_PORT = 64,
    parameter int OUTPUTS_PER_CYCLE = 4,
    parameter int OUTPUT_LATENCY = 4,
    parameter int LINES = 8192,
    parameter int CHANNEL_LINES = 512,
    parameter int LINE_CHANNELS = LANES * PRODUCTS > LANE_WIDTH ? LANES * PRODUCTS : LANE_WIDTH
) (
    input logic clk,
    input logic rst,
    input logic start,
    input tile_t tile,
    output logic ready,
    output logic ends,
    output logic result_valid,
    output logic result_last,
    output logic [OUTPUTS_PER_CYCLE-1:0] result_inside,
    output logic [OUTPUTS_PER_CYCLE-1:0][RESULT_BITS-1:0] results,
    output logic hazard,
    input logic activation_write_valid,
    input logic [$clog2(LINES)-1:0] activation_write_address,
    input logic [ACTIVATION_PORT-1:0] activation_write_data,
    input logic weight_write_valid,
    input logic [$clog2(LINES)-1:0] weight_write_address,
    input logic [WEIGHT_PORT-1:0] weight_write_data,
    input logic channel_write_valid,
    input logic [$clog2(CHANNEL_LINES*LINE_CHANNELS)-1:0] channel_write_address,
    input channel_t channel_write_data
);
  localparam int POSITIONS = LANES * PIXEL_GROUPS * PRODUCTS;
  localparam int N_ACTIVATIONS = DEPTHWISE != 0 ? LANE_WIDTH * POSITIONS : PIXEL_GROUPS * LANE_WIDTH;
  localparam int N_SUMS = DEPTHWISE != 0 ? LANE_WIDTH * POSITIONS : POSITIONS;

  logic activation_read, weight_read, activation_valid, weight_valid, drained, bank_drained;
  // verilator lint_off UNUSEDSIGNAL
  shape_t activation_line, weight_line;  // a buffer may have fewer lines than an address can name
  // verilator lint_on UNUSEDSIGNAL
  shape_t activation_beat, weight_beat, activation_place, weight_place;
  logic [ACTIVATION_PORT-1:0] activation_data;
  logic [WEIGHT_PORT-1:0] weight_data;
  logic signed [ACTIVATION_BITS-1:0] activations[N_ACTIVATIONS];
  logic [WEIGHT_BITS-1:0] weights[LANES*PRODUCTS*LANE_WIDTH];
  logic signed [31:0] sums[N_SUMS], bank0[N_SUMS], bank1[N_SUMS];
  tag_t word, read_word, operand_tag, sums_tag, blocks[2];

  tile_walker #(
      .LANES(LANES), .LANE_WIDTH(LANE_WIDTH), .PIXEL_GROUPS(PIXEL_GROUPS),
      .ACTIVATION_PORT(ACTIVATION_PORT), .WEIGHT_PORT(WEIGHT_PORT), .OUTPUTS_PER_CYCLE(OUTPUTS_PER_CYCLE)
  ) walker (.*);

  operand_buffer #(.LINE_BITS(ACTIVATION_PORT), .LINES(LINES)) activation_buffer (
      .clk,
      .write_valid(activation_write_valid),
      .write_address(activation_write_address),
      .write_data(activation_write_data),
      .read_valid(activation_read),
      .read_address($clog2(LINES)'(activation_line)),
      .read_data(activation_data)
  );

  operand_buffer #(.LINE_BITS(WEIGHT_PORT), .LINES(LINES)) weight_buffer (
      .clk,
      .write_valid(weight_write_valid),
      .write_address(weight_write_address),
      .write_data(weight_write_data),
      .read_valid(weight_read),
      .read_address($clog2(LINES)'(weight_line)),
      .read_data(weight_data)
  );

  // The buffers answer one cycle later.
  always_ff @(posedge clk) begin
    activation_valid <= activation_read;
    weight_valid <= weight_read;
    activation_place <= activation_beat;
    weight_place <= weight_beat;
    read_word <= word;
    if (rst) read_word.valid <= 1'b0;
  end

  operand_registers #(
      .SHIFT_ADD(SHIFT_ADD), .LANES(LANES), .LANE_WIDTH(LANE_WIDTH), .PIXEL_GROUPS(PIXEL_GROUPS), .PRODUCTS(PRODUCTS),
      .POSITIONS(POSITIONS), .N_ACTIVATIONS(N_ACTIVATIONS), .ACTIVATION_PORT(ACTIVATION_PORT),
      .WEIGHT_PORT(WEIGHT_PORT)
  ) operands (
      .clk,
      .rst,
      .activation_valid,
      .activation_beat(activation_place),
      .activation_data,
      .weight_valid,
      .weight_beat(weight_place),
      .weight_data,
      .word(read_word),
      .activations,
      .weights,
      .tag(operand_tag)
  );

  slot_array #(
      .SHIFT_ADD(SHIFT_ADD), .LANES(LANES), .LANE_WIDTH(LANE_WIDTH), .PIXEL_GROUPS(PIXEL_GROUPS), .PRODUCTS(PRODUCTS),
      .TERMS(TERMS), .DEPTHWISE(DEPTHWISE), .POSITIONS(POSITIONS), .N_ACTIVATIONS(N_ACTIVATIONS), .N_SUMS(N_SUMS)
  ) slots (.clk, .rst, .activations, .weights, .tag(operand_tag), .sums, .sums_tag);

  accumulators #(.N_SUMS(N_SUMS)) accumulator_banks (
      .clk, .rst, .sums, .tag(sums_tag), .drained, .bank_drained, .bank0, .bank1, .blocks, .hazard
  );

  output_stage #(
      .LANES(LANES), .LANE_WIDTH(LANE_WIDTH), .PRODUCTS(PRODUCTS), .POSITIONS(POSITIONS), .N_SUMS(N_SUMS),
      .OUTPUTS_PER_CYCLE(OUTPUTS_PER_CYCLE), .OUTPUT_LATENCY(OUTPUT_LATENCY), .CHANNEL_LINES(CHANNEL_LINES),
      .LINE_CHANNELS(LINE_CHANNELS)
  ) requantizer (
      .clk,
      .rst,
      .write_valid(channel_write_valid),
      .write_address(channel_write_address),
      .write_channel(channel_write_data),
      .bank0,
      .bank1,
      .blocks,
      .drained,
      .bank_drained,
      .result_valid,
      .result_last,
      .result_inside,
      .results
  );
endmodule
