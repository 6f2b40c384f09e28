// Operand registers: collects the lines of a word and spreads them over the slots.
//
// activation_data, weight_data   lines that stand at the buffers' read ports in this cycle, with their beats
// word       tag of the word that is complete with them
// activations, weights, tag      registered: the word one cycle later.  Activations by [position][input], depthwise by
//            [input][position]; weights by [channel][input], depthwise by [input]; signs extended, absent inputs zero.
module operand_registers
  import engine_pkg::*;
#(
    parameter int SHIFT_ADD = 0,
    parameter int LANES = 2,
    parameter int LANE_WIDTH = 4,
    parameter int PIXEL_GROUPS = 2,
    parameter int PRODUCTS = 2,
    parameter int POSITIONS = 8,
    parameter int N_ACTIVATIONS = 32,
    parameter int ACTIVATION_PORT = 64,
    parameter int WEIGHT_PORT = 64
) (
    input logic clk,
    input logic rst,
    input logic activation_valid,
    input shape_t activation_beat,
    input logic [ACTIVATION_PORT-1:0] activation_data,
    input logic weight_valid,
    input shape_t weight_beat,
    input logic [WEIGHT_PORT-1:0] weight_data,
    input tag_t word,
    output logic signed [ACTIVATION_BITS-1:0] activations[N_ACTIVATIONS],
    output logic [WEIGHT_BITS-1:0] weights[LANES*PRODUCTS*LANE_WIDTH],
    output tag_t tag
);
  localparam int N_WEIGHTS = LANES * PRODUCTS * LANE_WIDTH;
  localparam int ACTIVATION_WORD = N_ACTIVATIONS * ACTIVATION_BITS;
  localparam int WEIGHT_WORD = SHIFT_ADD != 0 ? N_WEIGHTS * WEIGHT_BITS : LANES * LANE_WIDTH * 8;
  localparam int ACTIVATION_BEATS = (ACTIVATION_WORD + ACTIVATION_PORT - 1) / ACTIVATION_PORT;
  localparam int WEIGHT_BEATS = (WEIGHT_WORD + WEIGHT_PORT - 1) / WEIGHT_PORT;

  logic [ACTIVATION_BEATS*ACTIVATION_PORT-1:0] activation_lines, activation_word;
  logic [WEIGHT_BEATS*WEIGHT_PORT+WEIGHT_BITS-1:0] weight_lines, weight_word;
  logic signed [ACTIVATION_BITS-1:0] next_activations[N_ACTIVATIONS];
  logic [WEIGHT_BITS-1:0] next_weights[N_WEIGHTS];
  logic load;
  logic [WEIGHT_BITS-1:0] raw, field;

  always_comb begin
    activation_word = activation_lines;
    weight_word = weight_lines;
    if (activation_valid) activation_word[int'(activation_beat)*ACTIVATION_PORT+:ACTIVATION_PORT] = activation_data;
    if (weight_valid) weight_word[int'(weight_beat)*WEIGHT_PORT+:WEIGHT_PORT] = weight_data;
  end

  // The word of the first pass stays for the others.
  assign load = word.valid && word.term_pass == 0;

  // Words are packed without gaps in the word shape of the tile.
  always_comb begin
    for (int n = 0; n < N_ACTIVATIONS; n++) next_activations[n] = '0;
    if (load) begin
      if (word.tile.depthwise) begin
        for (int x = 0; x < LANE_WIDTH; x++)
          if (x < int'(word.block_a))
            for (int j = 0; j < POSITIONS; j++)
              if (j < int'(word.block_b))
                next_activations[x*POSITIONS+j] = activation_word[(x*int'(word.block_b)+j)*8+:8];
      end else
        for (int i = 0; i < PIXEL_GROUPS; i++)
          if (i < int'(word.block_a))
            for (int x = 0; x < LANE_WIDTH; x++)
              if (x < int'(word.inputs))
                next_activations[i*LANE_WIDTH+x] = activation_word[(i*int'(word.word_inputs)+x)*8+:8];
    end
  end

  always_comb begin
    for (int n = 0; n < N_WEIGHTS; n++) next_weights[n] = '0;
    raw = '0;
    field = WEIGHT_BITS'(1) << word.tile.weight_bits;
    if (load)
      for (int c = 0; c < LANES * PRODUCTS; c++)
        if (c < (word.tile.depthwise ? 1 : int'(word.block_b)))
          for (int x = 0; x < LANE_WIDTH; x++)
            if (x < (word.tile.depthwise ? int'(word.block_a) : int'(word.inputs))) begin
              raw = weight_word[
                (word.tile.depthwise ? x : c*int'(word.word_inputs)+x)*int'(word.tile.weight_bits)+:WEIGHT_BITS];
              raw = raw & (field - 1);
              if (SHIFT_ADD == 0 && (raw & (field >> 1)) != 0) raw = raw | ~(field - 1);
              next_weights[c*LANE_WIDTH+x] = raw;
            end
  end

  always_ff @(posedge clk) begin
    tag <= word;
    if (rst) tag.valid <= 1'b0;
    activation_lines <= activation_word;
    weight_lines <= weight_word;
    // Blocking, because non-blocking loops over arrays are not supported; only combinational blocks read these.
    // verilator lint_off BLKSEQ
    if (load) begin
      for (int n = 0; n < N_ACTIVATIONS; n++) activations[n] = next_activations[n];
      for (int n = 0; n < N_WEIGHTS; n++) weights[n] = next_weights[n];
    end
    // verilator lint_on BLKSEQ
  end
endmodule
