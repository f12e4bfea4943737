#include "parallel/attention/selection_heads.h"

#include <functional>

#include "base/error.h"

namespace sprocket::parallel {
namespace {

using kernels::QueryPruning;
using kernels::SegmentTable;

template <class T>
using Shared = std::shared_ptr<const T>;

// Calls visit(part, head of the part, batch) for all (batch, head) of `parts` in order.
template <class T, class Visit>
void for_each_head(const std::vector<Shared<T>>& parts, Visit visit) {
  for (int b = 0; b < parts[0]->batch; ++b) {
    for (const Shared<T>& part : parts) {
      for (int h = 0; h < part->heads; ++h) visit(*part, h, b);
    }
  }
}

// values: equally many for every (batch, head) of `of`.
template <class T, class Of>
void append_head(std::vector<T>& to, const std::vector<T>& values, const Of& of, int batch,
                 int head) {
  const auto stride = std::ssize(values) / (int64_t{of.batch} * of.heads);
  const auto first = values.begin() + (int64_t{batch} * of.heads + head) * stride;
  to.insert(to.end(), first, first + stride);
}

void append_head(SegmentTable& to, const SegmentTable& from, int batch, int head) {
  for (int i = 0; i < from.query_blocks; ++i) {
    const auto row = from.row(batch, head, i);
    to.kv_block.insert(to.kv_block.end(), row.begin(), row.end());
    to.row_offsets.push_back(std::ssize(to.kv_block));
  }
}

void append_head(QueryPruning& to, const QueryPruning& from, int batch, int head) {
  append_head(to.rows, from.rows, from, batch, head);
  append_head(to.kept, from.kept, from, batch, head);
  append_head(to.source, from.source, from, batch, head);
}

SegmentTable without_heads(const SegmentTable& like, int heads) {
  return {like.batch, heads, like.query_blocks, like.kv_blocks, {0}, {}};
}

QueryPruning without_heads(const QueryPruning& like, int heads) {
  return {like.batch, heads, like.token_offsets, like.offsets, {}, {}, {}};
}

template <class T>
Shared<T> sliced(const Shared<T>& all, int first, int count) {
  if (!all) return nullptr;
  auto part = std::make_shared<T>(without_heads(*all, count));
  for (int b = 0; b < all->batch; ++b) {
    for (int h = first; h < first + count; ++h) append_head(*part, *all, b, h);
  }
  return part;
}

template <class T>
Shared<T> joined(const std::vector<Shared<T>>& parts) {
  if (!parts[0]) return nullptr;
  int heads = 0;
  for (const Shared<T>& part : parts) heads += part->heads;
  auto all = std::make_shared<T>(without_heads(*parts[0], heads));
  for_each_head(parts, [&](const T& part, int h, int b) { append_head(*all, part, b, h); });
  return all;
}

template <class T>
Shared<T> joined(const std::vector<Selection>& parts, Shared<T> Selection::*member) {
  std::vector<Shared<T>> members;
  for (const Selection& part : parts) members.push_back(part.*member);
  return joined(members);
}

}  // namespace

Selection heads_of(const Selection& all, int first, int count) {
  if (!all.table || (first == 0 && count == all.table->heads)) return all;
  Selection part{sliced(all.table, first, count),
                 sliced(all.pruning, first, count),
                 sliced(all.global_table, first, count),
                 {},
                 {}};
  if (!all.kept_mass.empty()) {
    part.kept_mass.assign(all.kept_mass.begin() + first, all.kept_mass.begin() + first + count);
  }
  return part;
}

Selection join_heads(const std::vector<Selection>& parts) {
  if (parts.size() == 1) return parts[0];
  Selection all{joined(parts, &Selection::table),
                joined(parts, &Selection::pruning),
                joined(parts, &Selection::global_table),
                {},
                {}};
  for (const Selection& part : parts) {
    all.kept_mass.insert(all.kept_mass.end(), part.kept_mass.begin(), part.kept_mass.end());
  }
  return all;
}

}  // namespace sprocket::parallel
