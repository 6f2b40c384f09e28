// Operand buffer: one write port (the DMA's) and one private read port of LINE_BITS per cycle.  Regions are ranges of
// lines; who may use them when is the sequencer's business.
//
// write_*   a line is written at the edge that ends the cycle
// read_*    the line addressed in a cycle stands in read_data during the next
module operand_buffer #(
    parameter int LINE_BITS = 64,
    parameter int LINES = 1024
) (
    input logic clk,
    input logic write_valid,
    input logic [$clog2(LINES)-1:0] write_address,
    input logic [LINE_BITS-1:0] write_data,
    input logic read_valid,
    input logic [$clog2(LINES)-1:0] read_address,
    output logic [LINE_BITS-1:0] read_data
);
  logic [LINE_BITS-1:0] lines[LINES];

  always_ff @(posedge clk) begin
    if (write_valid) lines[write_address] <= write_data;
    if (read_valid) read_data <= lines[read_address];
  end
endmodule
