// Engine port: lets the sequencer drive an array engine as a unit.  Results of tiles come in order.
//
// start, row          a tile begins in this cycle
// ends, result_last   from the engine: last cycle of the running tile's occupancy; last results of the oldest tile
// event_valid, events releases when the tile's occupancy ends, finishes when its last results are written
module engine_port
  import sequencer_pkg::*;
#(
    parameter int DEPTH = 8
) (
    input logic clk,
    input logic rst,
    input logic start,
    input row_t row,
    input logic ends,
    input logic result_last,
    output logic [N_SIGNALS-1:0] event_valid,
    output signal_t [N_SIGNALS-1:0] events
);
  // verilator lint_off UNUSEDSIGNAL
  row_t running, newest;  // rows travel whole; an engine has its own times
  // verilator lint_on UNUSEDSIGNAL
  signal_t [N_FINISHES-1:0] waiting[DEPTH];  // of tiles whose results are under way
  logic [$clog2(DEPTH)-1:0] oldest, next;

  assign running = start ? row : newest;

  always_comb begin
    events = {waiting[oldest], running.releases};
    for (int k = 0; k < N_SIGNALS; k++)
      event_valid[k] = (k < N_RELEASES ? ends : result_last) && events[k].counter != 0;
  end

  always_ff @(posedge clk) begin
    if (rst) {oldest, next} <= '0;
    else begin
      if (start) begin
        newest <= row;
        waiting[next] <= row.finishes;
        next <= next + 1;
      end
      if (result_last) oldest <= oldest + 1;
    end
  end
endmodule
