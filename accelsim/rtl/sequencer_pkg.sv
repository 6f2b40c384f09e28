// Types shared by the sequencer, the timed units and the engine port.
//
// A semaphore counts the rows of one unit that have written (or released) one region.  A signal names a semaphore and
// the row's index among them; a wait is met when the first `index` rows have all signalled.  Semaphore 0 is never used.
package sequencer_pkg;
  localparam int SEMAPHORE_BITS = 12;
  localparam int INDEX_BITS = 16;
  localparam int TIME_BITS = 32;
  localparam int N_RELEASES = 3;  // regions read by a row
  localparam int N_FINISHES = 2;  // the region written, and a flag for rows that depend on this one
  localparam int N_SIGNALS = N_FINISHES + N_RELEASES;

  typedef struct packed {
    logic [SEMAPHORE_BITS-1:0] counter;
    logic [INDEX_BITS-1:0] index;
  } signal_t;

  // What a unit executes.  Times are core cycles, on the bus ticks; a real engine ignores them.
  typedef struct packed {
    logic [TIME_BITS-1:0] occupancy;
    logic [TIME_BITS-1:0] latency;
    logic [TIME_BITS-1:0] lead;  // to the first result at the output stage; 0: no such rule
    signal_t [N_FINISHES-1:0] finishes;
    signal_t [N_RELEASES-1:0] releases;
  } row_t;
endpackage
