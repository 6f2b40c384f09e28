// Tile walker: cuts a tile into blocks and operand words and reads them, one line per port and cycle.
//
// start, tile   a tile begins in this very cycle (only while `ready`): its first lines are read in it
// ready         no tile is being fetched, and the offered tile's first block will find the output stage free
// ends          last cycle of the tile's occupancy
// *_read, *_line, *_beat   line read in this cycle, and its place in the operand word
// word          an operand word is complete with the lines of this cycle; valid for one cycle
//
// A block ends when its words are fetched and the output stage has been reserved for its slots, OUTPUTS_PER_CYCLE per
// cycle.  Across tiles `stage_slots` counts what the last block still has to drain, seen from the walker.
module tile_walker
  import engine_pkg::*;
#(
    parameter int LANES = 2,
    parameter int LANE_WIDTH = 4,
    parameter int PIXEL_GROUPS = 2,
    parameter int ACTIVATION_PORT = 64,
    parameter int WEIGHT_PORT = 64,
    parameter int OUTPUTS_PER_CYCLE = 4
) (
    input logic clk,
    input logic rst,
    input logic start,
    input tile_t tile,
    output logic ready,
    output logic ends,
    output logic activation_read,
    output shape_t activation_line,
    output shape_t activation_beat,
    output logic weight_read,
    output shape_t weight_line,
    output shape_t weight_beat,
    output tag_t word
);
  typedef struct packed {
    logic running;
    logic fetched;  // all words of the block
    logic bank;
    shape_t group_left;  // groups, rows, cols from the block's first on
    shape_t row_left;
    shape_t col_left;
    shape_t tap_left;
    shape_t depth_left;
    logic [1:0] term_pass;
    logic first;
    size_t activation_have;  // bits of the word fetched so far
    size_t weight_have;
    shape_t activation_beat;
    shape_t weight_beat;
    size_t reserved;
    shape_t activation_line;
    shape_t activation_again;  // where the words of this group begin
    shape_t weight_line;
    shape_t weight_again;  // where the words of this channel block begin
    shape_t channel_line;
  } state_t;

  localparam size_t A_PORT = size_t'(ACTIVATION_PORT);
  localparam size_t W_PORT = size_t'(WEIGHT_PORT);
  localparam size_t OUTPUTS = size_t'(OUTPUTS_PER_CYCLE);

  state_t state, now, next;
  tile_t held, work;
  shape_t positions, channels, block_a, block_b, inputs, row_step, col_step, group_step;
  size_t activation_word, weight_word, slots, stage_slots;
  logic fetching, complete, block_ends, more_rows, more_cols;

  // verilator lint_off UNUSEDSIGNAL
  function automatic state_t first_state(tile_t t, logic bank);
    // verilator lint_on UNUSEDSIGNAL
    first_state = '0;
    first_state.running = 1'b1;
    first_state.bank = bank;
    first_state.group_left = t.groups;
    first_state.row_left = t.rows;
    first_state.col_left = t.cols;
    first_state.tap_left = t.taps;
    first_state.depth_left = t.depth;
    first_state.first = 1'b1;
    first_state.activation_line = t.activation_base;
    first_state.activation_again = t.activation_base;
    first_state.weight_line = t.weight_base;
    first_state.weight_again = t.weight_base;
    first_state.channel_line = t.channel_base;
  endfunction

  assign ready = !state.running && stage_slots <= size_t'(tile.lead) * OUTPUTS;
  assign work = start ? tile : held;
  assign now = start ? first_state(tile, state.bank) : state;

  // Shapes of the tile's blocks and words.
  always_comb begin
    channels = shape_t'(work.split ? 2 * LANES : LANES);
    positions = shape_t'((work.split ? 2 : 1) * LANES * PIXEL_GROUPS);
    if (work.depthwise) begin
      block_a = smaller(shape_t'(LANE_WIDTH), work.groups);
      block_b = smaller(positions, work.rows);
      inputs = 1;
      row_step = positions;
      col_step = work.cols;
      group_step = shape_t'(LANE_WIDTH);
    end else begin
      block_a = smaller(shape_t'(PIXEL_GROUPS), work.rows);
      block_b = smaller(channels, work.cols);
      inputs = smaller(shape_t'(LANE_WIDTH), work.depth);
      row_step = shape_t'(PIXEL_GROUPS);
      col_step = channels;
      group_step = 1;
    end
    slots = size_t'(block_a) * size_t'(block_b);
    activation_word = (work.depthwise ? slots : size_t'(block_a) * size_t'(inputs)) * size_t'(ACTIVATION_BITS);
    weight_word = (work.depthwise ? size_t'(block_a) : size_t'(block_b)) * size_t'(inputs) * size_t'(work.weight_bits);
  end

  // Lines of this cycle.  A word is read in the first pass over its terms and held for the others.
  always_comb begin
    fetching = now.running && !now.fetched;
    activation_read = fetching && now.term_pass == 0 && now.activation_have < activation_word;
    weight_read = fetching && now.term_pass == 0 && now.weight_have < weight_word;
    activation_line = now.activation_line;
    weight_line = now.weight_line;
    activation_beat = now.activation_beat;
    weight_beat = now.weight_beat;
    complete = fetching && now.activation_have + A_PORT >= activation_word && now.weight_have + W_PORT >= weight_word;
  end

  always_comb begin
    next = now;
    more_rows = now.row_left > row_step;
    more_cols = now.col_left > col_step;
    if (fetching) begin
      next.activation_have = now.activation_have + A_PORT;
      next.weight_have = now.weight_have + W_PORT;
      next.activation_line = now.activation_line + shape_t'(activation_read);
      next.weight_line = now.weight_line + shape_t'(weight_read);
      next.activation_beat = now.activation_beat + 1;
      next.weight_beat = now.weight_beat + 1;
    end
    // Next word: passes of the terms, then chunks of input channels, then taps.
    if (complete) begin
      {next.activation_have, next.weight_have, next.activation_beat, next.weight_beat} = '0;
      next.first = 1'b0;
      next.term_pass = now.term_pass + 1;
      if (next.term_pass == work.passes) begin
        next.term_pass = '0;
        next.depth_left = now.depth_left - inputs;
        if (now.depth_left <= shape_t'(LANE_WIDTH)) begin
          next.depth_left = work.depth;
          next.tap_left = now.tap_left - 1;
          if (now.tap_left == 1) next.fetched = 1'b1;
        end
      end
    end
    // Next block: positions, then output channels, then groups; words that are needed again are read again.
    next.reserved = now.reserved + OUTPUTS;
`ifdef PLANT_SHORT_DRAIN
    block_ends = now.running && next.fetched && next.reserved + OUTPUTS >= slots;
`else
    block_ends = now.running && next.fetched && next.reserved >= slots;
`endif
    ends = 1'b0;
    if (block_ends) begin
      next.fetched = 1'b0;
      next.reserved = '0;
      next.first = 1'b1;
      next.bank = !now.bank;
      next.tap_left = work.taps;
      if (more_rows) begin
        next.row_left = now.row_left - row_step;
        next.weight_line = now.weight_again;
      end else begin
        next.row_left = work.rows;
        next.channel_line = now.channel_line + 1;
        next.weight_again = next.weight_line;
        if (more_cols) begin
          next.col_left = now.col_left - col_step;
          next.activation_line = now.activation_again;
        end else begin
          next.col_left = work.cols;
          next.activation_again = next.activation_line;
          next.group_left = now.group_left - group_step;
          ends = now.group_left <= group_step;
          next.running = !ends;
        end
      end
    end
  end

  always_comb begin
    word.valid = complete;
    word.bank = now.bank;
    word.first = now.first;
    word.last = next.fetched || block_ends;
    word.last_block = !more_rows && !more_cols && now.group_left <= group_step;
    word.term_pass = now.term_pass;
    word.inputs = smaller(shape_t'(LANE_WIDTH), now.depth_left);
    word.word_inputs = inputs;
    word.block_a = block_a;
    word.block_b = block_b;
    word.limit_a = work.depthwise ? now.group_left : now.row_left;
    word.limit_b = work.depthwise ? now.row_left : now.col_left;
    word.channel_line = now.channel_line;
    word.tile = work;
  end

  always_ff @(posedge clk) begin
    if (start) held <= tile;
    if (rst) begin
      state <= '0;
      stage_slots <= '0;
    end else begin
      if (now.running) state <= next;
      if (complete && word.last) stage_slots <= slots;
      else stage_slots <= stage_slots > OUTPUTS ? stage_slots - OUTPUTS : '0;
    end
  end
endmodule
