// TensorFlow's view of the kernels: shapes, memory, and threads.

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "dispatch.h"
#include "kernels.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/register_types.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/public/version.h"
#include "tensorflow/core/util/work_sharder.h"

namespace tal1_hvd {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Status;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Sequences that a thread takes at once. Fixed, so that sums come in an order that does not depend
// on the number of threads.
constexpr int64_t kSequencesAtOnce = 16;
// A sequence's cost in cycles, for the pool to decide how many threads pay.
constexpr int64_t kCyclesAWindow = 200;

int64_t windows(int64_t length, int64_t width, int64_t pool, bool same) {
  const int64_t positions = same ? length : length - width + 1;
  return positions < pool ? 0 : positions / pool;
}

Layout make_layout(int64_t length, int64_t width, int64_t filters, int64_t pool, bool same) {
  Layout layout;
  layout.length = length;
  layout.left = same ? (width - 1) / 2 : 0;
  layout.padded = same ? length + width - 1 : length;
  layout.width = static_cast<int>(width);
  layout.filters = static_cast<int>(filters);
  layout.pool = static_cast<int>(pool);
  layout.windows = windows(length, width, pool, same);
  layout.kmers = static_cast<int>((width + kLongestKmer - 1) / kLongestKmer);
  layout.shorter = layout.width / layout.kmers;
  layout.shorter_kmers = layout.kmers - layout.width % layout.kmers;
  return layout;
}

// Memory of one kind for all blocks and threads, at addresses that vectors can be loaded from.
template <typename U>
class Buffer {
 public:
  Status allocate(OpKernelContext* context, int64_t count) {
    const int64_t bytes = count * sizeof(U) + kBlockBytes;
    const Status status =
        context->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}), &memory_);
    if (!status.ok()) return status;
    const auto address = reinterpret_cast<uintptr_t>(memory_.flat<uint8_t>().data());
    data_ = reinterpret_cast<U*>((address + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
    return status;
  }
  U* data() const { return data_; }

 private:
  Tensor memory_;
  U* data_ = nullptr;
};

// Scratch of one thread; made by the thread itself, for there are few and they do much.
class ThreadMemory {
 public:
  explicit ThreadMemory(const Layout& layout)
      : codes_(layout.padded + kLongestKmer),
        index_(2 * layout.padded) {}
  Scratch scratch() {
    const auto half = static_cast<std::ptrdiff_t>(index_.size() / 2);
    return {codes_.data(), index_.data(), index_.data() + half};
  }

 private:
  std::vector<uint8_t> codes_;
  std::vector<uint16_t> index_;
};

int64_t table_size(const Layout& layout, int blocks, int block) {
  return int64_t{blocks} * layout.all_rows() * block;
}

int64_t bases_size(const Layout& layout, int blocks, int block) {
  return int64_t{blocks} * layout.width * (kLetters + 1) * block;
}

void in_parallel(OpKernelContext* context, int64_t parts, int64_t cycles,
                 const std::function<void(int64_t, int64_t)>& work) {
  const auto* threads = context->device()->tensorflow_cpu_worker_threads();
  tensorflow::Shard(threads->num_threads, threads->workers, parts, cycles, work);
}

Status read_attributes(OpKernelConstruction* context, int64_t* pool, bool* same) {
  std::string padding;
  Status status = context->GetAttr("pool", pool);
  if (status.ok()) status = context->GetAttr("padding", &padding);
  *same = padding == "SAME";
  return status;
}

