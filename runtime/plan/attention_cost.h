// Time of one attention layer on a cluster, forward and backward, with what hides behind what.
//
// The stages are those of parallel/sequence_attention.cc and of the strategies, in their order:
//
//   forward   Ulysses of q, k, v (and gates) | means and samples, their gather, the selection |
//             fine stage | branches, conversion | Ulysses of the output
//   backward  Ulysses of the output's gradient | branches, row sums | fine stage |
//             summaries' gradients | conversion, Ulysses of the gradients
//
// A bar is a point where ranks wait for each other: a part's time is that of its slowest rank. In
// the fine stage a transfer t beside kernels that take c costs
//
//   c + t - overlap * min(c, t)
//
//   ring        R steps; the next shard travels during each but the last. In the backward the sums
//   of
//               a step travel during the next one, those of the last step by themselves
//   all_gather, selected
//               K and V travel during the local pass, their gradients during the local pass of the
//               backward and, in groups of heads, during the remote passes but the first one's; K
//               and V that are fetched again hide behind nothing
//
//   Ulysses alone
//               in groups of heads: the first group arrives and the last one leaves by themselves,
//               the others during the fine stage of the group before or after
//
// Without overlap, or in a single pass, every transfer is waited for.
#pragma once

#include <vector>

#include "runtime/plan/cluster_model.h"

namespace sprocket::runtime {

enum class OuterKind { kLocal, kRing, kAllGather, kSelected };

// What one sequence rank computes and copies in a layer and micro-batch.
struct RankWork {
  double own_elements = 0;          // of one of Q, K, V, O: the tokens of the rank, all heads
  double shard_elements = 0;        // the tokens of its outer shard, the heads of the rank
  double key_elements = 0;          // the same of K with its pyramid, if the method has one
  double query_rows = 0;            // (query row, head) of a pass
  std::vector<double> pairs;        // [outer] (query row, key row, head) by owner of the keys
  double sent_elements = 0;         // of K and V that all_gather and selected pack for others
  double received_elements = 0;     // of K and V of others
  double returned_elements = 0;     // of gradients that come back, from all peers
  double summary_elements = 0;      // read to make means and samples
  double selection_operations = 0;  // scores and, for VSA, the coarse branch
  double selection_gradient_operations = 0;
};

// Transfers of one kind, by sequence rank; empty: there is none.
using Transfers = std::vector<TransferTime>;

struct AttentionTransfers {
  Transfers ulysses_in, summaries, fetch, ulysses_out;  // forward; fetch: one step of it
  // Backward; fetch_again is empty where K and V were kept.
  Transfers ulysses_gradient_out, fetch_again, give_back, summary_gradients, ulysses_gradient_in;
};

struct AttentionWork {
  OuterKind outer = OuterKind::kLocal;
  bool overlap = true;
  bool single_pass = false;  // all_gather and selected
  int outer_degree = 1, ulysses_degree = 1;
  int head_dim = 64;
  double element = 4, accumulator = 4;  // bytes
  int gates = 0;                        // tensors that travel with q, k and v
  int head_groups = 1;                  // Ulysses alone: transfers are those of one of so many
  int fetch_groups = 1;                 // kSelected: exchanges that share the bytes
  bool branches = false;                // the output is made of several branches
  std::vector<RankWork> ranks;          // by sequence rank
  AttentionTransfers transfers;
};

// Of the slowest rank, part by part.
struct PhaseCost {
  double kernels = 0;   // attention and selection
  double copies = 0;    // packing, conversion, zeroing, sums
  double transfer = 0;  // all of it
  double exposed = 0;   // what no kernel hid
  double seconds() const { return kernels + copies + exposed; }
};

struct AttentionCost {
  PhaseCost forward, backward;
};

AttentionCost attention_cost(const DeviceModel& device, const AttentionWork& work);

}  // namespace sprocket::runtime
