// What a domain may select under a budget, for any method.
#include <ATen/ATen.h>

#include "tests/parallel/method_reference_parts.h"

namespace sprocket::parallel::testing {
namespace {

class Budget {
 public:
  Budget(const AttentionCase& c, const TokenLayout& layout, const RowChoice& choose,
         const RowShares& shares)
      : c_(c), layout_(layout) {
    const int64_t n = layout.blocks(), prefix = layout.prefix_blocks();
    const int domains = c.layout.domains;
    allowed_ = at::zeros({domains, c.batch, c.heads, n}, at::kBool);
    mass_ = at::zeros({domains, c.batch, c.heads, n}, at::kDouble);
    for (int g = 0; g < domains; ++g) {
      const int64_t first = layout.domain_blocks[g], last = layout.domain_blocks[g + 1];
      allowed_[g].narrow(2, first, last - first).fill_(true);
      for (int64_t b = 0; b < c.batch; ++b) {
        for (int64_t h = 0; h < c.heads; ++h) {
          double* row = mass_[g][b][h].data_ptr<double>();
          for (int64_t i = first; i < last; ++i) {
            const auto p = shares(b, h, i);
            for (const int64_t j : choose(b, h, i, range(prefix, n))) {
              if (j >= prefix) row[j] += p[j];
            }
          }
        }
      }
    }
    if (c.spec.budget.form == kernels::BudgetForm::kFlat) {
      for (int g = 0; g < domains; ++g) {
        const at::Tensor remote = allowed_[g][0][0].logical_not();
        remote.narrow(0, 0, prefix).fill_(false);
        import(g, g + 1, remote, c.spec.budget.max_coverage.front());
      }
    } else {
      halve(0, domains, 0);
    }
  }

  void report(MethodChoice& choice) const {
    choice.allowed = allowed_;
    choice.kept_whole = mass_.sum(-1).sum(1);  // [domains, H]
    choice.kept_part = mass_.masked_fill(allowed_.logical_not(), 0).sum(-1).sum(1);
  }

 private:
  // The halves of domains [first, last) import from each other.
  void halve(int first, int last, size_t level) {
    if (last - first < 2) return;
    const int middle = (first + last) / 2;
    const auto& shares = c_.spec.budget.max_coverage;
    const Decimal share = shares.size() == 1 ? shares[0] : shares.at(level);
    import(first, middle, blocks_of(middle, last), share);
    import(middle, last, blocks_of(first, middle), share);
    halve(first, middle, level + 1);
    halve(middle, last, level + 1);
  }

  at::Tensor blocks_of(int first, int last) const {
    const at::Tensor blocks = at::zeros({layout_.blocks()}, at::kBool);
    const int64_t from = layout_.domain_blocks[first];
    blocks.narrow(0, from, layout_.domain_blocks[last] - from).fill_(true);
    return blocks;
  }

  // Domains [first, last) together take a share of the remote blocks of all heads of a group.
  void import(int first, int last, const at::Tensor& remote, const Decimal& share) {
    const int64_t n = layout_.blocks();
    const int64_t group = c_.spec.budget.head_group == 0 ? c_.heads : c_.spec.budget.head_group;
    const at::Tensor mass = mass_.narrow(0, first, last - first).sum(0);  // [B, H, n]
    for (int64_t b = 0; b < c_.batch; ++b) {
      for (int64_t h0 = 0; h0 < c_.heads; h0 += group) {
        std::vector<double> values;
        std::vector<int64_t> pairs;
        for (int64_t h = 0; h < group; ++h) {
          for (int64_t j = 0; j < n; ++j) {
            if (remote[j].item<bool>()) pairs.push_back(h * n + j);
            values.push_back(mass[b][h0 + h][j].item<double>());
          }
        }
        const int64_t count = share.floor_times(static_cast<int64_t>(pairs.size()));
        for (const int64_t pair : best(values, pairs, count)) {
          for (int g = first; g < last; ++g) allowed_[g][b][h0 + pair / n][pair % n] = true;
        }
      }
    }
  }

  const AttentionCase& c_;
  const TokenLayout& layout_;
  at::Tensor allowed_, mass_;  // [domains, B, H, n]
};

}  // namespace

void choose_rows(const AttentionCase& c, const TokenLayout& layout, const RowChoice& choose,
                 const RowShares& shares, MethodChoice& choice, const TakeRow& take) {
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks();
  if (c.spec.budget.limits() && c.layout.domains > 1) {
    Budget(c, layout, choose, shares).report(choice);
  }
  for (int g = 0; g < c.layout.domains; ++g) {
    for (int64_t i = layout.domain_blocks[g]; i < layout.domain_blocks[g + 1]; ++i) {
      for (int64_t b = 0; b < c.batch; ++b) {
        for (int64_t h = 0; h < c.heads; ++h) {
          std::vector<int64_t> video;
          for (int64_t j = prefix; j < n; ++j) {
            if (!choice.allowed.defined() || choice.allowed[g][b][h].data_ptr<bool>()[j]) {
              video.push_back(j);
            }
          }
          take(b, h, i, video);
        }
      }
    }
  }
}

}  // namespace sprocket::parallel::testing
