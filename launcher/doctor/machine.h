// Checks of the machine itself. The judgements are functions of plain numbers, so that every branch
// is tested on any machine; check_machine() reads the numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/doctor/finding.h"

namespace sprocket::launcher {

// sizes in bytes; limits: -1 means unlimited
Finding judge_shared_memory(int64_t free, int64_t total);
Finding judge_memory(int64_t available, int64_t total, int64_t control_group_limit);
Finding judge_open_files(int64_t limit);
Finding judge_locked_memory(int64_t limit);
Finding judge_stack(int64_t limit);
Finding judge_processes(int64_t limit);  // a user's, threads included
Finding judge_core_files(int64_t limit);
// `cores` may be used by this process, of `online`; `quota` is the control group's limit in cores,
// 0 for none.
Finding judge_cores(int cores, int online, double quota);
// `isa` as kernels::name_of names it; flags as in /proc/cpuinfo.
Finding judge_instruction_set(std::string_view isa, const std::string& cpu_flags);

// Processors that this process may run on, by number.
std::vector<int> usable_cores();
// Bytes free in /dev/shm.
int64_t free_shared_memory();

// Bytes that this process may still allocate: free and reclaimable memory, at most the control
// group's limit.
int64_t available_memory();

std::vector<Finding> check_machine();

}  // namespace sprocket::launcher
