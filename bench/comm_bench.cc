// Sprocket's and Open MPI's side of bench/comm.py, under mpirun with `--pipes FOLDER`
// (bench/rank_requests.h): the Mpi backend, or with `--raw` the same messages written in MPI
// directly, by a program that leaves Open MPI's settings alone.
//
//   {"op": "hello"}                     process id and library
//   {"op": "prepare", "bytes": N}       a rank sends N bytes in all, equal parts to all others;
//                                       runs everything once and checks what arrived
//   {"op": "run", "what": "exchange" | "all_to_all", "count": K}
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
  virtual void barrier() = 0;
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
  void barrier() override { world_->barrier(); }
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
  void barrier() override { MPI_Barrier(MPI_COMM_WORLD); }
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
  Server(int rank, int ranks, bool raw) {
    data_.rank = rank;
    data_.ranks = ranks;
    if (raw) {
      side_ = std::make_unique<RawSide>(data_);
    } else {
      side_ = std::make_unique<SprocketSide>(data_);
    }
  }

  json answer(const json& request) {
    const std::string op = request.at("op");
    if (op == "hello") return {{"pid", getpid()}, {"library", comm::mpi_library_version()}};
    if (op == "prepare") {
      prepare(request.at("bytes").get<int64_t>());
      return json::object();
    }
    if (op == "run") {
      return {{"ms", milliseconds(request.at("what") == "exchange", request.at("count"))}};
    }
    throw std::invalid_argument("op: expected hello, prepare or run, found " + op);
  }

 private:
  void prepare(int64_t bytes) {
    const int64_t floats = bytes / (data_.ranks - 1) / static_cast<int64_t>(sizeof(float));
    SPROCKET_CHECK(floats >= 1, "{} bytes are too few for {} ranks", bytes, data_.ranks);
    data_.fill(floats);
    side_->exchange();
    data_.check("exchange", false);
    side_->all_to_all();
    data_.check("all_to_all", true);
  }

  double milliseconds(bool exchange, int count) {
    side_->barrier();
    const int64_t begin = monotonic_ns();
    for (int i = 0; i < count; ++i) {
      if (exchange) {
        side_->exchange();
      } else {
        side_->all_to_all();
      }
    }
    return static_cast<double>(monotonic_ns() - begin) / 1e6 / count;
  }

  Data data_;
  std::unique_ptr<Side> side_;
};

void serve(const std::string& pipes, int rank, int ranks, bool raw) {
  Server server(rank, ranks, raw);
  bench::serve_requests(pipes, rank, [&](const json& request) { return server.answer(request); });
}

}  // namespace

int main(int argc, char** argv) {
  std::string pipes;
  bool raw = false;
  CLI::App app{"Sprocket's and Open MPI's side of bench/comm.py"};
  app.add_option("--pipes", pipes, "folder of the ranks' named pipes")->required();
  app.add_flag("--raw", raw, "MPI without Sprocket");
  CLI11_PARSE(app, argc, argv);
  if (raw) {
    MPI_Init(nullptr, nullptr);
    int rank = 0, ranks = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    serve(pipes, rank, ranks, raw);
    MPI_Finalize();
  } else {
    const comm::MpiSession session(nullptr, nullptr);
    serve(pipes, session.rank(), session.size(), raw);
  }
}
