// Runs whole Programs: the sequencer with one timed unit per unit of the Program; the last one is the memory bus.
//
// The clock is the tick.  `ticks_per_cycle` ticks are one core cycle, edges aligned: the bus runs on the fast clock, all
// other units on every ticks_per_cycle-th edge.  Ports: see sequencer.sv and timed_unit.sv.  `active` marks units that
// the Program has; `tick_in_cycle` is the place of this tick in its core cycle.
module program_top
  import sequencer_pkg::*;
#(
    parameter int N_UNITS = 4,
    parameter int N_ROWS = 256,
    parameter int N_WAITS = 8,
    parameter int N_SEMAPHORES = 256,
    parameter int SLOTS = 16
) (
    input logic clk,
    input logic run,
    input logic [7:0] ticks_per_cycle,
    input logic load_valid,
    input logic [$clog2(N_UNITS)-1:0] load_unit,
    input logic [$clog2(N_ROWS)-1:0] load_address,
    input logic [N_WAITS*$bits(signal_t)+$bits(row_t)-1:0] load_data,
    input logic [N_UNITS-1:0][$clog2(N_ROWS):0] n_rows,
    output logic [N_UNITS-1:0] start,
    output logic [N_UNITS-1:0] ends,
    output logic [N_UNITS-1:0][SLOTS-1:0] finishing,
    output logic [N_UNITS-1:0][$clog2(N_ROWS):0] row_number,
    output logic [N_UNITS-1:0][SLOTS-1:0][$clog2(N_ROWS):0] slot_number,
    output logic overflow
);
  localparam int BUS = N_UNITS - 1;
  localparam int N_EVENTS = N_UNITS * SLOTS * N_SIGNALS;

  logic [7:0] tick_in_cycle;
  logic last_tick, window_overflow;
  logic [N_UNITS-1:0] step, ready, slot_overflow;
  logic [N_UNITS-1:0][SLOTS-1:0] releasing;
  row_t [N_UNITS-1:0] row;
  row_t [N_UNITS-1:0][SLOTS-1:0] slot_row;
  logic [N_UNITS-1:0][SLOTS-1:0][N_SIGNALS-1:0] event_valid;
  signal_t [N_UNITS-1:0][SLOTS-1:0][N_SIGNALS-1:0] events;

  assign last_tick = tick_in_cycle == ticks_per_cycle - 1;
  assign overflow = window_overflow || (|slot_overflow);

  always_ff @(posedge clk)
    if (!run || last_tick) tick_in_cycle <= '0;
    else tick_in_cycle <= tick_in_cycle + 1;

  always_comb for (int u = 0; u < N_UNITS; u++) step[u] = u == BUS || last_tick;

  always_comb
    for (int u = 0; u < N_UNITS; u++) begin
      for (int s = 0; s < SLOTS; s++) begin
        events[u][s] = {slot_row[u][s].finishes, slot_row[u][s].releases};
        for (int k = 0; k < N_SIGNALS; k++)
          event_valid[u][s][k] = (k < N_RELEASES ? releasing[u][s] : finishing[u][s]) && events[u][s][k].counter != 0;
      end
    end

  sequencer #(
      .N_UNITS(N_UNITS),
      .N_ROWS(N_ROWS),
      .N_WAITS(N_WAITS),
      .N_SEMAPHORES(N_SEMAPHORES),
      .N_EVENTS(N_EVENTS)
  ) rows (
      .clk,
      .run,
      .load_valid,
      .load_unit,
      .load_address,
      .load_data,
      .n_rows,
      .step,
      .unit_ready(ready),
      .event_valid,
      .events,
      .start,
      .row,
      .row_number,
      .overflow(window_overflow)
  );

  for (genvar u = 0; u < N_UNITS; u++) begin : g_unit
    timed_unit #(
        .SLOTS(SLOTS),
        .NUMBER_BITS($clog2(N_ROWS) + 1)
    ) timer (
        .clk,
        .rst(!run),
        .step(step[u]),
        .commit(last_tick),
        .start(start[u]),
        .row(row[u]),
        .number(row_number[u]),
        .ready(ready[u]),
        .ends(ends[u]),
        .finishing(finishing[u]),
        .releasing(releasing[u]),
        .slot_row(slot_row[u]),
        .slot_number(slot_number[u]),
        .overflow(slot_overflow[u])
    );
  end
endmodule
