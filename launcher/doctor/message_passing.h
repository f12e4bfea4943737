// Checks of MPI: whether a process can start it, and whether mpirun is there to start more.
#pragma once

#include <string>
#include <vector>

#include "launcher/doctor/finding.h"

namespace sprocket::launcher {

// `path` as in the environment variable PATH: where mpirun is looked for. `root_refused`: the user
// is root and has not told Open MPI that this is meant.
Finding judge_mpirun(const std::string& path, bool root_refused);

// mpirun as this process would find it.
Finding find_mpirun();

// The components of Open MPI that move messages, in the text of a /proc/PID/maps of a process that
// has started MPI: "pml ob1; btl self, tcp, vader".
Finding describe_transports(const std::string& maps);

// Of a process that has started MPI as one of `ranks`.
std::vector<Finding> describe_message_passing(int ranks);

// Starts MPI in this process, as a world of one: MPI itself ends the process with a message when it
// cannot, so this comes last.
std::vector<Finding> check_message_passing();

}  // namespace sprocket::launcher
