// The time, as an operation: TensorFlow's own refuses where results are to be repeatable.

#include <chrono>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tal1_hvd {
namespace {

class Clock : public tensorflow::OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(tensorflow::OpKernelContext* context) override {
    tensorflow::Tensor* seconds = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, tensorflow::TensorShape(), &seconds));
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    seconds->scalar<double>()() = std::chrono::duration<double>(now).count();
  }

  bool IsExpensive() override { return false; }
};

// Stateful, so that neither its value is reused nor the operation left out.
REGISTER_OP("Tal1HvdClock")
    .Output("seconds: double")
    .SetIsStateful()
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->Scalar());
      return tensorflow::Status();
    });

REGISTER_KERNEL_BUILDER(Name("Tal1HvdClock").Device(tensorflow::DEVICE_CPU), Clock);

}  // namespace
}  // namespace tal1_hvd
