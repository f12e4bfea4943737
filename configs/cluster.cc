#include "configs/cluster.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>
#include <google/protobuf/text_format.h>

#include "base/error.h"
#include "configs/text_file.h"
#include "configs/text_scan.h"

namespace sprocket::config {
namespace {

constexpr int kMostNodes = 1 << 20;
constexpr int kMostDevices = 1024;
// Far beyond any machine: what is larger is a mistake in the unit.
constexpr double kLargestFigure = 1e9;

class Checker {
 public:
  Checker(const Cluster& cluster, const Scan& scan, const std::string& name)
      : cluster_(cluster), scan_(scan), problems_(scan.problems), name_(name) {}

  std::vector<Problem> run() {
    given("name", cluster_.has_name());
    whole("nodes", cluster_.has_nodes(), cluster_.nodes(), kMostNodes);
    whole("devices", cluster_.has_devices(), cluster_.devices(), kMostDevices);
    positive("memory_gib", cluster_.has_memory_gib(), cluster_.memory_gib());
    positive("copy_gb_s", cluster_.has_copy_gb_s(), cluster_.copy_gb_s());
    time("call_us", cluster_.has_call_us(), cluster_.call_us());
    for (int i = 0; i < cluster_.link_size(); ++i) {
      check_link(fmt::format("link[{}].", i), cluster_.link(i));
    }
    check_classes();
    for (int i = 0; i < cluster_.rates_size(); ++i) {
      check_rates(fmt::format("rates[{}].", i), cluster_.rates(i));
    }
    if (cluster_.rates_size() == 0) add("rates", "not given; expected one for each precision");
    check_precisions();
    return std::move(problems_);
  }

 private:
  void check_link(const std::string& at, const Link& link) {
    given(at + "class", link.has_class_());
    positive(at + "bandwidth_gb_s", link.has_bandwidth_gb_s(), link.bandwidth_gb_s());
    time(at + "latency_us", link.has_latency_us(), link.latency_us());
    time(at + "message_us", link.has_message_us(), link.message_us());
    given(at + "duplex", link.has_duplex());
    if (given(at + "adapter", link.has_adapter()) && link.adapter() == Link::SHARED &&
        link.class_() == Link::INSIDE_NODE && link.has_class_()) {
      add(at + "adapter", "SHARED inside a node; legal: PER_DEVICE");
    }
    if (given(at + "overlap", link.has_overlap()) && !(link.overlap() >= 0 && link.overlap() <= 1))
      add(at + "overlap", fmt::format("{}; legal: 0 to 1", link.overlap()));
  }

  void check_classes() {
    std::map<Link::Class, int> first;
    for (int i = 0; i < cluster_.link_size(); ++i) {
      const Link& link = cluster_.link(i);
      if (!link.has_class_()) continue;
      const auto [found, is_new] = first.emplace(link.class_(), i);
      if (!is_new) {
        add(fmt::format("link[{}].class", i),
            fmt::format("{} is given by link[{}] already; expected each class once",
                        Link::Class_Name(link.class_()), found->second));
      }
    }
    const auto needs = [&](Link::Class which, bool needed, const std::string& reason) {
      if (needed && !first.count(which) && !scan_.rejected.count("link")) {
        add("link", fmt::format("no link of class {}; expected one, because {}",
                                Link::Class_Name(which), reason));
      }
    };
    // A link whose class was refused may be the one that is missing.
    const bool refused =
        std::any_of(scan_.rejected.begin(), scan_.rejected.end(),
                    [](const std::string& path) { return path.starts_with("link["); });
    if (refused) return;
    needs(Link::INSIDE_NODE, cluster_.devices() > 1,
          fmt::format("a node has {} devices", cluster_.devices()));
    needs(Link::BETWEEN_NODES, cluster_.nodes() > 1,
          fmt::format("there are {} nodes", cluster_.nodes()));
  }

