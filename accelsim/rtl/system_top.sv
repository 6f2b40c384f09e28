// One engine, its two operand memories, the bus and the sequencer in one machine.
//
// Unit 0 is the array engine, unit 1 the bus (a timed unit; one tick per cycle).  The engine's rows take their tiles from
// `tiles` by row number.  The harness is the DRAM: it sees a load start and writes its lines through *_write_* so that
// the last one is written at the edge that begins the finish cycle.  Other ports: see sequencer.sv and array_engine.sv.
module system_top
  import sequencer_pkg::*, engine_pkg::*;
#(
    parameter int LANES = 3,
    parameter int LANE_WIDTH = 5,
    parameter int PIXEL_GROUPS = 2,
    parameter int ACTIVATION_PORT = 32,
    parameter int WEIGHT_PORT = 24,
    parameter int OUTPUTS_PER_CYCLE = 3,
    parameter int OUTPUT_LATENCY = 4,
    parameter int N_ROWS = 256,
    parameter int N_WAITS = 8,
    parameter int N_SEMAPHORES = 64,
    parameter int SLOTS = 16,
    parameter int LINES = 8192,
    parameter int CHANNELS = 512,
    parameter int LINE_CHANNELS = 2 * LANES > LANE_WIDTH ? 2 * LANES : LANE_WIDTH
) (
    input logic clk,
    input logic run,
    input logic load_valid,
    input logic load_unit,
    input logic [$clog2(N_ROWS)-1:0] load_address,
    input logic [N_WAITS*$bits(signal_t)+$bits(row_t)-1:0] load_data,
    input tile_t load_tile,
    input logic [1:0][$clog2(N_ROWS):0] n_rows,
    input logic activation_write_valid,
    input logic [$clog2(LINES)-1:0] activation_write_address,
    input logic [ACTIVATION_PORT-1:0] activation_write_data,
    input logic weight_write_valid,
    input logic [$clog2(LINES)-1:0] weight_write_address,
    input logic [WEIGHT_PORT-1:0] weight_write_data,
    input logic channel_write_valid,
    input logic [$clog2(CHANNELS*LINE_CHANNELS)-1:0] channel_write_address,
    input channel_t channel_write_data,
    output logic [1:0] start,
    output logic [1:0] ends,
    output logic [1:0][$clog2(N_ROWS):0] row_number,
    output logic [SLOTS-1:0] finishing,
    output logic [SLOTS-1:0][$clog2(N_ROWS):0] slot_number,
    output logic result_valid,
    output logic result_last,
    output logic [OUTPUTS_PER_CYCLE-1:0] result_inside,
    output logic [OUTPUTS_PER_CYCLE-1:0][RESULT_BITS-1:0] results,
    output logic fault
);
  tile_t tiles[N_ROWS];
  logic [1:0] ready;
  row_t [1:0] row;
  row_t [SLOTS-1:0] slot_row;
  logic [SLOTS-1:0] releasing;
  logic [SLOTS:0][N_SIGNALS-1:0] event_valid;
  signal_t [SLOTS:0][N_SIGNALS-1:0] events;
  logic hazard, window_overflow, slot_overflow;

  assign fault = hazard || window_overflow || slot_overflow;

  always_ff @(posedge clk) if (load_valid && !load_unit) tiles[load_address] <= load_tile;

  sequencer #(
      .N_UNITS(2), .N_ROWS(N_ROWS), .N_WAITS(N_WAITS), .N_SEMAPHORES(N_SEMAPHORES), .N_EVENTS((SLOTS + 1) * N_SIGNALS)
  ) rows (
      .clk, .run, .load_valid, .load_unit, .load_address, .load_data, .n_rows, .step(2'b11), .unit_ready(ready),
      .event_valid, .events, .start, .row, .row_number, .overflow(window_overflow)
  );

  array_engine #(
      .LANES(LANES), .LANE_WIDTH(LANE_WIDTH), .PIXEL_GROUPS(PIXEL_GROUPS), .ACTIVATION_PORT(ACTIVATION_PORT),
      .WEIGHT_PORT(WEIGHT_PORT), .OUTPUTS_PER_CYCLE(OUTPUTS_PER_CYCLE), .OUTPUT_LATENCY(OUTPUT_LATENCY), .LINES(LINES),
      .CHANNEL_LINES(CHANNELS)
  ) engine (
      .clk, .rst(!run), .start(start[0]), .tile(tiles[row_number[0][$clog2(N_ROWS)-1:0]]), .ready(ready[0]),
      .ends(ends[0]), .result_valid, .result_last, .result_inside, .results, .hazard, .activation_write_valid,
      .activation_write_address, .activation_write_data, .weight_write_valid, .weight_write_address,
      .weight_write_data, .channel_write_valid, .channel_write_address, .channel_write_data
  );

  engine_port port (
      .clk, .rst(!run), .start(start[0]), .row(row[0]), .ends(ends[0]), .result_last, .event_valid(event_valid[SLOTS]),
      .events(events[SLOTS])
  );

  timed_unit #(.SLOTS(SLOTS), .NUMBER_BITS($clog2(N_ROWS) + 1)) bus (
      .clk, .rst(!run), .step(1'b1), .commit(1'b1), .start(start[1]), .row(row[1]), .number(row_number[1]),
      .ready(ready[1]), .ends(ends[1]), .finishing, .releasing, .slot_row, .slot_number, .overflow(slot_overflow)
  );

  always_comb
    for (int s = 0; s < SLOTS; s++) begin
      events[s] = {slot_row[s].finishes, slot_row[s].releases};
      for (int k = 0; k < N_SIGNALS; k++)
        event_valid[s][k] = (k < N_RELEASES ? releasing[s] : finishing[s]) && events[s][k].counter != 0;
    end
endmodule
