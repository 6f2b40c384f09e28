// Semaphores: per semaphore, which rows of a (region, unit) pair have signalled, exact also out of order.
//
// signals     valid bit and (counter, index) of every event; registered at the clock edge that ends this tick, so an
//             event of tick t is visible in tick t + 1
// waits       what the head row of every unit waits for; index 0 is always met
// met         combinational: the first `index` rows have all signalled
// overflow    sticky: an event ran further ahead of the oldest open one than WINDOW
module semaphores
  import sequencer_pkg::*;
#(
    parameter int N_SEMAPHORES = 256,
    parameter int N_EVENTS = 1,
    parameter int N_WAITS = 1,
    parameter int WINDOW = 32
) (
    input logic clk,
    input logic rst,
    input logic [N_EVENTS-1:0] event_valid,
    input signal_t [N_EVENTS-1:0] events,
    input signal_t [N_WAITS-1:0] waits,
    output logic [N_WAITS-1:0] met,
    output logic overflow
);
  localparam int PLACE_BITS = $clog2(WINDOW);
  localparam int ID_BITS = $clog2(N_SEMAPHORES);

  logic [INDEX_BITS-1:0] base[N_SEMAPHORES];  // every row below has signalled
  logic [WINDOW-1:0] seen[N_SEMAPHORES];  // rows base … base + WINDOW − 1, by index modulo WINDOW

  // Rows from … until_ − 1 are all among the seen ones.
  function automatic logic reached(logic [INDEX_BITS-1:0] from, logic [WINDOW-1:0] bits, logic [INDEX_BITS-1:0] until_);
    logic [INDEX_BITS-1:0] ahead;
    logic [WINDOW-1:0] turned;
    ahead = until_ - from;
    turned = WINDOW'({bits, bits} >> PLACE_BITS'(from));
    reached = ahead <= INDEX_BITS'(WINDOW) && (~turned & ~({WINDOW{1'b1}} << ahead)) == 0;
  endfunction

  always_comb
    for (int w = 0; w < N_WAITS; w++) begin
      met[w] = 1'b1;
      if (waits[w].index > base[ID_BITS'(waits[w].counter)])
        met[w] = reached(base[ID_BITS'(waits[w].counter)], seen[ID_BITS'(waits[w].counter)], waits[w].index);
    end

  // Blocking, because non-blocking loops over arrays are not supported; only combinational blocks read these.
  // verilator lint_off BLKSEQ
  always_ff @(posedge clk) begin
    for (int s = 0; s < N_SEMAPHORES; s++)
      if (rst) begin
        base[s] = '0;
        seen[s] = '0;
      end else if (seen[s][PLACE_BITS'(base[s])]) begin
        seen[s][PLACE_BITS'(base[s])] = 1'b0;
        base[s] = base[s] + 1;
      end
    if (rst) overflow <= 1'b0;
    else if (event_valid != 0)
      for (int e = 0; e < N_EVENTS; e++)
        if (event_valid[e]) begin
          seen[ID_BITS'(events[e].counter)][PLACE_BITS'(events[e].index)] = 1'b1;
          if (events[e].index - base[ID_BITS'(events[e].counter)] >= INDEX_BITS'(WINDOW)) overflow <= 1'b1;
        end
  end
  // verilator lint_on BLKSEQ
endmodule
