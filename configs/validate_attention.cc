// The rules of attention and of its methods' options.
#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "base/decimal.h"
#include "base/error.h"
#include "configs/findings.h"
#include "configs/schedule.h"

namespace sprocket::config {
namespace {

// True when the schedule can be evaluated.
bool check_schedule(Findings& findings, const std::string& path, const Schedule& schedule,
                    double high, bool high_included) {
  const size_t before = findings.count();
  const auto value = [&](const std::string& field, double number) {
    const bool legal = number >= 0 && (number < high || (high_included && number == high));
    if (!legal) {
      findings.add({path + "." + field}, fmt::format("{}; legal: 0 <= {} {} {}", number, field,
                                                     high_included ? "<=" : "<", high));
    }
  };
  value("start", schedule.start());
  if (schedule.end() != schedule.start()) value("end", schedule.end());
  for (const auto& [field, number] : {std::pair{"start", schedule.start()},
                                      {"end", schedule.end()},
                                      {"increment", schedule.increment()}}) {
    try {
      Decimal::from_double(number);
    } catch (const ConfigError& error) {
      findings.add({path + "." + field}, error.what());
    }
  }
  findings.at_least(path + ".interval", schedule.interval(), 1);
  findings.at_least(path + ".first_step", schedule.first_step(), 0);
  const double way = schedule.end() - schedule.start(), increment = schedule.increment();
  const std::vector<std::string> paths = {path + ".increment", path + ".start", path + ".end"};
  if (way == 0 && increment != 0) {
    findings.add(paths, fmt::format("{} leads nowhere: start and end are both {}; give another end",
                                    increment, schedule.start()));
  } else if (way != 0 && increment == 0) {
    findings.add({path + ".end", path + ".start", path + ".increment"},
                 fmt::format("{} is never reached from start: {} without an increment",
                             schedule.end(), schedule.start()));
  } else if (way * increment < 0) {
    findings.add(paths,
                 fmt::format("{} leads away from end: {} (start: {}); legal: {} 0", increment,
                             schedule.end(), schedule.start(), way > 0 ? ">" : "<"));
  }
  return findings.count() == before;
}

bool is_share(double value) { return value >= 0 && value <= 1; }

void check_list(Findings& findings, const std::string& path,
                const google::protobuf::RepeatedField<double>& list, int count, double low,
                double high, bool ascending) {
  if (list.size() != count) {
    findings.add({path}, fmt::format("expected {} numbers, found {}", count, list.size()));
    return;
  }
  for (int i = 0; i < count; ++i) {
    const bool in_order = !ascending || i == 0 || list[i - 1] <= list[i];
    if (list[i] >= low && list[i] <= high && in_order) continue;
    findings.add({path}, fmt::format("{} as number {}; legal: {} to {}{}", list[i], i + 1, low,
                                     high, ascending ? ", ascending" : ""));
    return;
  }
}

class AttentionChecker {
 public:
  AttentionChecker(const Job& job, Findings& findings)
      : job_(job), attention_(job.attention()), findings_(findings) {}

  void run() {
    const bool cube = findings_.extent("attention.cube.t", attention_.cube().t()) &
                      findings_.extent("attention.cube.h", attention_.cube().h()) &
                      findings_.extent("attention.cube.w", attention_.cube().w());
    const bool tokens = findings_.extent("attention.block_tokens", attention_.block_tokens());
    findings_.extent("attention.domains", attention_.domains());
    const int64_t capacity =
        attention_.order() == Attention::HILBERT
            ? attention_.block_tokens()
            : int64_t{attention_.cube().t()} * attention_.cube().h() * attention_.cube().w();
    if (cube && tokens) block_tokens_ = capacity;
    check_budget();
    if (attention_.has_vsa()) check_vsa(attention_.vsa());
    if (attention_.has_bsa()) check_bsa(attention_.bsa());
    if (attention_.has_psa()) check_psa(attention_.psa());
    if (attention_.has_asa()) check_asa(attention_.asa());
    if (attention_.has_sliding_tile()) check_sliding_tile(attention_.sliding_tile());
  }

 private:
  void check_vsa(const Vsa& vsa) {
    check_schedule(findings_, "attention.vsa.sparsity", vsa.sparsity(), 1, false);
    if (vsa.score() == Vsa::SUBBLOCK) {
      check_parts("attention.vsa.query_parts", vsa.query_parts());
      check_parts("attention.vsa.key_parts", vsa.key_parts());
    }
  }

