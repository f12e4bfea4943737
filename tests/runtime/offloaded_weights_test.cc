#include "runtime/train/offloaded_weights.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

using models::ParameterStore;

std::shared_ptr<ParameterStore> make_store(ParameterStore::Use use) {
  std::vector<models::ParameterSpec> specs(2);
  specs[0] = {"a", {3, 5}, models::InitialRule::kNormal, 1};
  specs[1] = {"b", {7}, models::InitialRule::kNormal, 1};
  auto store = std::make_shared<ParameterStore>(specs, at::kFloat, at::kCPU,
                                                ParameterStore::Copies::kNone, use);
  store->initialise(3);
  return store;
}

size_t held_bytes(const ParameterStore& store) {
  return store.flat_parameters().storage().nbytes();
}

TEST(OffloadedWeights, AreThereInAVisitAndTakeNoMemoryOutsideOfOne) {
  const auto store = make_store(ParameterStore::Use::kFrozen);
  const at::Tensor expected = store->flat_parameters().clone();
  const at::Tensor b = store->tensor("b");  // a view that somebody holds
  OffloadedWeights weights(store, nullptr);
  EXPECT_EQ(weights.bytes(), static_cast<int64_t>(expected.nbytes()));
  EXPECT_EQ(held_bytes(*store), 0u);
  for (int visit = 0; visit < 2; ++visit) {
    {
      const OffloadedWeights::Visit here(&weights);
      EXPECT_TRUE(store->flat_parameters().equal(expected));
      EXPECT_TRUE(b.equal(expected.narrow(0, store->offset(1), 7)));
    }
    EXPECT_EQ(held_bytes(*store), 0u);
  }
  const OffloadedWeights::Visit nothing(nullptr);
}

TEST(OffloadedWeights, AreFrozenOnes) {
  EXPECT_THROW(OffloadedWeights(make_store(ParameterStore::Use::kTrained), nullptr), InternalError);
}

}  // namespace
}  // namespace sprocket::runtime
