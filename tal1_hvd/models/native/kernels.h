// Convolution over DNA codes, bias, ReLU and max-pooling of one sequence, and its gradient.
//
// A filter over one-hot bases is a sum of one weight a base, so the weights of k neighbouring bases
// are added beforehand for all 4^k k-mers: a filter of width 10 costs three look-ups (3 + 3 + 4
// bases) and two additions a position instead of ten multiplications by rows that are mostly zero.
// A row of such a table holds the filters of one block side by side, in 64 bytes.
//
// Behind a max-pooling only the winning position of each (window, filter) has a gradient. It is
// added to the k-mers' rows found there, which are spread over bases and letters once, at the end.
#pragma once

#include <cstdint>

namespace tal1_hvd {

constexpr int kLetters = 4;         // A C G T; a larger code (N) is a row of zeros
constexpr int kBlockBytes = 64;     // a table's row
constexpr int kLongestKmer = 4;
constexpr int kWidest = 256;        // filter
constexpr int kIndexStep = 8;        // k-mers' indices count in steps that processors multiply

// How a convolution is laid out; positions count from the padded sequence's start.
struct Layout {
  int64_t length;   // of a sequence
  int64_t left;     // N's put before it by the padding
  int64_t padded;   // its length with N's on both sides
  int width;        // of a filter
  int filters;
  int pool;
  int64_t windows;  // of the pooling
  int kmers;        // tables
  int shorter;      // k of the first tables; that of the others is one more
  int shorter_kmers;

  int k(int kmer) const { return kmer < shorter_kmers ? shorter : shorter + 1; }
  int rows(int kmer) const { return 1 << (2 * k(kmer)); }
  int offset(int kmer) const {
    const int longer_before = kmer > shorter_kmers ? kmer - shorter_kmers : 0;
    return shorter * kmer + longer_before;
  }
  int table(int kmer) const {  // first row of a table
    const int of_shorter = kmer < shorter_kmers ? kmer : shorter_kmers;
    return of_shorter * (1 << (2 * shorter)) + (kmer - of_shorter) * (1 << (2 * shorter + 2));
  }
  int all_rows() const { return table(kmers); }
};

// Memory that one thread needs for one sequence.
struct Scratch {
  uint8_t* codes;           // padded + kLongestKmer
  uint16_t* shorter_index;  // padded: k-mer that begins at each position, times kIndexStep
  uint16_t* longer_index;   // padded
};

// The functions, compiled for one instruction set. Tables and bases begin at multiples of 64 bytes.
template <typename T>
struct Kernels {
  // kernel (width, 4, filters), bias (filters) -> tables (blocks, all_rows, block), and the same
  // weights a base, for windows with an N: bases (blocks, width, 5, block).
  void (*build)(const Layout&, const T* kernel, const T* bias, T* tables, T* bases);
  // codes (length) -> pooled (windows, filters), winner (windows, filters): the padded position of
  // the window's first largest value, or its complement (negative) where the ReLU lets nothing
  // through.
  void (*forward)(const Layout&, const T* tables, const T* bases, const uint8_t* codes, T* pooled,
                  int32_t* winner, const Scratch&);
  // Adds a sequence's gradient (windows, filters) to tables and bases, laid out as above.
  void (*backward)(const Layout&, const uint8_t* codes, const int32_t* winner, const T* gradient,
                   T* tables, T* bases, const Scratch&);
  // tables, bases -> kernel (width, 4, filters), bias (filters).
  void (*spread)(const Layout&, const T* tables, const T* bases, T* kernel, T* bias);
};

template <typename T>
constexpr int block_filters() { return kBlockBytes / static_cast<int>(sizeof(T)); }

template <typename T>
int blocks(const Layout& layout) {
  return (layout.filters + block_filters<T>() - 1) / block_filters<T>();
}

template <typename T> Kernels<T> baseline_kernels();
template <typename T> Kernels<T> avx2_kernels();
template <typename T> Kernels<T> avx512_kernels();

}  // namespace tal1_hvd