  void check_budget() {
    const auto& coverage = attention_.max_coverage();
    const int64_t domains = attention_.domains();
    bool legal = true, limits = false;
    for (int i = 0; i < coverage.size(); ++i) {
      legal &= check_schedule(findings_, fmt::format("attention.max_coverage[{}]", i), coverage[i],
                              1, true);
    }
    for (const Schedule& schedule : coverage) {
      limits |= legal && !is_constant(schedule, Decimal::ratio(1, 0));
    }
    switch (attention_.budget_form()) {
      case Attention::FLAT:
        if (coverage.size() != 1) {
          findings_.add({"attention.max_coverage[0]", "attention.budget_form"},
                        fmt::format("expected one schedule for budget_form: FLAT, found {}",
                                    coverage.size()));
        }
        break;
      case Attention::TREE:
        check_tree(domains, coverage.size());
        break;
    }
    const bool scores =
        attention_.method() != Attention::DENSE && attention_.method() != Attention::SLIDING_TILE;
    if (limits && !scores) {
      findings_.add({"attention.max_coverage[0]", "attention.method"},
                    fmt::format("below 1 needs a method that scores blocks, found method: {}; "
                                "legal: VSA, BSA, PSA, ASA, or max_coverage {{ start: 1 }}",
                                Attention::Method_Name(attention_.method())));
    }
    if (findings_.at_least("attention.budget_head_group", attention_.budget_head_group(), 0)) {
      check_head_group(attention_.budget_head_group(), limits && domains > 1);
    }
  }

  void check_tree(int64_t domains, int schedules) {
    if (domains < 1 || domains > kLargestExtent) return;  // reported elsewhere
    const auto cuts = static_cast<uint64_t>(domains);
    if (!std::has_single_bit(cuts)) {
      findings_.add({"attention.domains", "attention.budget_form"},
                    fmt::format("{} cannot be halved to single domains by budget_form: TREE; "
                                "legal: 1, 2, 4, 8, … (powers of two)",
                                domains));
      return;
    }
    const int levels = std::bit_width(cuts) - 1;
    if (schedules != 1 && schedules != levels) {
      findings_.add({"attention.max_coverage[0]", "attention.domains"},
                    fmt::format("expected one schedule, or one for each of the {} levels of {} "
                                "domains, found {}",
                                levels, domains, schedules));
    }
  }

  void check_parts(const std::string& path, int64_t parts) {
    if (!findings_.extent(path, parts) || block_tokens_ == 0 || block_tokens_ % parts == 0) return;
    findings_.add({path, "attention.cube", "attention.block_tokens"},
                  fmt::format("{} does not divide the {} tokens of a block; legal: {}", parts,
                              block_tokens_, list(divisors(block_tokens_))));
  }

  void check_head_group(int64_t group, bool budgeted) {
    const int64_t heads = job_.model().heads(), ulysses = job_.parallel().ulysses();
    if (heads <= 0 || ulysses <= 0 || heads % ulysses != 0) return;  // reported elsewhere
    const int64_t own_heads = heads / ulysses;
    const std::vector<std::string> paths = {"attention.budget_head_group", "model.heads",
                                            "parallel.ulysses"};
    if (group > 0 && own_heads % group != 0) {
      findings_.add(
          paths,
          fmt::format("{} does not divide model.heads / parallel.ulysses: {} / {} = {}; legal: {}",
                      group, heads, ulysses, own_heads, list(divisors(own_heads))));
    }
    if (group == 0 && ulysses > 1 && budgeted) {
      findings_.add(
          paths,
          fmt::format("0 (all {} heads compete together) needs parallel.ulysses: 1, found {}, "
                      "where a rank holds {} heads; legal: {}",
                      heads, ulysses, own_heads, list(divisors(own_heads))));
    }
  }

  void check_bsa(const Bsa& bsa) {
    check_schedule(findings_, "attention.bsa.keep_ratio", bsa.keep_ratio(), 1, true);
    for (const auto& [field, value] :
         {std::pair{"start", bsa.keep_ratio().start()}, {"end", bsa.keep_ratio().end()}}) {
      if (value == 0) {
        findings_.add({fmt::format("attention.bsa.keep_ratio.{}", field)},
                      "0: no query would be computed; legal: 0 < keep_ratio <= 1");
      }
    }
    check_schedule(findings_, "attention.bsa.sparsity", bsa.sparsity(), 1, false);
    check_window("attention.bsa.window", bsa.window(), 0);
    const bool partly = bsa.window().t() == 0 || bsa.window().h() == 0 || bsa.window().w() == 0;
    const bool none = bsa.window().t() == 0 && bsa.window().h() == 0 && bsa.window().w() == 0;
    if (partly && !none) {
      findings_.add({"attention.bsa.window"},
                    fmt::format("{} x {} x {}; legal: 0 on all axes, or 1 or more on each",
                                bsa.window().t(), bsa.window().h(), bsa.window().w()));
    }
    findings_.number("attention.bsa.redundancy_threshold", bsa.redundancy_threshold(),
                     bsa.redundancy_threshold() >= -1 && bsa.redundancy_threshold() <= 1,
                     "-1 <= redundancy_threshold <= 1");
    const double smallest = std::min(bsa.keep_ratio().start(), bsa.keep_ratio().end());
    const bool used = bsa.redundancy_threshold() < 1;
    if (findings_.fraction("attention.bsa.redundant_keep_ratio", bsa.redundant_keep_ratio(),
                           bsa.redundant_keep_ratio() > 0 && bsa.redundant_keep_ratio() <= 1,
                           "0 < redundant_keep_ratio <= 1") &&
        used && bsa.redundant_keep_ratio() > smallest) {
      findings_.add({"attention.bsa.redundant_keep_ratio", "attention.bsa.keep_ratio"},
                    fmt::format("{} is more than keep_ratio, which falls to {}; legal: up to {}",
                                bsa.redundant_keep_ratio(), smallest, smallest));
    }
    findings_.number("attention.bsa.mass", bsa.mass(), bsa.mass() > 0 && bsa.mass() <= 1,
                     "0 < mass <= 1");
    findings_.extent("attention.bsa.min_blocks", bsa.min_blocks());
  }

