// The mesh of a job that is launched, which its command line and its file say.
#pragma once

#include <string>
#include <vector>

#include "parallel/mesh.h"

namespace sprocket::launcher {

// `job` is `train` or `distill` with its flags. Throws ConfigError when the job cannot use `ranks`.
parallel::MeshShape mesh_of(const std::vector<std::string>& job, int ranks);

// The words of `job` with another data-parallel degree, whatever was there before. The samples of a
// step, training.global_batch, stay: each replica takes more of them.
std::vector<std::string> with_data_degree(std::vector<std::string> job, int data);

// What is wrong with `job` on `mesh`; empty: nothing.
std::string mesh_problem(const std::vector<std::string>& job, const parallel::MeshShape& mesh);

}  // namespace sprocket::launcher
