#include "runtime/train/offloaded_weights.h"

#include <ATen/ops/empty.h>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

c10::StorageImpl& storage_of(const at::Tensor& flat) {
  return *flat.storage().unsafeGetStorageImpl();
}

void take_memory(const at::Tensor& flat, size_t bytes) {
  c10::StorageImpl& storage = storage_of(flat);
  storage.set_data_ptr_noswap(storage.allocator()->allocate(bytes));
  storage.set_nbytes(bytes);
}

void give_memory(const at::Tensor& flat) {
  c10::StorageImpl& storage = storage_of(flat);
  storage.set_data_ptr_noswap(at::DataPtr(nullptr, storage.device()));
  storage.set_nbytes(size_t{0});
}

}  // namespace

OffloadedWeights::OffloadedWeights(std::shared_ptr<const models::ParameterStore> store,
                                   Timeline* timeline)
    : store_(std::move(store)), timeline_(timeline) {
  SPROCKET_CHECK(!store_->trained(), "weights that are trained are needed all the time");
  const at::Tensor& flat = store_->flat_parameters();
  kept_ =
      at::empty(flat.sizes(), at::TensorOptions(flat.scalar_type()).pinned_memory(!flat.is_cpu()));
  kept_.copy_(flat);
  give_memory(flat);
  if (store_->flat_copies().defined()) give_memory(store_->flat_copies());
}

OffloadedWeights::Visit::Visit(OffloadedWeights* weights) : weights_(weights) {
  if (!weights_) return;
  const Timeline::Scope scope(weights_->timeline_, Activity::kCopy, "weights.fetch", [&] {
    return Work{0, static_cast<double>(weights_->bytes())};
  });
  const models::ParameterStore& store = *weights_->store_;
  const at::Tensor& flat = store.flat_parameters();
  take_memory(flat, weights_->kept_.nbytes());
  flat.copy_(weights_->kept_, /*non_blocking=*/true);
  const at::Tensor& copies = store.flat_copies();
  if (copies.defined()) take_memory(copies, copies.numel() * copies.element_size());
}

OffloadedWeights::Visit::~Visit() {
  if (!weights_) return;
  const models::ParameterStore& store = *weights_->store_;
  give_memory(store.flat_parameters());
  if (store.flat_copies().defined()) give_memory(store.flat_copies());
}

int64_t OffloadedWeights::bytes() const { return static_cast<int64_t>(kept_.nbytes()); }

}  // namespace sprocket::runtime
