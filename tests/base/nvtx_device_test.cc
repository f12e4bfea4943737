// What a profiler sees. One is linked in: NVTX hands its calls to the one that this pointer leads
// to.
#include <cstdint>

extern "C" int (*InitializeInjectionNvtx2_fnptr)(const void* (*table_of)(uint32_t table));

#define NVTX_STATIC_INJECTION_IMPL
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nvtx3/nvToolsExt.h>

#include <string>
#include <vector>

#include "base/event_moments.h"
#include "base/timeline.h"

namespace sprocket {
namespace {

using ::testing::ElementsAre;

std::vector<std::string>& seen() {
  static std::vector<std::string> calls;
  return calls;
}

nvtxDomainHandle_t create_domain(const char* name) {
  seen().push_back(std::string("domain ") + name);
  return reinterpret_cast<nvtxDomainHandle_t>(&seen());
}
int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* attributes) {
  EXPECT_EQ(domain, reinterpret_cast<nvtxDomainHandle_t>(&seen()));
  EXPECT_EQ(attributes->messageType, NVTX_MESSAGE_TYPE_ASCII);
  seen().push_back(attributes->message.ascii);
  return 0;
}
int pop(nvtxDomainHandle_t) {
  seen().push_back(".");
  return 0;
}

int attach(NvtxGetExportTableFunc_t table_of) {
  const auto* callbacks =
      static_cast<const NvtxExportTableCallbacks*>(table_of(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (callbacks == nullptr ||
      !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) {
    return 0;
  }
  *table[NVTX_CBID_CORE2_DomainCreateA] = reinterpret_cast<NvtxFunctionPointer>(create_domain);
  *table[NVTX_CBID_CORE2_DomainRangePushEx] = reinterpret_cast<NvtxFunctionPointer>(push);
  *table[NVTX_CBID_CORE2_DomainRangePop] = reinterpret_cast<NvtxFunctionPointer>(pop);
  return 1;
}

TEST(Nvtx, AProfilerSeesScopesAndOperations) {
  const CudaStream stream;
  Timeline timeline;
  { const Timeline::Scope host(&timeline, Activity::kCompute, "before the device"); }
  timeline.measure_by(std::make_unique<EventMoments>(stream.view()));
  {
    const Timeline::Scope scope(&timeline, Activity::kCompute, "attention.local");
    const Timeline::Range range(&timeline, [] { return std::string("sp.outer exchange #12"); });
  }
  EXPECT_THAT(seen(),
              ElementsAre("domain sprocket", "attention.local", "sp.outer exchange #12", ".", "."));
}

}  // namespace
}  // namespace sprocket

int (*InitializeInjectionNvtx2_fnptr)(const void* (*)(uint32_t)) = sprocket::attach;
