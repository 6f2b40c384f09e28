// Timed unit: takes the times of its rows from the instruction; the fixed-bandwidth memory is one, too.
//
// step       one unit of the row's time passes at the end of this tick (core unit: core cycle; bus: every tick)
// commit     this tick is the last of a core cycle: what ended until now may be shown to others.  Ends of bus rows
//            inside a core cycle are held back until then: bus times are rounded up when they are handed over.
// start      with `row`: the row begins in this cycle
// ready      the unit can take `row`, the next one, in this cycle: its predecessor's occupancy is over, and its results
//            will have left the output stage when the first of this row comes
// ends       last tick of the running row's occupancy
// finishing, releasing   per slot of rows in flight: events of this tick, with the row's number
// overflow   sticky: more rows in flight than slots
module timed_unit
  import sequencer_pkg::*;
#(
    parameter int SLOTS = 16,
    parameter int NUMBER_BITS = 9
) (
    input logic clk,
    input logic rst,
    input logic step,
    input logic commit,
    input logic start,
    input row_t row,
    input logic [NUMBER_BITS-1:0] number,
    output logic ready,
    output logic ends,
    output logic [SLOTS-1:0] finishing,
    output logic [SLOTS-1:0] releasing,
    output row_t [SLOTS-1:0] slot_row,
    output logic [SLOTS-1:0][NUMBER_BITS-1:0] slot_number,
    output logic overflow
);
  // A slot holds a row until it has finished and released; its times count down to 1.
  logic [SLOTS-1:0] unfinished, unreleased, now_unfinished, now_unreleased, chosen;
  row_t [SLOTS-1:0] held;
  logic [SLOTS-1:0][NUMBER_BITS-1:0] held_number;
  logic [TIME_BITS-1:0] busy, draining;  // until the last row's occupancy ends; until its results are out

`ifdef PLANT_NO_LEAD
  assign ready = busy == 0;
`else
  assign ready = busy == 0 && (row.lead == 0 || draining <= row.lead);
`endif
  assign ends = step && (start ? row.occupancy == 1 : busy == 1);

  // The lowest free slot takes the row.
  always_comb begin
    chosen = '0;
    for (int s = SLOTS - 1; s >= 0; s--) if (!unfinished[s] && !unreleased[s]) chosen = SLOTS'(1) << s;
    if (!start) chosen = '0;
  end

  always_comb
    for (int s = 0; s < SLOTS; s++) begin
      slot_row[s] = chosen[s] ? row : held[s];
      slot_number[s] = chosen[s] ? number : held_number[s];
      now_unfinished[s] = chosen[s] || unfinished[s];
      now_unreleased[s] = chosen[s] || unreleased[s];
      finishing[s] = step && commit && now_unfinished[s] && slot_row[s].latency <= 1;
`ifdef PLANT_LATE_RELEASE
      releasing[s] = step && commit && unreleased[s] && held[s].occupancy <= 1;
`else
      releasing[s] = step && commit && now_unreleased[s] && slot_row[s].occupancy <= 1;
`endif
    end

  function automatic logic [TIME_BITS-1:0] down(logic [TIME_BITS-1:0] left);
    down = left > 1 ? left - 1 : left;
  endfunction

  always_ff @(posedge clk) begin
    if (rst) begin
      busy <= '0;
      draining <= '0;
      unfinished <= '0;
      unreleased <= '0;
      overflow <= 1'b0;
    end else if (step) begin
      if (start) begin
        busy <= row.occupancy - 1;
        draining <= row.latency - 1;
      end else begin
        busy <= busy == 0 ? 0 : busy - 1;
        draining <= draining == 0 ? 0 : draining - 1;
      end
      if (start && chosen == '0) overflow <= 1'b1;
      unfinished <= now_unfinished & ~finishing;
      unreleased <= now_unreleased & ~releasing;
      for (int s = 0; s < SLOTS; s++)
        if (now_unfinished[s] || now_unreleased[s]) begin
          held[s] <= slot_row[s];
          held[s].latency <= down(slot_row[s].latency);
          held[s].occupancy <= down(slot_row[s].occupancy);
          held_number[s] <= slot_number[s];
        end
    end
  end
endmodule