template <typename T>
class DnaConvPool : public OpKernel {
 public:
  explicit DnaConvPool(OpKernelConstruction* context)
      : OpKernel(context), kernels_(choose_kernels<T>()) {
    OP_REQUIRES_OK(context, read_attributes(context, &pool_, &same_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& codes = context->input(0);
    const Tensor& kernel = context->input(1);
    const Tensor& bias = context->input(2);
    OP_REQUIRES(context, codes.dims() == 2,
                InvalidArgument("codes: expected shape (batch, length), got ",
                                codes.shape().DebugString()));
    OP_REQUIRES(context, kernel.dims() == 3 && kernel.dim_size(1) == kLetters,
                InvalidArgument("kernel: expected shape (width, 4, filters), got ",
                                kernel.shape().DebugString()));
    OP_REQUIRES(context, kernel.dim_size(0) >= 1 && kernel.dim_size(0) <= kWidest,
                InvalidArgument("kernel: expected a width from 1 to ", kWidest, ", got ",
                                kernel.dim_size(0)));
    OP_REQUIRES(context, bias.dims() == 1 && bias.dim_size(0) == kernel.dim_size(2),
                InvalidArgument("bias: expected shape (", kernel.dim_size(2), "), got ",
                                bias.shape().DebugString()));
    const int64_t batch = codes.dim_size(0);
    const Layout layout = make_layout(codes.dim_size(1), kernel.dim_size(0), kernel.dim_size(2),
                                      pool_, same_);
    const TensorShape shape({batch, layout.windows, layout.filters});
    Tensor* pooled = nullptr;
    Tensor* winner = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &pooled));
    OP_REQUIRES_OK(context, context->allocate_output(1, shape, &winner));
    if (shape.num_elements() == 0) return;

    constexpr int block = block_filters<T>();
    Buffer<T> tables, bases;
    OP_REQUIRES_OK(context, tables.allocate(context, table_size(layout, blocks<T>(layout), block)));
    OP_REQUIRES_OK(context, bases.allocate(context, bases_size(layout, blocks<T>(layout), block)));
    kernels_.build(layout, kernel.flat<T>().data(), bias.flat<T>().data(), tables.data(),
                   bases.data());

    const uint8_t* in = codes.flat<uint8_t>().data();
    T* out = pooled->flat<T>().data();
    int32_t* where = winner->flat<int32_t>().data();
    const int64_t row = layout.windows * layout.filters;
    in_parallel(context, batch, layout.windows * kCyclesAWindow, [&](int64_t begin, int64_t end) {
      ThreadMemory memory(layout);
      for (int64_t i = begin; i < end; ++i) {
        kernels_.forward(layout, tables.data(), bases.data(), in + i * layout.length,
                         out + i * row, where + i * row, memory.scratch());
      }
    });
  }

 private:
  const Kernels<T> kernels_;
  int64_t pool_;
  bool same_;
};

template <typename T>
class DnaConvPoolGrad : public OpKernel {
 public:
  explicit DnaConvPoolGrad(OpKernelConstruction* context)
      : OpKernel(context), kernels_(choose_kernels<T>()) {
    OP_REQUIRES_OK(context, read_attributes(context, &pool_, &same_));
    OP_REQUIRES_OK(context, context->GetAttr("width", &width_));
    OP_REQUIRES(context, width_ <= kWidest,
                InvalidArgument("width: expected at most ", kWidest, ", got ", width_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& codes = context->input(0);
    const Tensor& winner = context->input(1);
    const Tensor& gradient = context->input(2);
    OP_REQUIRES(context, codes.dims() == 2 && winner.dims() == 3,
                InvalidArgument("codes and winner: expected those of the forward operation"));
    OP_REQUIRES(context, gradient.shape() == winner.shape(),
                InvalidArgument("gradient: expected shape ", winner.shape().DebugString(), ", got ",
                                gradient.shape().DebugString()));
    const int64_t batch = codes.dim_size(0);
    const int64_t filters = winner.dim_size(2);
    const Layout layout = make_layout(codes.dim_size(1), width_, filters, pool_, same_);
    OP_REQUIRES(context, winner.dim_size(0) == batch && winner.dim_size(1) == layout.windows,
                InvalidArgument("winner: expected that of the forward operation, got shape ",
                                winner.shape().DebugString()));
    Tensor* kernel = nullptr;
    Tensor* bias = nullptr;
    OP_REQUIRES_OK(context,
                   context->allocate_output(0, TensorShape({width_, kLetters, filters}), &kernel));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({filters}), &bias));

    constexpr int block = block_filters<T>();
    const int64_t of_tables = table_size(layout, blocks<T>(layout), block);
    const int64_t of_all = of_tables + bases_size(layout, blocks<T>(layout), block);
    const int64_t parts =
        std::max<int64_t>(1, (batch + kSequencesAtOnce - 1) / kSequencesAtOnce);
    Buffer<T> sums;
    OP_REQUIRES_OK(context, sums.allocate(context, parts * of_all));

    const uint8_t* in = codes.flat<uint8_t>().data();
    const int32_t* where = winner.flat<int32_t>().data();
    const T* from = gradient.flat<T>().data();
    const int64_t row = layout.windows * filters;
    const int64_t cycles = layout.windows * kCyclesAWindow * kSequencesAtOnce;
    in_parallel(context, parts, cycles, [&](int64_t begin, int64_t end) {
      ThreadMemory memory(layout);
      for (int64_t part = begin; part < end; ++part) {
        T* tables = sums.data() + part * of_all;
        std::fill_n(tables, of_all, T{0});
        const int64_t stop = std::min(batch, (part + 1) * kSequencesAtOnce);
        for (int64_t i = part * kSequencesAtOnce; i < stop; ++i) {
          kernels_.backward(layout, in + i * layout.length, where + i * row, from + i * row, tables,
                            tables + of_tables, memory.scratch());
        }
      }
    });
    T* total = sums.data();
    for (int64_t part = 1; part < parts; ++part) {
      const T* more = sums.data() + part * of_all;
      for (int64_t i = 0; i < of_all; ++i) total[i] += more[i];
    }
    kernels_.spread(layout, total, total + of_tables, kernel->flat<T>().data(),
                    bias->flat<T>().data());
  }

