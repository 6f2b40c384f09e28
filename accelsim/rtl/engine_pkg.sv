// Types of the array engine, and the arithmetic of one slot.
package engine_pkg;
  localparam int SHAPE_BITS = 16;
  localparam int WORD_BITS = 24;  // sizes of operand words in bits, of blocks in slots
  localparam int ACTIVATION_BITS = 8;
  localparam int WEIGHT_BITS = 12;  // widest stored weight: three terms of four bits
  localparam int PRODUCT_BITS = 18;
  localparam int RESULT_BITS = 16;

  typedef logic [SHAPE_BITS-1:0] shape_t;
  typedef logic [WORD_BITS-1:0] size_t;

  // One tile.  Depthwise: the channels are groups, cols = depth = 1.  Bases are lines of the buffers.
  typedef struct packed {
    shape_t groups;
    shape_t rows;
    shape_t cols;
    shape_t taps;
    shape_t depth;
    logic depthwise;
    logic split;  // two products per multiplier, weights of at most 4 bits
    logic [3:0] weight_bits;  // as stored
    logic [1:0] terms;  // shift-add: signed terms of a weight, and bits of an exponent
    logic [1:0] exponent_bits;
    logic [1:0] passes;  // shift-add: passes over the terms
    shape_t lead;  // cycles from the start of the tile until its first block needs the output stage
    shape_t activation_base;
    shape_t weight_base;
    shape_t channel_base;
    logic signed [RESULT_BITS-1:0] low;
    logic signed [RESULT_BITS-1:0] high;
  } tile_t;

  // Travels with an operand word from the walker to the accumulators, and with a finished block to the output stage.
  typedef struct packed {
    logic valid;
    logic bank;
    logic first;  // first word of its block: loads the accumulators
    logic last;  // last word of its block
    logic last_block;
    logic [1:0] term_pass;
    shape_t inputs;  // reduction inputs in this word; the others are masked
    shape_t word_inputs;  // reduction inputs in the word shape of the tile
    shape_t block_a;  // shape of a block: positions × channels, depthwise channels × positions
    shape_t block_b;
    shape_t limit_a;  // slots at or beyond the limits lie outside the tile
    shape_t limit_b;
    shape_t channel_line;  // line of the requantization table
    tile_t tile;
  } tag_t;

  // Parameters of one output channel.
  typedef struct packed {
    logic [5:0] shift;
    logic [30:0] multiplier;
    logic signed [31:0] bias;
  } channel_t;

  typedef struct packed {
    logic signed [PRODUCT_BITS-1:0] high;
    logic signed [PRODUCT_BITS-1:0] low;
  } products_t;

  // Multiplier of 8 × 8 bits made of two of 8 × 4.  Split: each yields a product of its own.  Whole: the low one takes
  // its field as unsigned, and both are added.
  function automatic products_t split_multiply(logic signed [7:0] activation_low, logic signed [7:0] activation_high,
                                               logic [7:0] weight, logic split);
    logic signed [PRODUCT_BITS-1:0] low, high;
    low = PRODUCT_BITS'(activation_low) * PRODUCT_BITS'($signed({split & weight[3], weight[3:0]}));
    high = PRODUCT_BITS'(activation_high) * PRODUCT_BITS'($signed(weight[7:4]));
    split_multiply.low = split ? low : low + (high <<< 4);
    split_multiply.high = split ? high : '0;
  endfunction

  // One signed term: the activation shifted by an exponent, negated by the sign above it.  With one term per weight the
  // highest exponent (sign 0) is the code for zero.
  function automatic logic signed [PRODUCT_BITS-1:0] shift_term(logic signed [7:0] activation, logic [3:0] code,
                                                               logic [1:0] exponent_bits, logic single);
    logic [2:0] exponent, highest;
    logic negative;
    logic signed [PRODUCT_BITS-1:0] moved;
    highest = exponent_bits == 2 ? 3'd3 : 3'd7;
    exponent = code[2:0] & highest;
    negative = exponent_bits == 2 ? code[2] : code[3];
    moved = PRODUCT_BITS'(activation) <<< exponent;
    shift_term = single && exponent == highest ? '0 : negative ? -moved : moved;
  endfunction

  // Output stage of one result: bias, multiply, round (ties towards +∞), shift, clamp.
  function automatic logic signed [RESULT_BITS-1:0] requantize(logic signed [31:0] accumulator, channel_t channel,
                                                               logic signed [RESULT_BITS-1:0] low,
                                                               logic signed [RESULT_BITS-1:0] high);
    logic signed [63:0] scaled;
    logic signed [31:0] biased;
    biased = accumulator + channel.bias;
    scaled = 64'(biased) * 64'($signed({1'b0, channel.multiplier}));
`ifdef PLANT_ROUND_DOWN
    scaled = scaled >>> channel.shift;
`else
    scaled = (scaled + (64'sd1 <<< (channel.shift - 6'd1))) >>> channel.shift;
`endif
    if (scaled < 64'(low)) scaled = 64'(low);
    if (scaled > 64'(high)) scaled = 64'(high);
    requantize = RESULT_BITS'(scaled);
  endfunction

  function automatic shape_t smaller(shape_t a, shape_t b);
    smaller = a < b ? a : b;
  endfunction
endpackage
