// Sprocket's and Open MPI's side of bench/comm.py, under mpirun with `--pipes FOLDER`
// (bench/rank_requests.h): the Mpi backend against the same messages written in MPI directly.
//
//   {"op": "hello"}                     process id and library
//   {"op": "prepare", "bytes": N}       a rank sends N bytes in all, equal parts to all others;
//                                       runs everything once and checks what arrived
//   {"op": "run", "side": "sprocket" | "raw", "what": "exchange" | "all_to_all", "count": K}
//                                       milliseconds of one of K operations in a row
// exchange leaves the own part out; all_to_all copies it too.
#include <mpi.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/timeline.h"
#include "bench/rank_requests.h"
#include "parallel/comm/mpi_backend.h"

namespace {

using namespace sprocket;
using nlohmann::json;

class Side {
 public:
  virtual ~Side() = default;
  virtual void exchange() = 0;
  virtual void all_to_all() = 0;
};

struct Data {
  int rank = 0, ranks = 1;
  int64_t part = 0;  // floats for each rank
  std::vector<float> sent, received;

  void fill(int64_t floats) {
    part = floats;
    sent.resize(part * ranks);
    received.assign(part * ranks, -1);
    for (int64_t i = 0; i < std::ssize(sent); ++i) sent[i] = value(rank, i / part, i % part);
  }
  // Throws unless everything that others sent has arrived, and the own part with `own`.
  void check(const char* what, bool own) {
    for (int64_t i = 0; i < std::ssize(received); ++i) {
      const int source = static_cast<int>(i / part);
      const float expected = source == rank && !own ? -1 : value(source, rank, i % part);
      SPROCKET_CHECK(received[i] == expected, "{}: element {} is {}, expected {}", what, i,
                     received[i], expected);
      received[i] = -1;
    }
  }
  static float value(int64_t from, int64_t to, int64_t i) {
    return static_cast<float>((i * 7 + from * 31 + to * 5) % 8191);
  }
};

class SprocketSide : public Side {
 public:
  explicit SprocketSide(Data& data) : data_(data), world_(comm::make_mpi_world({})) {}
  void exchange() override {
    std::vector<comm::Segment> segments;
    for (int peer = 0; peer < data_.ranks; ++peer) {
      if (peer != data_.rank) segments.push_back({peer, peer * data_.part, data_.part});
    }
    world_->exchange(sent(), segments, received(), segments).wait_host();
  }
  void all_to_all() override { world_->all_to_all(sent(), received()).wait_host(); }

 private:
  comm::Buffer sent() { return comm::Buffer::of(std::span(data_.sent)); }
  comm::Buffer received() { return comm::Buffer::of(std::span(data_.received)); }
  Data& data_;
  std::unique_ptr<comm::Communicator> world_;
};

class RawSide : public Side {
 public:
  explicit RawSide(Data& data) : data_(data) {}
  void exchange() override {
    std::vector<MPI_Request> requests;
    const int count = static_cast<int>(data_.part);
    for (int step = 1; step < data_.ranks; ++step) {
      const int peer = (data_.rank - step + data_.ranks) % data_.ranks;
      MPI_Irecv(&data_.received[peer * data_.part], count, MPI_FLOAT, peer, 1, MPI_COMM_WORLD,
                &requests.emplace_back());
    }
    for (int step = 1; step < data_.ranks; ++step) {
      const int peer = (data_.rank + step) % data_.ranks;
      MPI_Isend(&data_.sent[peer * data_.part], count, MPI_FLOAT, peer, 1, MPI_COMM_WORLD,
                &requests.emplace_back());
    }
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  }
  void all_to_all() override {
    const int count = static_cast<int>(data_.part);
    MPI_Alltoall(data_.sent.data(), count, MPI_FLOAT, data_.received.data(), count, MPI_FLOAT,
                 MPI_COMM_WORLD);
  }

 private:
  Data& data_;
};

class Server {
 public:
  explicit Server(const comm::MpiSession& session) : sprocket_(data_), raw_(data_) {
    data_.rank = session.rank();
    data_.ranks = session.size();
  }

  json answer(const json& request) {
    const std::string op = request.at("op");
    if (op == "hello") return {{"pid", getpid()}, {"library", comm::mpi_library_version()}};
    if (op == "prepare") {
      prepare(request.at("bytes").get<int64_t>());
      return json::object();
    }
    if (op == "run") {
      Side& side = request.at("side") == "raw" ? static_cast<Side&>(raw_) : sprocket_;
      return {{"ms", milliseconds(side, request.at("what") == "exchange", request.at("count"))}};
    }
    throw std::invalid_argument("op: expected hello, prepare or run, found " + op);
  }

 private:
  void prepare(int64_t bytes) {
    const int64_t floats = bytes / (data_.ranks - 1) / static_cast<int64_t>(sizeof(float));
    SPROCKET_CHECK(floats >= 1, "{} bytes are too few for {} ranks", bytes, data_.ranks);
    data_.fill(floats);
    for (Side* side : {static_cast<Side*>(&sprocket_), static_cast<Side*>(&raw_)}) {
      side->exchange();
      data_.check("exchange", false);
      side->all_to_all();
      data_.check("all_to_all", true);
    }
  }

  static double milliseconds(Side& side, bool exchange, int count) {
    MPI_Barrier(MPI_COMM_WORLD);
    const int64_t begin = monotonic_ns();
    for (int i = 0; i < count; ++i) {
      if (exchange) {
        side.exchange();
      } else {
        side.all_to_all();
      }
    }
    return static_cast<double>(monotonic_ns() - begin) / 1e6 / count;
  }

  Data data_;
  SprocketSide sprocket_;
  RawSide raw_;
};

}  // namespace

int main(int argc, char** argv) {
  std::string pipes;
  CLI::App app{"Sprocket's and Open MPI's side of bench/comm.py"};
  app.add_option("--pipes", pipes, "folder of the ranks' named pipes")->required();
  CLI11_PARSE(app, argc, argv);
  const comm::MpiSession session(nullptr, nullptr);
  Server server(session);
  bench::serve_requests(pipes, session.rank(), [&](const json& r) { return server.answer(r); });
}