  void check_psa(const Psa& psa) {
    findings_.in_range("attention.psa.samples", psa.samples(), 0, kLargestExtent);
    check_list(findings_, "attention.psa.threshold", psa.threshold(), 4, 0, 1, true);
    check_list(findings_, "attention.psa.quota", psa.quota(), 4, 0, 1, false);
    check_list(findings_, "attention.psa.similarity", psa.similarity(), 3, -1, 1, false);
    findings_.fraction("attention.psa.min_full", psa.min_full(), is_share(psa.min_full()),
                       "0 <= min_full <= 1");
    findings_.fraction("attention.psa.dense_sampling", psa.dense_sampling(),
                       is_share(psa.dense_sampling()), "0 <= dense_sampling <= 1");
    Decimal sum;
    try {
      for (const double share : psa.quota()) sum = sum + Decimal::from_double(share);
    } catch (const ConfigError& error) {
      findings_.add({"attention.psa.quota"}, error.what());
    }
    if (Decimal::ratio(1, 0) < sum) {
      findings_.add({"attention.psa.quota"},
                    fmt::format("adds up to {}; legal: at most 1", sum.to_string()));
    }
  }

  void check_asa(const Asa& asa) {
    findings_.in_range("attention.asa.samples", asa.samples(), 0, kLargestExtent);
    findings_.number("attention.asa.mass", asa.mass(), asa.mass() > 0 && asa.mass() <= 1,
                     "0 < mass <= 1");
    const bool low = findings_.fraction("attention.asa.min_keep", asa.min_keep(),
                                        is_share(asa.min_keep()), "0 <= min_keep <= max_keep");
    const bool high = findings_.fraction("attention.asa.max_keep", asa.max_keep(),
                                         is_share(asa.max_keep()), "min_keep <= max_keep <= 1");
    if (low && high && asa.min_keep() > asa.max_keep()) {
      findings_.add({"attention.asa.min_keep", "attention.asa.max_keep"},
                    fmt::format("{} is more than max_keep: {}; legal: 0 to {}", asa.min_keep(),
                                asa.max_keep(), asa.max_keep()));
    }
    if (!findings_.in_range("attention.asa.global_width", asa.global_width(), 0, kLargestExtent)) {
      return;
    }
    if (!asa.exclude_selected() || block_tokens_ == 0) return;
    if (asa.global_width() == 0 || block_tokens_ % asa.global_width() != 0 ||
        attention_.order() != Attention::HILBERT) {
      findings_.add(
          {"attention.asa.exclude_selected", "attention.asa.global_width", "attention.order"},
          fmt::format(
              "true needs global tokens that lie in one block each: order: HILBERT (found {}) "
              "and a global_width (found {}) that divides block_tokens; legal: {}",
              Attention::Order_Name(attention_.order()), asa.global_width(),
              list(divisors(attention_.block_tokens()))));
    }
  }

  void check_sliding_tile(const SlidingTile& tile) {
    check_window("attention.sliding_tile.window", tile.window(), 1);
    if (attention_.method() == Attention::SLIDING_TILE &&
        attention_.order() == Attention::HILBERT) {
      findings_.add(
          {"attention.order", "attention.method"},
          "HILBERT has no cubes for method: SLIDING_TILE; legal: KD, RASTER, CUBE_HILBERT");
    }
  }

  void check_window(const std::string& path, const Window& window, int64_t low) {
    findings_.in_range(path + ".t", window.t(), low, kLargestExtent);
    findings_.in_range(path + ".h", window.h(), low, kLargestExtent);
    findings_.in_range(path + ".w", window.w(), low, kLargestExtent);
  }

  const Job& job_;
  const Attention& attention_;
  Findings& findings_;
  int64_t block_tokens_ = 0;  // of a whole block; 0: cannot be told
};

}  // namespace

void check_attention(const Job& job, Findings& findings) { AttentionChecker(job, findings).run(); }

}  // namespace sprocket::config
