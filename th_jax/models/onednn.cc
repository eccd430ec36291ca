// Convolutions for XLA's CPU backend by oneDNN, as a foreign function: float32 results of bfloat16 products.
//
// Images are [batch, height, width, channels] and kernels [rows, columns, inputs, features]. `kind` selects the result: the
// convolution itself, its gradient by the input, or its gradient by the kernel.

#include <dnnl.hpp>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <tuple>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

enum Kind : int64_t { kForward = 0, kInputGradient = 1, kKernelGradient = 2 };

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& Stream() {
  thread_local dnnl::stream stream(Engine());
  return stream;
}

// One primitive and the memory layouts it prefers, beside those of the caller's arrays.
struct Plan {
  dnnl::primitive primitive;
  Desc image, kernel, result;                       // as the primitive wants them
  Desc scratch;                                     // the primitive's own working memory
  Desc given_kernel;                                // as XLA has it; images and results are the same for both
};

// Kernels and what is computed are float32; the other images are bfloat16.
bool HasType(const ffi::AnyBuffer& buffer, bool float32) {
  return buffer.element_type() == (float32 ? ffi::DataType::F32 : ffi::DataType::BF16);
}

Dims DimsOf(const ffi::AnyBuffer& buffer) {
  auto dims = buffer.dimensions();
  return Dims(dims.begin(), dims.end());
}

Plan MakePlan(int64_t kind, const Dims& x, const Dims& w, const Dims& y, int64_t stride, int64_t pad) {
  Plan plan;
  const Dims image{x[0], x[3], x[1], x[2]}, kernel{w[3], w[2], w[0], w[1]}, result{y[0], y[3], y[1], y[2]};
  plan.given_kernel = {kernel, Type::f32, Tag::hwio};
  const Dims strides{stride, stride}, before{pad, pad};
  const Dims after{(y[1] - 1) * stride + w[0] - x[1] - pad, (y[2] - 1) * stride + w[1] - x[2] - pad};
  const Desc image16{image, Type::bf16, Tag::nhwc}, image32{image, Type::f32, Tag::nhwc};
  const Desc kernel16{kernel, Type::bf16, Tag::any}, kernel32{kernel, Type::f32, Tag::any};
  const Desc result16{result, Type::bf16, Tag::nhwc}, result32{result, Type::f32, Tag::nhwc};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto method = dnnl::algorithm::convolution_direct;
  const dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, method, image16, kernel16, kind == kForward ? result32 : result16,
      strides, before, after, attributes);
  if (kind == kForward) {
    plan.primitive = dnnl::convolution_forward(forward), plan.scratch = forward.scratchpad_desc();
    plan.image = forward.src_desc(), plan.kernel = forward.weights_desc(), plan.result = forward.dst_desc();
  } else if (kind == kInputGradient) {
    const dnnl::convolution_backward_data::primitive_desc of_input(Engine(), method, image32, kernel16, result16,
                                                                   strides, before, after, forward, attributes);
    plan.primitive = dnnl::convolution_backward_data(of_input), plan.scratch = of_input.scratchpad_desc();
    plan.image = of_input.diff_src_desc(), plan.kernel = of_input.weights_desc();
    plan.result = of_input.diff_dst_desc();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc of_kernel(Engine(), method, image16, kernel32, result16,
                                                                       strides, before, after, forward, attributes);
    plan.primitive = dnnl::convolution_backward_weights(of_kernel), plan.scratch = of_kernel.scratchpad_desc();
    plan.image = of_kernel.src_desc(), plan.kernel = of_kernel.diff_weights_desc();
    plan.result = of_kernel.diff_dst_desc();
  }
  return plan;
}

// Memory of this thread that grows as needed and is used again by later calls.
void* Scratch(int slot, size_t bytes) {
  thread_local struct { void* data = nullptr; size_t size = 0; } slots[2];
  auto& found = slots[slot];
  if (bytes > found.size) {
    std::free(found.data);
    found.size = (bytes + 4095) / 4096 * 4096;
    found.data = std::aligned_alloc(4096, found.size);
    if (!found.data) {
      found.size = 0;
      throw std::bad_alloc();
    }
  }
  return found.data;
}

inline uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// A float32 rounded to the nearest bfloat16, ties to even, in the upper half.
inline uint32_t Rounded(float value) {
  const uint32_t bits = Bits(value);
  return bits + 0x7fff + ((bits >> 16) & 1);
}