 private:
  const Kernels<T> kernels_;
  int64_t pool_;
  int64_t width_;
  bool same_;
};

Status forward_shape(InferenceContext* c) {
  ShapeHandle codes, kernel, bias;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &codes));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 3, &kernel));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 1, &bias));
  int64_t pool;
  std::string padding;
  TF_RETURN_IF_ERROR(c->GetAttr("pool", &pool));
  TF_RETURN_IF_ERROR(c->GetAttr("padding", &padding));
  DimensionHandle count = c->UnknownDim();
  if (c->ValueKnown(c->Dim(codes, 1)) && c->ValueKnown(c->Dim(kernel, 0))) {
    count = c->MakeDim(windows(c->Value(c->Dim(codes, 1)), c->Value(c->Dim(kernel, 0)), pool,
                               padding == "SAME"));
  }
  const ShapeHandle out = c->MakeShape({c->Dim(codes, 0), count, c->Dim(kernel, 2)});
  c->set_output(0, out);
  c->set_output(1, out);
  return tensorflow::OkStatus();
}

Status gradient_shape(InferenceContext* c) {
  ShapeHandle winner;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 3, &winner));
  int64_t width;
  TF_RETURN_IF_ERROR(c->GetAttr("width", &width));
  c->set_output(0, c->MakeShape({c->MakeDim(width), c->MakeDim(kLetters), c->Dim(winner, 2)}));
  c->set_output(1, c->MakeShape({c->Dim(winner, 2)}));
  return tensorflow::OkStatus();
}

REGISTER_OP("Tal1HvdDnaConvPool")
    .Input("codes: uint8")
    .Input("kernel: T")
    .Input("bias: T")
    .Output("pooled: T")
    .Output("winner: int32")
    .Attr("T: {float, double}")
    .Attr("pool: int >= 1")
    .Attr("padding: {'VALID', 'SAME'}")
    .SetShapeFn(forward_shape);

REGISTER_OP("Tal1HvdDnaConvPoolGrad")
    .Input("codes: uint8")
    .Input("winner: int32")
    .Input("gradient: T")
    .Output("kernel: T")
    .Output("bias: T")
    .Attr("T: {float, double}")
    .Attr("pool: int >= 1")
    .Attr("width: int >= 1")
    .Attr("padding: {'VALID', 'SAME'}")
    .SetShapeFn(gradient_shape);

#define REGISTER(T)                                                                            \
  REGISTER_KERNEL_BUILDER(                                                                     \
      Name("Tal1HvdDnaConvPool").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"),        \
      DnaConvPool<T>);                                                                         \
  REGISTER_KERNEL_BUILDER(                                                                     \
      Name("Tal1HvdDnaConvPoolGrad").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"),    \
      DnaConvPoolGrad<T>);
REGISTER(float)
REGISTER(double)
#undef REGISTER

}  // namespace
}  // namespace tal1_hvd

// What the operations use, for logs.
extern "C" const char* tal1_hvd_simd() {
  switch (tal1_hvd::simd()) {
    case tal1_hvd::Simd::avx512: return "AVX-512";
    case tal1_hvd::Simd::avx2: return "AVX2";
    default: return "baseline";
  }
}

// The TensorFlow it was compiled for: its C++ interface changes between versions.
extern "C" const char* tal1_hvd_tensorflow_version() { return TF_VERSION_STRING; }
