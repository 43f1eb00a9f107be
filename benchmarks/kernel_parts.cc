// What each part of the compiled first layer takes on one core, without TensorFlow around it: the
// published network, batches of 64 sequences of 1,500 bp. (-g tells a profiler the names of lines.)
//
//   g++ -O3 -std=c++17 -Wno-psabi -g -I tal1_hvd/models/native benchmarks/kernel_parts.cc \
//       tal1_hvd/models/native/kernels_*.cc -o parts && ./parts
//
// With a part's name it runs that part alone, for a profiler:
//
//   perf record -e cpu-clock ./parts forward && perf annotate
//   TAL1_HVD_SIMD=avx2 valgrind --tool=callgrind ./parts forward
//
// Its digest of all results is the same for every instruction set, compiler and processor; without
// one of another kind (Debian's g++-aarch64-linux-gnu and qemu-user, and clang):
//
//   aarch64-linux-gnu-g++ -static ... -o parts && qemu-aarch64 ./parts digest

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "dispatch.h"

namespace {

constexpr int kSequences = 64, kLength = 1500, kWidth = 10, kFilters = 15, kPool = 35;
constexpr int kRepeats = 300;

template <typename U>
U* aligned(int64_t count) {
  constexpr int64_t row = tal1_hvd::kBlockBytes;
  const int64_t bytes = (count * static_cast<int64_t>(sizeof(U)) + row - 1) / row * row;
  void* memory = std::aligned_alloc(row, bytes);
  std::memset(memory, 0, bytes);
  return static_cast<U*>(memory);
}

double microseconds_a_sequence(const std::function<void()>& part) {
  double best = 1e9;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const auto began = std::chrono::steady_clock::now();
    part();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    best = took.count() < best ? took.count() : best;
  }
  return 1e6 * best / kSequences;
}

// FNV-1a over all bytes.
template <typename U>
void add_to_digest(uint64_t& digest, const std::vector<U>& values) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(U); ++i) {
    digest = (digest ^ bytes[i]) * 1099511628211u;
  }
}

}  // namespace

int main(int count, char** arguments) {
  using tal1_hvd::Layout;
  const int64_t windows = (kLength - kWidth + 1) / kPool;
  const Layout layout{kLength, 0, kLength, kWidth, kFilters, kPool, windows, 3, 3, 2};
  const auto kernels = tal1_hvd::choose_kernels<float>();

  std::mt19937 random(0);
  std::uniform_int_distribution<int> whole(-1000, 1000);
  const auto draw = [&](int64_t size) {
    std::vector<float> values(size);
    for (float& value : values) value = 1e-4f * whole(random);
    return values;
  };
  std::vector<uint8_t> codes(kSequences * kLength);
  for (uint8_t& code : codes) code = random() % 4;
  const auto kernel = draw(kWidth * 4 * kFilters), bias = draw(kFilters);
  const int64_t outputs = windows * kFilters;
  const auto gradient = draw(kSequences * outputs);

  const int block = tal1_hvd::block_filters<float>();
  float* tables = aligned<float>(layout.all_rows() * block);
  float* bases = aligned<float>(kWidth * 5 * block);
  float* table_sums = aligned<float>(layout.all_rows() * block);
  float* base_sums = aligned<float>(kWidth * 5 * block);
  std::vector<float> pooled(kSequences * outputs), weights(kernel.size()), biases(bias.size());
  std::vector<int32_t> winner(kSequences * outputs);
  std::vector<uint16_t> index(2 * kLength);
  std::vector<uint8_t> padded(kLength + tal1_hvd::kLongestKmer);
  const tal1_hvd::Scratch scratch{padded.data(), index.data(), index.data() + kLength};
  Layout one_window = layout;
  one_window.windows = 1;

  const auto forward = [&](const Layout& of) {
    for (int i = 0; i < kSequences; ++i) {
      kernels.forward(of, tables, bases, codes.data() + i * kLength, pooled.data() + i * outputs,
                      winner.data() + i * outputs, scratch);
    }
  };
  const auto backward = [&](const Layout& of) {
    for (int i = 0; i < kSequences; ++i) {
      kernels.backward(of, codes.data() + i * kLength, winner.data() + i * outputs,
                       gradient.data() + i * outputs, table_sums, base_sums, scratch);
    }
  };
  const struct {
    const char* name;
    const char* what;
    std::function<void()> run;
  } parts[] = {
      {"build", "k-mers' tables, once a batch",
       [&] { kernels.build(layout, kernel.data(), bias.data(), tables, bases); }},
      {"index", "k-mers' indices and one of 42 windows, forward", [&] { forward(one_window); }},
      {"forward", "indices and all windows, forward", [&] { forward(layout); }},
      {"backward", "indices and all windows, backward", [&] { backward(layout); }},
      {"spread", "k-mers' gradients to bases', once a batch",
       [&] { kernels.spread(layout, table_sums, base_sums, weights.data(), biases.data()); }},
  };
  const char* names[] = {"baseline", "AVX2", "AVX-512"};
  std::printf("instruction set: %s; microseconds a sequence\n",
              names[static_cast<int>(tal1_hvd::simd())]);
  // A part needs what those before it made.
  for (const auto& part : parts) part.run();
  uint64_t digest = 14695981039346656037u;
  add_to_digest(digest, pooled);
  add_to_digest(digest, winner);
  add_to_digest(digest, weights);
  add_to_digest(digest, biases);
  std::printf("digest of the results: %016llx\n", static_cast<unsigned long long>(digest));
  for (const auto& part : parts) {
    if (count > 1 && std::strcmp(arguments[1], part.name) != 0) continue;
    std::printf("%-9s %5.2f  %s\n", part.name, microseconds_a_sequence(part.run), part.what);
  }
  return 0;
}