inline uint32_t Pair(float low, float high) { return (Rounded(low) >> 16) | (Rounded(high) & 0xffff0000u); }

// Packs a kernel into the blocked bfloat16 layouts of the matrix unit; false for any other layout. oneDNN's general
// reorder takes four times as long, which for wide layers is longer than the convolution.
bool PackKernel(const Desc& want, const float* w, void* packed) {
  if (want.get_inner_nblks() != 3 || want.get_data_type() != Type::bf16) return false;
  const Dims blocks = want.get_inner_blks(), order = want.get_inner_idxs(), stride = want.get_strides();
  const int64_t features = want.get_dims()[0], inputs = want.get_dims()[1];
  const int64_t rows = want.get_dims()[2], columns = want.get_dims()[3], width = blocks[1];
  const bool by_inputs = order == Dims{1, 0, 1}, by_features = order == Dims{0, 1, 0};
  if (blocks[0] != 16 || blocks[2] != 2 || features % 32 || inputs % 32 || !(by_inputs || by_features)) return false;
  if ((by_inputs ? features : inputs) % width) return false;
  auto* out = static_cast<uint32_t*>(packed);  // two numbers each
  const int64_t feature_block = by_inputs ? width : 32, input_block = by_inputs ? 32 : width;
  const int64_t taps = rows * columns;
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t i = 0; i < inputs / input_block; ++i) {
      for (int64_t f = 0; f < features / feature_block; ++f) {
        const float* from = w + (tap * inputs + i * input_block) * features + f * feature_block;
        uint32_t* to = out + (f * stride[0] + i * stride[1] + tap / columns * stride[2] + tap % columns * stride[3]) / 2;
        if (by_inputs) {  // 16 pairs of inputs x `width` features
          for (int64_t pair = 0; pair < 16; ++pair) {
            const float *low = from + 2 * pair * features, *high = low + features;
            for (int64_t feature = 0; feature < width; ++feature) to[pair * width + feature] = Pair(low[feature], high[feature]);
          }
        } else {  // 16 pairs of features x `width` inputs
          for (int64_t input = 0; input < width; ++input) {
            const float* row = from + input * features;
            for (int64_t pair = 0; pair < 16; ++pair) to[pair * width + input] = Pair(row[2 * pair], row[2 * pair + 1]);
          }
        }
      }
    }
  }
  return true;
}

// The kernel as the primitive wants it.
dnnl::memory KernelOperand(const Plan& plan, const ffi::AnyBuffer& buffer) {
  dnnl::memory given(plan.given_kernel, Engine(), buffer.untyped_data());
  if (plan.kernel == plan.given_kernel) return given;
  dnnl::memory packed(plan.kernel, Engine(), Scratch(0, plan.kernel.get_size()));
  const auto* values = static_cast<const float*>(buffer.untyped_data());
  if (!PackKernel(plan.kernel, values, packed.get_data_handle()))
    dnnl::reorder(given, packed).execute(Stream(), given, packed);
  return packed;
}

void Execute(const Plan& plan, int64_t kind, dnnl::memory& image, dnnl::memory& kernel, dnnl::memory& result) {
  // One thread a primitive: teams of threads would wait for each other at every barrier as soon as another process needs a
  // core. XLA runs independent convolutions side by side, and `InParts` divides the others.
  omp_set_num_threads(1);
  dnnl::memory scratch(plan.scratch, Engine(), Scratch(1, plan.scratch.get_size()));
  plan.primitive.execute(Stream(), {{DNNL_ARG_SCRATCHPAD, scratch},
                                    {kind == kInputGradient ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, image},
                                    {kind == kKernelGradient ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, kernel},
                                    {kind == kForward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, result}});
  Stream().wait();
}

// Parts of a batch, each claimed by the thread that computes it: the caller, or a thread of XLA's pool that is free. Whoever
// comes late finds nothing left, so that nobody waits for a part that has not begun.
struct Parts {
  explicit Parts(int64_t count) : count(count) {}
  const int64_t count;
  std::atomic<int64_t> claimed{0};
  std::mutex mutex;
  std::condition_variable changed;
  int64_t finished = 0;
  std::exception_ptr error;

