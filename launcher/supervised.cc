#include "launcher/supervised.h"

#include <sys/prctl.h>

#include <csignal>
#include <cstdlib>
#include <new>
#include <string_view>

#include "base/error.h"

namespace sprocket::launcher {
namespace {

// How long the end of a rank waits until the supervisor has heard of it.
constexpr std::chrono::seconds kPatience{5};
constexpr size_t kLongestMessage = 4096;

// MPI cannot be asked yet.
int starters_number(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  throw InputError(
      fmt::format("--supervised: expected a rank of mpirun or srun, found none of their variables "
                  "({}); it is for `sprocket launch` alone",
                  fmt::join(names, ", ")));
}

control::ClientOptions own_place() {
  control::ClientOptions options;
  options.rank = starters_number({"OMPI_COMM_WORLD_RANK", "SLURM_PROCID"});
  options.ranks = starters_number({"OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"});
  return options;
}

}  // namespace

Supervised::Supervised(const std::string& contact, control::Pulse& pulse)
    : pulse_(pulse), client_(own_place(), control::read_contact_file(contact), pulse_) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void Supervised::report(const std::exception& error) {
  control::ErrorReport report;
  report.set_exit_code(static_cast<int>(exit_code_of(error)));
  report.set_message(std::string(error.what()).substr(0, kLongestMessage));
  report.set_out_of_memory(is_out_of_memory(error));
  report.set_of_a_peer(dynamic_cast<const CommError*>(&error) != nullptr);
  client_.report_error(report, kPatience);
}

void Supervised::report_end(ExitCode code) {
  pulse_.enter(control::Section::kEnd);
  client_.report_end(code, kPatience);
}

JobStop::JobStop(Supervised* supervised) : supervised_(supervised) {
  if (supervised_) supervised_->client().on_stop([this] { signal_.request(); });
}

JobStop::~JobStop() {
  if (supervised_) supervised_->client().on_stop(nullptr);
}

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return true;
  const std::string_view text = error.what();
  return text.find("out of memory") != std::string_view::npos ||
         text.find("can't allocate memory") != std::string_view::npos;
}

}  // namespace sprocket::launcher
