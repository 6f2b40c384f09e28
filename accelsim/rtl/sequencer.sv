// Sequencer: every unit issues its own rows in order, each as soon as its unit is free and all its waits are met.
//
// load_*      program memory, one instruction {waits, row} per write; only while `run` is low
// run         low: program counters return to 0 and semaphores are cleared
// step        per unit: this tick ends a cycle of the unit's clock (core units: the last tick of a core cycle)
// unit_ready  the unit can take a row in this cycle
// events      signals of the units; visible to waits from the next tick on
// start, row  combinational, valid in the very cycle in which the last condition is met: the same-cycle hand-off.  A
//             condition is a registered semaphore, so there is no combinational path from one unit's start to another's.
module sequencer
  import sequencer_pkg::*;
#(
    parameter int N_UNITS = 4,
    parameter int N_ROWS = 256,
    parameter int N_WAITS = 8,
    parameter int N_SEMAPHORES = 256,
    parameter int N_EVENTS = 1
) (
    input logic clk,
    input logic run,
    input logic load_valid,
    input logic [$clog2(N_UNITS)-1:0] load_unit,
    input logic [$clog2(N_ROWS)-1:0] load_address,
    input logic [N_WAITS*$bits(signal_t)+$bits(row_t)-1:0] load_data,
    input logic [N_UNITS-1:0][$clog2(N_ROWS):0] n_rows,
    input logic [N_UNITS-1:0] step,
    input logic [N_UNITS-1:0] unit_ready,
    input logic [N_EVENTS-1:0] event_valid,
    input signal_t [N_EVENTS-1:0] events,
    output logic [N_UNITS-1:0] start,
    output row_t [N_UNITS-1:0] row,
    output logic [N_UNITS-1:0][$clog2(N_ROWS):0] row_number,
    output logic overflow
);
  typedef struct packed {
    signal_t [N_WAITS-1:0] waits;
    row_t row;
  } instruction_t;

  instruction_t memory[N_UNITS][N_ROWS];
  instruction_t [N_UNITS-1:0] head;
  signal_t [N_UNITS-1:0][N_WAITS-1:0] waits;
  logic [N_UNITS-1:0][N_WAITS-1:0] met;

  always_comb
    for (int u = 0; u < N_UNITS; u++) begin
      head[u] = memory[u][row_number[u][$clog2(N_ROWS)-1:0]];
      waits[u] = head[u].waits;
      row[u] = head[u].row;
    end

  semaphores #(
      .N_SEMAPHORES(N_SEMAPHORES),
      .N_EVENTS(N_EVENTS),
      .N_WAITS(N_UNITS * N_WAITS)
  ) waiting (
      .clk,
      .rst(!run),
      .event_valid,
      .events,
      .waits,
      .met,
      .overflow
  );

  always_comb
    for (int u = 0; u < N_UNITS; u++)
      start[u] = run && step[u] && unit_ready[u] && row_number[u] < n_rows[u] && (&met[u]);

  always_ff @(posedge clk) begin
    if (load_valid) memory[load_unit][load_address] <= load_data;
    for (int u = 0; u < N_UNITS; u++)
      if (!run) row_number[u] <= '0;
      else if (start[u]) row_number[u] <= row_number[u] + 1;
  end
endmodule