  template <typename F>
  void Work(const F& compute) {
    for (int64_t part; (part = claimed.fetch_add(1)) < count;) {
      std::exception_ptr failed;
      try {
        compute(part);
      } catch (...) {
        failed = std::current_exception();
      }
      const std::lock_guard<std::mutex> lock(mutex);
      if (failed) error = failed;
      if (++finished == count) changed.notify_all();
    }
  }
};

// Raises an error of any part, when all have ended.
template <typename F>
void InParts(int64_t count, ffi::ThreadPool& pool, F compute) {
  auto parts = std::make_shared<Parts>(count);
  for (int64_t i = 1; i < count; ++i) pool.Schedule([parts, compute] { parts->Work(compute); });
  parts->Work(compute);
  std::unique_lock<std::mutex> lock(parts->mutex);
  parts->changed.wait(lock, [&] { return parts->finished == count; });
  if (parts->error) std::rethrow_exception(parts->error);
}

// Number of equal parts of a batch that are worth a thread each.
int64_t PartsOf(const Dims& w, const Dims& y, int64_t threads) {
  const double products = double(w[0] * w[1] * w[2] * w[3]) * double(y[0] * y[1] * y[2]);
  int64_t parts = std::min({threads, y[0], int64_t(products / 5e7) + 1});
  while (y[0] % parts) --parts;
  return parts;
}

ffi::Error Convolve(ffi::ThreadPool pool, int64_t kind, int64_t stride, int64_t pad, ffi::AnyBuffer first,
                    ffi::AnyBuffer second, ffi::Result<ffi::AnyBuffer> made) {
  const ffi::AnyBuffer x = kind == kInputGradient ? *made : first;
  const ffi::AnyBuffer w = kind == kKernelGradient ? *made : kind == kInputGradient ? first : second;
  const ffi::AnyBuffer y = kind == kForward ? *made : second;
  if (!HasType(x, kind == kInputGradient) || !HasType(w, true) || !HasType(y, kind == kForward))
    return ffi::Error::InvalidArgument("expected bfloat16 operands, float32 kernels and a float32 result");
  Dims image_dims = DimsOf(x), kernel_dims = DimsOf(w), result_dims = DimsOf(y);
  const int64_t parts = kind == kKernelGradient ? 1 : PartsOf(kernel_dims, result_dims, pool.num_threads());
  image_dims[0] /= parts, result_dims[0] /= parts;
  try {
    using Key = std::tuple<int64_t, Dims, Dims, Dims, int64_t, int64_t>;
    static std::map<Key, Plan> plans;
    static std::mutex planning;
    const Plan* plan;
    {
      const Key key{kind, image_dims, kernel_dims, result_dims, stride, pad};
      const std::lock_guard<std::mutex> lock(planning);
      omp_set_num_threads(1);  // the primitive is made for as many
      auto found = plans.find(key);
      if (found == plans.end()) found = plans.emplace(key, std::apply(MakePlan, key)).first;
      plan = &found->second;
    }
    auto* image_data = static_cast<char*>(x.untyped_data());
    auto* result_data = static_cast<char*>(y.untyped_data());
    const size_t image_bytes = x.size_bytes() / parts, result_bytes = y.size_bytes() / parts;
    if (kind != kKernelGradient) {
      const dnnl::memory packed = KernelOperand(*plan, w);
      InParts(parts, pool, [=](int64_t part) {
        dnnl::memory image(plan->image, Engine(), image_data + part * image_bytes), kernel = packed;
        dnnl::memory result(plan->result, Engine(), result_data + part * result_bytes);
        Execute(*plan, kind, image, kernel, result);
      });
      return ffi::Error::Success();
    }
    dnnl::memory image(plan->image, Engine(), image_data), result(plan->result, Engine(), result_data);
    dnnl::memory out(plan->given_kernel, Engine(), w.untyped_data());
    dnnl::memory kernel(plan->kernel, Engine(),
                        plan->kernel == plan->given_kernel ? w.untyped_data() : Scratch(0, plan->kernel.get_size()));
    Execute(*plan, kind, image, kernel, result);
    if (plan->kernel != plan->given_kernel) {
      dnnl::reorder(kernel, out).execute(Stream(), kernel, out);
      Stream().wait();
    }
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory: no working memory for a convolution");
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ThJaxConvolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("kind")
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("pad")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
