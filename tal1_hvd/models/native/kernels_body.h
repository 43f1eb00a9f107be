// The kernels themselves. Included once for each instruction set, which defines
//   TARGET        the attribute that lets the compiler use it
//   VECTOR_BYTES  its registers' width
//   KERNELS       the name of the function that returns them
// Everything is in an anonymous namespace and nothing of the standard library is used, so that no
// function compiled for one instruction set can be linked in for another.

#include "kernels.h"

namespace tal1_hvd {
namespace {

#define INLINE TARGET inline __attribute__((always_inline))

template <typename T> struct PositionOf;
template <> struct PositionOf<float> { using type = int32_t; };
template <> struct PositionOf<double> { using type = int64_t; };

template <typename T>
struct Simd {
  using Position = typename PositionOf<T>::type;
  typedef T Value __attribute__((vector_size(VECTOR_BYTES)));
  typedef Position Where __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr int lanes = VECTOR_BYTES / sizeof(T);
  static constexpr int parts = kBlockBytes / VECTOR_BYTES;  // vectors of a block
};

// A block of filters: their values, and the position that each was found at.
template <typename T>
struct Best {
  typename Simd<T>::Value value[Simd<T>::parts];
  typename Simd<T>::Where where[Simd<T>::parts];
};

template <typename T>
INLINE void keep_better(Best<T>& best, const Best<T>& later) {
  for (int i = 0; i < Simd<T>::parts; ++i) {
    const auto stays = later.value[i] <= best.value[i];  // a tie, too; not where there is a NaN
    best.value[i] = stays ? best.value[i] : later.value[i];
    best.where[i] = stays ? best.where[i] : later.where[i];
  }
}

template <typename T>
INLINE void place(Best<T>& best, typename Simd<T>::Position where) {
  for (int i = 0; i < Simd<T>::parts; ++i) best.where[i] = typename Simd<T>::Where{} + where;
}

template <typename T>
INLINE void copy_row(T* to, const T* from) {
  for (int f = 0; f < block_filters<T>(); ++f) to[f] = from[f];
}

// What a window is read with: for each table its first row and where its k-mers' indices begin.
constexpr int kMostKmers = kWidest / kLongestKmer;
template <typename T>
struct Reader {
  const T* table[kMostKmers];
  const uint16_t* index[kMostKmers];
  int kmers;
};

template <typename T>
INLINE T* row_at(T* table, int64_t index) {
  return table + index * (kBlockBytes / kIndexStep / static_cast<int>(sizeof(T)));
}

template <typename T>
INLINE void add_row(typename Simd<T>::Value* sum, const T* row) {
  const auto* vectors = reinterpret_cast<const typename Simd<T>::Value*>(row);
  for (int i = 0; i < Simd<T>::parts; ++i) sum[i] += vectors[i];
}

// The convolution at one position. KMERS is the number of tables, or 0 for one known at run time.
template <typename T, int KMERS>
INLINE Best<T> at(const Reader<T>& reader, int64_t position) {
  Best<T> result;
  const auto row = [&](int kmer) TARGET {
    return row_at(reader.table[kmer], reader.index[kmer][position]);
  };
  const auto* first = reinterpret_cast<const typename Simd<T>::Value*>(row(0));
  for (int i = 0; i < Simd<T>::parts; ++i) result.value[i] = first[i];
  const int kmers = KMERS ? KMERS : reader.kmers;
  for (int kmer = 1; kmer < kmers; ++kmer) add_row<T>(result.value, row(kmer));
  return result;
}

// The best of a window of `pool` positions. Four are compared in a tree, which shortens the chain
// of comparisons that each waits for the one before.
template <typename T, int KMERS>
INLINE Best<T> best_of_window(const Reader<T>& reader, int64_t start, int pool) {
  Best<T> best = at<T, KMERS>(reader, start);
  place<T>(best, 0);
  int i = 1;
  for (; i + 4 <= pool; i += 4) {
    Best<T> four[4];
    for (int j = 0; j < 4; ++j) {
      four[j] = at<T, KMERS>(reader, start + i + j);
      place<T>(four[j], j);
    }
    keep_better<T>(four[0], four[1]);
    keep_better<T>(four[2], four[3]);
    keep_better<T>(four[0], four[2]);
    for (int part = 0; part < Simd<T>::parts; ++part) four[0].where[part] += i;
    keep_better<T>(best, four[0]);
  }
  for (; i < pool; ++i) {
    Best<T> one = at<T, KMERS>(reader, start + i);
    place<T>(one, i);
    keep_better<T>(best, one);
  }
  for (int part = 0; part < Simd<T>::parts; ++part) best.where[part] += static_cast<typename Simd<T>::Position>(start);
  return best;
}

// The same for a window with an N in it, a base at a time.
template <typename T>
TARGET Best<T> best_with_unknown(const Layout& layout, const T* bases, const uint8_t* padded,
                                 int64_t start) {
  constexpr int block = block_filters<T>();
  Best<T> best;
  for (int64_t i = start; i < start + layout.pool; ++i) {
    Best<T> one;
    for (int part = 0; part < Simd<T>::parts; ++part) one.value[part] = typename Simd<T>::Value{};
    for (int j = 0; j < layout.width; ++j) {
      const int code = padded[i + j] < kLetters ? padded[i + j] : kLetters;
      add_row<T>(one.value, bases + (j * (kLetters + 1) + code) * block);
    }
    place<T>(one, i);
    if (i == start) {
      best = one;
    } else {
      keep_better<T>(best, one);
    }
  }
  return best;
}

// Notes which k-mer begins at each of `count` positions; reads K - 1 codes beyond.
template <int K>
TARGET void fill_index(const uint8_t* __restrict codes, int64_t count, uint16_t* __restrict index) {
  // An N makes an index that is wrong but inside the table; such windows are not read with it.
  constexpr uint16_t mask = (1 << (2 * K)) - 1;
  for (int64_t i = 0; i < count; ++i) {
    uint16_t kmer = 0;
    for (int j = 0; j < K; ++j) kmer = static_cast<uint16_t>(kmer * kLetters + codes[i + j]);
    index[i] = static_cast<uint16_t>((kmer & mask) * kIndexStep);
  }
}

INLINE void fill_index(int k, const uint8_t* codes, int64_t count, uint16_t* index) {
  switch (k) {
    case 1: return fill_index<1>(codes, count, index);
    case 2: return fill_index<2>(codes, count, index);
    case 3: return fill_index<3>(codes, count, index);
    default: return fill_index<4>(codes, count, index);
  }
}

// Copies codes; returns whether there is an N among them.
INLINE bool copy_codes(const uint8_t* __restrict from, int64_t count, uint8_t* __restrict to) {
  uint8_t unknown = 0;
  for (int64_t i = 0; i < count; ++i) {
    to[i] = from[i];
    unknown |= from[i] >= kLetters;
  }
  return unknown;
}

// Puts N's around a sequence and indexes its k-mers; returns whether there is any N.
TARGET bool index_kmers(const Layout& layout, const uint8_t* codes, const Scratch& scratch) {
  const int64_t left = layout.left, length = layout.length, padded = layout.padded;
  for (int64_t i = 0; i < left; ++i) scratch.codes[i] = kLetters;
  const bool unknown = copy_codes(codes, length, scratch.codes + left);
  for (int64_t i = left + length; i < padded + kLongestKmer; ++i) scratch.codes[i] = kLetters;
  if (layout.shorter_kmers > 0) {
    fill_index(layout.shorter, scratch.codes, padded, scratch.shorter_index);
  }
  if (layout.shorter_kmers < layout.kmers) {
    fill_index(layout.shorter + 1, scratch.codes, padded, scratch.longer_index);
  }
  return unknown || padded != length;
}

INLINE const uint16_t* index_of(const Layout& layout, const Scratch& scratch, int kmer) {
  const uint16_t* index =
      kmer < layout.shorter_kmers ? scratch.shorter_index : scratch.longer_index;
  return index + layout.offset(kmer);
}

INLINE bool has_unknown(const uint8_t* codes, int64_t count) {
  uint8_t unknown = 0;
  for (int64_t i = 0; i < count; ++i) unknown |= codes[i] >= kLetters;
  return unknown;
}

// Writes the first `count` outputs of a window's block.
template <typename T>
INLINE void store(const Best<T>& best, int count, T* pooled, int32_t* winner) {
  constexpr int block = block_filters<T>();
  T value[block];
  int32_t where[block];
  for (int i = 0; i < Simd<T>::parts; ++i) {
    const auto stopped = best.value[i] <= 0;
    const typename Simd<T>::Value passed = stopped ? typename Simd<T>::Value{} : best.value[i];
    const typename Simd<T>::Where found = stopped ? ~best.where[i] : best.where[i];
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) {
      value[i * Simd<T>::lanes + lane] = passed[lane];
      where[i * Simd<T>::lanes + lane] = static_cast<int32_t>(found[lane]);
    }
  }
  for (int f = 0; f < count; ++f) pooled[f] = value[f];
  for (int f = 0; f < count; ++f) winner[f] = where[f];
}

// The windows of one block of filters, which begins at filter `first`.
template <typename T, int KMERS>
TARGET void best_of_windows(const Layout& layout, int first, const T* tables, const T* bases,
                            bool unknown, const Scratch& scratch, T* pooled, int32_t* winner) {
  constexpr int block = block_filters<T>();
  Reader<T> reader;
  reader.kmers = layout.kmers;
  for (int kmer = 0; kmer < layout.kmers; ++kmer) {
    reader.table[kmer] = tables + layout.table(kmer) * block;
    reader.index[kmer] = index_of(layout, scratch, kmer);
  }
  const int span = layout.pool + layout.width - 1;
  const int count = layout.filters - first < block ? layout.filters - first : block;
  const int64_t end = layout.windows * layout.filters;
  for (int64_t window = 0; window < layout.windows; ++window) {
    const int64_t start = window * layout.pool;
    const Best<T> best = unknown && has_unknown(scratch.codes + start, span)
                             ? best_with_unknown<T>(layout, bases, scratch.codes, start)
                             : best_of_window<T, KMERS>(reader, start, layout.pool);
    const int64_t to = window * layout.filters + first;
    // A whole block is one store; what lies beyond `count` is overwritten by a later window.
    if (to + block <= end) {
      store<T>(best, block, pooled + to, winner + to);
    } else {
      store<T>(best, count, pooled + to, winner + to);
    }
  }
}

template <typename T>
TARGET void forward(const Layout& layout, const T* tables, const T* bases, const uint8_t* codes,
                    T* pooled, int32_t* winner, const Scratch& scratch) {
  constexpr int block = block_filters<T>();
  const bool unknown = index_kmers(layout, codes, scratch);
  const auto run = layout.kmers == 1   ? best_of_windows<T, 1>
                   : layout.kmers == 2 ? best_of_windows<T, 2>
                   : layout.kmers == 3 ? best_of_windows<T, 3>
                   : layout.kmers == 4 ? best_of_windows<T, 4>
                                       : best_of_windows<T, 0>;
  // From the last block to the first: what a shorter last one writes beyond its filters belongs to
  // blocks that are written after it.
  for (int b = blocks<T>(layout) - 1; b >= 0; --b) {
    run(layout, b * block, tables + int64_t{b} * layout.all_rows() * block,
        bases + int64_t{b} * layout.width * (kLetters + 1) * block, unknown, scratch, pooled,
        winner);
  }
}

// The gradients of a window with an N in it, a base at a time.
template <typename T>
TARGET void add_with_unknown(int width, int filters, const uint8_t* padded,
                             const int32_t* position, const T* value, T* bases) {
  for (int f = 0; f < filters; ++f) {
    for (int j = 0; j < width; ++j) {
      const uint8_t found = padded[position[f] + j];
      const int code = found < kLetters ? found : kLetters;
      bases[(j * (kLetters + 1) + code) * block_filters<T>() + f] += value[f];
    }
  }
}

constexpr int kFiltersAtOnce = 4;

// Adds the gradients of one block's filters, which begin at `winner` and `gradient`.
template <typename T, int KMERS>
TARGET void add_gradients(const Layout& layout, int filters, const int32_t* winner,
                          const T* gradient, T* tables, T* bases, bool unknown,
                          const Scratch& scratch) {
  constexpr int block = block_filters<T>();
  const uint16_t* index[kMostKmers];
  T* table[kMostKmers];
  const int kmers = KMERS ? KMERS : layout.kmers;
  for (int kmer = 0; kmer < kmers; ++kmer) {
    index[kmer] = index_of(layout, scratch, kmer);
    table[kmer] = tables + layout.table(kmer) * block;
  }
  const int64_t windows = layout.windows;
  const int width = layout.width, row = layout.filters;
  static_assert(block % kFiltersAtOnce == 0, "filters would be added beyond the block");
  T value[block] = {};
  int32_t position[block] = {};
  for (int64_t window = 0; window < windows; ++window, winner += row, gradient += row) {
    // Adding 0 where nothing passed is faster than a branch that nobody can foresee.
    for (int f = 0; f < filters; ++f) {
      const T all = gradient[f];
      value[f] = winner[f] < 0 ? T{0} : all;
      position[f] = winner[f] < 0 ? ~winner[f] : winner[f];
    }
    if (unknown && has_unknown(scratch.codes + window * layout.pool, layout.pool + width - 1)) {
      add_with_unknown(width, filters, scratch.codes, position, value, bases);
      continue;
    }
    // Without a branch a filter; those that are not there add 0 to columns that nobody keeps.
    for (int begin = 0; begin < filters; begin += kFiltersAtOnce) {
      for (int f = begin; f < begin + kFiltersAtOnce; ++f) {
        for (int kmer = 0; kmer < kmers; ++kmer) {
          row_at(table[kmer], index[kmer][position[f]])[f] += value[f];
        }
      }
    }
  }
}

template <typename T>
TARGET void backward(const Layout& layout, const uint8_t* codes, const int32_t* winner,
                     const T* gradient, T* tables, T* bases, const Scratch& scratch) {
  constexpr int block = block_filters<T>();
  const bool unknown = index_kmers(layout, codes, scratch);
  for (int b = 0; b < blocks<T>(layout); ++b) {
    const int first = b * block;
    const int count = layout.filters - first < block ? layout.filters - first : block;
    T* block_tables = tables + int64_t{b} * layout.all_rows() * block;
    T* block_bases = bases + int64_t{b} * layout.width * (kLetters + 1) * block;
    const auto add = layout.kmers == 3 ? add_gradients<T, 3> : add_gradients<T, 0>;
    add(layout, count, winner + first, gradient + first, block_tables, block_bases, unknown,
        scratch);
  }
}

// Rows are k-mers in the order of their letters, the first letter counting most.
INLINE int letter_of(int row, int k, int j) { return row >> (2 * (k - 1 - j)) & (kLetters - 1); }

template <typename T>
TARGET void build(const Layout& layout, const T* kernel, const T* bias, T* tables, T* bases) {
  constexpr int block = block_filters<T>();
  for (int b = 0; b < blocks<T>(layout); ++b) {
    const int first = b * block;
    T* block_bases = bases + int64_t{b} * layout.width * (kLetters + 1) * block;
    for (int j = 0; j < layout.width; ++j) {
      for (int letter = 0; letter <= kLetters; ++letter) {
        for (int f = 0; f < block; ++f) {
          const bool is_filter = first + f < layout.filters;
          T value = 0;
          if (is_filter && letter < kLetters) {
            value = kernel[(j * kLetters + letter) * layout.filters + first + f];
          }
          if (is_filter && j == 0) value += bias[first + f];
          block_bases[(j * (kLetters + 1) + letter) * block + f] = value;
        }
      }
    }
    T* block_tables = tables + int64_t{b} * layout.all_rows() * block;
    for (int kmer = 0; kmer < layout.kmers; ++kmer) {
      const int k = layout.k(kmer);
      T* rows = block_tables + layout.table(kmer) * block;
      for (int row = 0; row < layout.rows(kmer); ++row) {
        typename Simd<T>::Value sum[Simd<T>::parts] = {};
        for (int j = 0; j < k; ++j) {
          const int base = layout.offset(kmer) + j;
          add_row<T>(sum, block_bases + (base * (kLetters + 1) + letter_of(row, k, j)) * block);
        }
        copy_row<T>(rows + row * block, reinterpret_cast<const T*>(sum));
      }
    }
  }
}

template <typename T>
TARGET void spread(const Layout& layout, const T* tables, const T* bases, T* kernel, T* bias) {
  constexpr int block = block_filters<T>();
  for (int b = 0; b < blocks<T>(layout); ++b) {
    const int first = b * block;
    const int count = layout.filters - first < block ? layout.filters - first : block;
    const T* block_bases = bases + int64_t{b} * layout.width * (kLetters + 1) * block;
    const T* block_tables = tables + int64_t{b} * layout.all_rows() * block;
    for (int kmer = 0; kmer < layout.kmers; ++kmer) {
      const int k = layout.k(kmer);
      const T* rows = block_tables + layout.table(kmer) * block;
      for (int j = 0; j < k; ++j) {
        const int base = layout.offset(kmer) + j;
        const T* unknown = block_bases + base * (kLetters + 1) * block;
        typename Simd<T>::Value sums[kLetters + 1][Simd<T>::parts] = {};
        for (int row = 0; row < layout.rows(kmer); ++row) {
          add_row<T>(sums[letter_of(row, k, j)], rows + row * block);
        }
        for (int letter = 0; letter <= kLetters; ++letter) {
          add_row<T>(sums[letter], unknown + letter * block);
        }
        for (int letter = 0; letter < kLetters; ++letter) {
          const T* sum = reinterpret_cast<const T*>(sums[letter]);
          for (int f = 0; f < count; ++f) {
            kernel[(base * kLetters + letter) * layout.filters + first + f] = sum[f];
          }
        }
        if (base > 0) continue;
        // Every winner has added to exactly one row of the first base.
        for (int letter = 1; letter <= kLetters; ++letter) {
          add_row<T>(sums[0], reinterpret_cast<const T*>(sums[letter]));
        }
        const T* sum = reinterpret_cast<const T*>(sums[0]);
        for (int f = 0; f < count; ++f) bias[first + f] = sum[f];
      }
    }
  }
}

}  // namespace

template <typename T>
Kernels<T> KERNELS() {
  return {&build<T>, &forward<T>, &backward<T>, &spread<T>};
}
template Kernels<float> KERNELS<float>();
template Kernels<double> KERNELS<double>();

}  // namespace tal1_hvd
