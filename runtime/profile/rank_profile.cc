#include "runtime/profile/rank_profile.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

using nlohmann::json;

constexpr char kMagic[] = "rank profile 1";

json range_json(const RunningRange& range) {
  return {range.count, range.sum, range.min, range.max};
}

RunningRange range_of(const json& value) {
  return {value.at(0), value.at(1), value.at(2), value.at(3)};
}

template <class T>
void put(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
T take(const std::string& bytes, size_t& at) {
  SPROCKET_CHECK_LE(at + sizeof(T), bytes.size());
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  at += sizeof value;
  return value;
}

}  // namespace

std::string GroupId::text() const { return fmt::format("{}[{}]", name, index); }

void RunningRange::add(double value) {
  min = count == 0 ? value : std::min(min, value);
  max = count == 0 ? value : std::max(max, value);
  sum += value;
  ++count;
}

std::string pack(const RankProfile& p) {
  json header = {
      {"magic", kMagic},
      {"totals",
       {p.steps, p.wall_ns, p.compute_ns, p.communication_ns, p.exposed_ns, p.overlapped_ns,
        p.data_wait_ns, p.tokens, p.lost_records, p.memory.peak, p.memory.tensor_peak,
        p.memory.parameters, p.memory.gradients, p.memory.moments}},
      {"compute", p.compute_by_name_ns},
      {"operations", json::array()},
      {"layers", json::array()},
      {"groups", json::array()}};
  for (const auto& [key, totals] : p.operations) {
    header["operations"].push_back({key.group, static_cast<int>(key.op),
                                    static_cast<int>(key.phase), totals.operations,
                                    totals.bytes_sent, totals.messages_sent, totals.duration_ns});
  }
  for (const LayerShares& layer : p.layers) {
    header["layers"].push_back({range_json(layer.density), range_json(layer.coverage)});
  }
  for (const GroupId& group : p.groups) {
    header["groups"].push_back({group.name, group.index, group.size});
  }
  const std::string text = header.dump();
  std::string bytes;
  put(bytes, static_cast<uint64_t>(text.size()));
  bytes += text;
  put(bytes, static_cast<uint64_t>(p.timings.size()));
  for (const OpTiming& timing : p.timings) {
    put(bytes, timing.group);
    put(bytes, timing.op);
    put(bytes, timing.phase);
    put(bytes, timing.sequence);
    put(bytes, timing.duration_ns);
  }
  return bytes;
}

RankProfile unpack_rank_profile(const std::string& bytes) {
  size_t at = 0;
  const auto header_bytes = take<uint64_t>(bytes, at);
  SPROCKET_CHECK_LE(header_bytes, bytes.size() - at);
  const json header = json::parse(bytes.substr(at, header_bytes), nullptr, false);
  at += header_bytes;
  SPROCKET_CHECK(!header.is_discarded() && header.at("magic") == kMagic, "no packed rank profile");
  RankProfile p;
  const json& totals = header.at("totals");
  int64_t* const fields[] = {&p.steps,
                             &p.wall_ns,
                             &p.compute_ns,
                             &p.communication_ns,
                             &p.exposed_ns,
                             &p.overlapped_ns,
                             &p.data_wait_ns,
                             &p.tokens,
                             &p.lost_records,
                             &p.memory.peak,
                             &p.memory.tensor_peak,
                             &p.memory.parameters,
                             &p.memory.gradients,
                             &p.memory.moments};
  for (size_t i = 0; i < std::size(fields); ++i) *fields[i] = totals.at(i);
  p.compute_by_name_ns = header.at("compute").get<std::map<std::string, int64_t>>();
  for (const json& row : header.at("operations")) {
    const OpKey key{row.at(0), static_cast<comm::OpKind>(row.at(1).get<int>()),
                    static_cast<Phase>(row.at(2).get<int>())};
    p.operations[key] = {row.at(3), row.at(4), row.at(5), row.at(6)};
  }
  for (const json& row : header.at("layers")) {
    p.layers.push_back({range_of(row.at(0)), range_of(row.at(1))});
  }
  for (const json& row : header.at("groups")) {
    p.groups.push_back({row.at(0), row.at(1), row.at(2)});
  }
  const auto count = take<uint64_t>(bytes, at);
  for (uint64_t i = 0; i < count; ++i) {
    OpTiming timing;
    timing.group = take<int32_t>(bytes, at);
    timing.op = take<uint8_t>(bytes, at);
    timing.phase = take<uint8_t>(bytes, at);
    timing.sequence = take<int64_t>(bytes, at);
    timing.duration_ns = take<int64_t>(bytes, at);
    p.timings.push_back(timing);
  }
  return p;
}

}  // namespace sprocket::runtime