  void check_rates(const std::string& at, const KernelRates& rates) {
    given(at + "precision", rates.has_precision());
    positive(at + "attention_forward_tflops", rates.has_attention_forward_tflops(),
             rates.attention_forward_tflops());
    positive(at + "attention_backward_tflops", rates.has_attention_backward_tflops(),
             rates.attention_backward_tflops());
    time(at + "attention_forward_row_ns", rates.has_attention_forward_row_ns(),
         rates.attention_forward_row_ns());
    time(at + "attention_backward_row_ns", rates.has_attention_backward_row_ns(),
         rates.attention_backward_row_ns());
    positive(at + "linear_tflops", rates.has_linear_tflops(), rates.linear_tflops());
    positive(at + "selection_tflops", rates.has_selection_tflops(), rates.selection_tflops());
    if (rates.has_peak_tflops()) positive(at + "peak_tflops", true, rates.peak_tflops());
  }

  void check_precisions() {
    std::map<int, int> first;
    for (int i = 0; i < cluster_.rates_size(); ++i) {
      const KernelRates& rates = cluster_.rates(i);
      if (!rates.has_precision()) continue;
      const auto [found, is_new] = first.emplace(rates.precision(), i);
      if (is_new) continue;
      add(fmt::format("rates[{}].precision", i),
          fmt::format("{} is given by rates[{}] already; expected each precision once",
                      Compute::Precision_Name(rates.precision()), found->second));
    }
  }

  bool given(const std::string& path, bool has) {
    if (!has) add(path, "not given; every field of a cluster is needed");
    return has;
  }
  void whole(const std::string& path, bool has, int value, int most) {
    if (given(path, has) && (value < 1 || value > most)) {
      add(path, fmt::format("{}; legal: 1 to {}", value, most));
    }
  }
  void positive(const std::string& path, bool has, double value) {
    if (given(path, has) && !(value > 0 && value <= kLargestFigure)) {
      add(path, fmt::format("{}; legal: above 0, at most {}", value, kLargestFigure));
    }
  }
  void time(const std::string& path, bool has, double value) {
    if (given(path, has) && !(value >= 0 && value <= kLargestFigure)) {
      add(path, fmt::format("{}; legal: 0 to {}", value, kLargestFigure));
    }
  }

  // A rule whose field was refused already says nothing new. A missing field is placed at its
  // message.
  void add(const std::string& path, std::string message) {
    if (scan_.rejected.count(path)) return;
    const auto of = [&](const std::string& place) { return scan_.locations.find(place); };
    auto found = of(path);
    if (found == scan_.locations.end()) found = of(path.substr(0, path.rfind('.')));
    Problem problem;
    problem.location.source = name_;
    if (found != scan_.locations.end()) problem.location = found->second;
    problem.path = path;
    problem.message = std::move(message);
    problems_.push_back(std::move(problem));
  }

  const Cluster& cluster_;
  const Scan& scan_;
  std::vector<Problem> problems_;
  const std::string& name_;
};

}  // namespace

Cluster parse_cluster(const std::string& text, const std::string& name) {
  const Scan scan = scan_text(*Cluster::descriptor(), {name, text});
  Cluster cluster;
  google::protobuf::TextFormat::Parser parser;
  SPROCKET_CHECK(parser.MergeFromString(scan.accepted, &cluster),
                 "{}: accepted text does not parse:\n{}", name, scan.accepted);
  std::vector<Problem> problems =
      scan.complete ? Checker(cluster, scan, name).run() : scan.problems;
  if (problems.empty()) return cluster;
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) {
    return std::tuple(a.location.line, a.location.column) <
           std::tuple(b.location.line, b.location.column);
  });
  std::string lines;
  for (const Problem& problem : problems) {
    if (!lines.empty()) lines += '\n';
    lines += problem.to_string();
  }
  throw ConfigError(lines);
}

Cluster load_cluster(const std::string& file) {
  return parse_cluster(read_text_file(file, "a cluster description"), file);
}

std::string to_text(const Cluster& cluster) {
  std::string text;
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  SPROCKET_CHECK(printer.PrintToString(cluster, &text), "a cluster could not be printed");
  return text;
}

}  // namespace sprocket::config
