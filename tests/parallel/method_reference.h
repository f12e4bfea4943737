// The attention methods once more, as their definitions say and without regard for speed: loops
// that select, one dense mask, plain tensor operations and LibTorch's own autograd, on the whole
// sequence. Nothing of kernels/ or parallel/ is used but layouts, decimals and the draw of sampled
// tokens, which is a definition.
#pragma once

#include <map>

#include "parallel/comm/communicator.h"
#include "tests/parallel/attention_case.h"

namespace sprocket::parallel::testing {

// Rows of keys and values: means of adjacent tokens, with logit bias ln(tokens).
struct KeyRows {
  std::vector<int64_t> first_token, tokens;
  std::vector<int64_t> column;  // of MethodChoice::selected that decides on the row

  void add(int64_t first, int64_t count, int64_t at_column) {
    first_token.push_back(first);
    tokens.push_back(count);
    column.push_back(at_column);
  }
};

// What a method decided.
struct MethodChoice {
  KeyRows keys;
  at::Tensor selected;  // [B, H, query blocks, columns] bool
  at::Tensor source;    // [B, H, L] token whose output a token copies; undefined: its own
  // With a budget: video blocks that a domain's rows may select [domains, B, H, blocks], and the
  // mass they selected without it, on these blocks and on all [domains, H].
  at::Tensor allowed, kept_part, kept_whole;
};
MethodChoice choose(const AttentionCase& c, const AttentionTensors& inputs);

// The choice that a run on one rank reports.
MethodChoice choice_of(const AttentionCase& c, const Selection& selection);

// The method in `dtype` for a given choice; gradients of everything.
AttentionResult attend(const AttentionCase& c, const AttentionTensors& inputs,
                       const MethodChoice& choice, at::ScalarType dtype);

struct Reference {
  MethodChoice choice;
  AttentionResult result;  // fp64
};
Reference make_reference(const AttentionCase& c, const AttentionTensors& inputs);

// References by AttentionCase::problem(): they do not depend on the mesh.
class References {
 public:
  const Reference& of(const AttentionCase& c, const AttentionTensors& inputs);

 private:
  std::map<std::string, Reference> made_;
};

// Runs the case on `world` and checks this rank's selection, exactly, then its slice of all
// results; throws std::runtime_error when it is off.
void check_case(const AttentionCase& c, const AttentionTensors& inputs, const Reference& reference,
                comm::Communicator& world, double tolerance);

}  // namespace sprocket::parallel::testing
